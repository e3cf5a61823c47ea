"""This module predicts the rows of files that need not fit into the memory, on any executor; it resumes after kills."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks
from idl_ref._version import __version__
from idl_ref.model import ImplicitModel, load
from idl_ref.parallel import outputs, sources, workers
from idl_ref.parallel.outputs import Folder
from idl_ref.parallel.progress import Progress
from idl_ref.parallel.sources import File
from idl_ref.parallel.tasks import Outcome, checked, completed
from idl_ref.parallel.workers import Job, OtherBitsError
from idl_ref.predictor import Prediction

SOLVING = ("backend", "mitr", "grad_mitr")  # A file holds no backend, and only some numbers of iterations.
COPY = ".source-"  # The names of copies in the folder begin so.


class Failure(NamedTuple):
    """Rows that could not be predicted, and why.

    Attributes
    ----------
    start, stop : int
        The rows start … stop − 1.
    error : BaseException
        The exception that ended their task.
    """

    start: int
    stop: int
    error: BaseException


class RowsFailedError(RuntimeError):
    """This error means that some tasks failed, and all others are done.

    Attributes
    ----------
    failures : list of Failure
        The rows that are not done, in order.
    """

    def __init__(self, message: str, failures: Sequence[Failure] = ()) -> None:
        super().__init__(message)
        self.failures = list(failures)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.failures)


def predict_file(
    model: ImplicitModel | str | os.PathLike[str],
    source: Any,
    out: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    rows: int = 1024,
    per_task: int = 16,
    in_flight: int | None = None,
    progress: bool = True,
) -> Prediction:
    """Predict all rows of a file or of a folder of files, with certificates, and write the outputs to a folder.

    Row j of every output is that of `Predictor.certified` for row j of the source: Ŷ = C X + D U with X = φ(A X + B U),
    its error bound, status, number of iterations, and step.

    Parameters
    ----------
    model : ImplicitModel, or its file
        The model. A copy of its file is put into `out`, from where the workers load it.
    source : str or path, (file, array), or numpy.memmap
        A .npy, .npz, .csv, .tsv or .parquet file, a .zarr array, or a folder of such files, whose rows follow one
        another in the order of their names; names that begin with a dot or with _ are left out. (file, array) names
        an array of an .npz file; without it, x_test or X is taken, or the only one. Samples of shape (m, …) are
        flattened. A table has the columns of the training data, and a row that lacks a value is NONFINITE.
    out : str or path
        A new folder, or one of an earlier call, which then does only what is left. It gets Y.npy (m, q),
        error_bound.npy, iterations.npy, step.npy and status.npy (m,); status is −1 for rows that are not done.
    executor : concurrent.futures.Executor, optional
        Where tasks run: a pool of processes or threads, loky, `client.get_executor()` of Dask, `mpi4py.futures`. All
        its workers must see `source` and `out` by the same names. Without one, all is computed in this process.
    rows : int
        Rows are computed in blocks [k·rows, (k + 1)·rows). With the NumPy backend, last bits depend on them.
    per_task : int
        A task is so many blocks.
    in_flight : int, optional
        At most so many tasks are submitted and not done; 1,024 if None.
    progress : bool
        Show the progress on standard error.

    Returns
    -------
    Prediction
        The outputs, as read-only memory maps of the files.

    Raises
    ------
    ValueError, TypeError, FileFormatError, OSError
        A source that is not samples of p numbers or was changed; a folder `out` that belongs to another model, source,
        `rows` or version, or that is damaged; a full disk. Nothing that was done is lost.
    WorkersLostError
        A pool has lost a process. What is done is in `out`: call again with a new pool.
    RowsFailedError
        Some tasks failed alone. All others are done: mend the cause, and call again.
    OtherBitsError
        A machine computes other last bits than those that have computed before.

    Notes
    -----
    The outputs have the same bits for every executor, number of workers, `per_task` and order of tasks, and after any
    kill and resumption. Each worker computes with one thread, and compares a hash of a fixed block with that of the
    first one. A task holds names and numbers of rows; a worker holds one block of inputs, and the outputs of one task.

    Files that cannot be read from the middle (tables, compressed arrays) are first copied into `out`, one task per
    file; the copies are deleted in the end. What tells that a source was changed is the size and the time of its files;
    for .zarr, those of the file that describes it.

    Cost: that of `Predictor.certified`, and a hash of the parameters.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> model = ImplicitModel(4, 3, 20, seed=0)
    >>> with TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/U.npy", np.ones((5000, 4)))
    ...     found = predict_file(model, f"{folder}/U.npy", f"{folder}/answers", progress=False)
    ...     found.Y.shape, found.converged, np.load(f"{folder}/answers/status.npy").max()
    ((5000, 3), True, np.int8(0))
    """
    rows, per_task = checks.integer("rows", rows, 1), checks.integer("per_task", per_task, 1)
    checks.flag("progress", progress)
    checked(executor, in_flight)
    model = _model(model)
    run = _Run(executor, in_flight)
    found = sources.found(source, model.input_dim)
    folder = Folder(out)
    mark: dict[str, Any] = {
        "model": workers.digest(model),
        "source": _mark(found),
        "rows": rows,
        "version": __version__,
    }
    label = folder.claim(mark)
    if not folder.model.exists():
        model.save(folder.model)
    q, dtype = model.output_dim, model.dtype.name
    pieces: list[sources.Piece] = []
    if (arrays := folder.opened(q, dtype)) is None:
        pieces = _pieces(found, folder, model.input_dim, run)
        folder.create(sum(piece.length for piece in pieces), q, dtype)
        arrays = folder.opened(q, dtype)
        assert arrays is not None
    status = arrays[outputs.STATUS]
    if (left := _left(status)) == 0:
        return _done(folder, arrays)
    pieces = pieces or _pieces(found, folder, model.input_dim, run)
    solving = tuple((name, getattr(model.settings, name)) for name in SOLVING)
    job = Job(str(folder.path), mark["model"], rows, executor is not None, solving)
    bits = _agreed(folder, label, job, run)
    tasks = ((job, bits, a, b, sources.between(pieces, a, b)) for a, b in outputs.undone(status, rows, per_task))
    failures = []
    with Progress(progress, len(status), len(status) - left, "rows", "predicting") as bar:
        for (_, _, a, b, _), outcome in run(workers.rows, tasks, _rows_name):
            if outcome.error is None:
                bar.add(b - a)
            elif isinstance(outcome.error, OtherBitsError):
                raise outcome.error
            else:
                failures.append(Failure(a, b, outcome.error))
    _refuse_failures(failures, len(status))
    return _done(folder, folder.opened(q, dtype))  # Opened anew: a network file system may show old pages before.


class _Run(NamedTuple):
    """Where tasks run."""

    executor: Executor | None
    in_flight: int | None

    def __call__(self, function: Callable[..., Any], tasks: Any, name: Callable[..., str]) -> Any:
        return completed(function, tasks, self.executor, self.in_flight, name)

    def one(self, function: Callable[..., Any], task: tuple[Any, ...], name: str) -> Any:
        """Run a single task, and return its value or raise its error."""
        ((_, outcome),) = self(function, [task], lambda *_: name)
        return _value(outcome)


def _value(outcome: Outcome) -> Any:
    """Return the value of a task, or raise its error."""
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def _rows_name(job: Job, bits: str, start: int, stop: int, pieces: Any) -> str:
    """Return the name of a task on a dashboard."""
    return f"predict-rows-{start}-{stop}"


def _copy_name(file: File, target: str, model: str) -> str:
    """Return the name of a task on a dashboard."""
    return f"copy-source-{os.path.basename(target)}"


def _model(model: Any) -> ImplicitModel:
    """Return the model, and refuse what no file can hold."""
    if isinstance(model, str | os.PathLike):
        model = load(model)
    if not isinstance(model, ImplicitModel):
        way_out = "pass its model_." if hasattr(model, "model_") else "pass the model that it was made of."
        raise TypeError(f"model must be an ImplicitModel or the name of its file; got {checks.shown(model)}: {way_out}")
    if model.settings.resolved_backend() == "cuda":
        raise ValueError(
            'model must have a backend that computes on the CPU; got backend="cuda": use model.settings = '
            'dataclasses.replace(model.settings, backend="auto").'
        )
    for name, W in model.parameters.items():  # Here, before anything is written.
        if not np.isfinite(W).all():
            raise ValueError(f"{name} must be finite for predictions; got NaN or inf: the training has diverged.")
    return model


def _mark(found: list[File]) -> str:
    """Return a fingerprint of the files of a source."""
    marks = json.dumps([file.mark for file in found])
    named = os.path.basename(found[0].path) + (f" … ({len(found)} files)" if len(found) > 1 else "")
    return f"{named} {hashlib.sha256(marks.encode()).hexdigest()[:16]}"


def _left(status: np.ndarray) -> int:
    """Return how many rows are not done."""
    return sum(int((part == outputs.UNDONE).sum()) for part in _parts(status))


def _parts(status: np.ndarray) -> list[np.ndarray]:
    return [status[k : k + outputs.SPACE] for k in range(0, len(status), outputs.SPACE)]


def _pieces(found: list[File], folder: Folder, p: int, run: _Run) -> list[sources.Piece]:
    """Return the rows of all files; those that cannot be found by their numbers are copied first."""
    targets = [str(folder.path / f"{COPY}{k}") if sources.needs_copy(file) else "" for k, file in enumerate(found)]
    tasks = [(f, target, str(folder.model)) for f, target in zip(found, targets, strict=True) if target]
    for _, outcome in run(sources.copy, tasks, _copy_name):
        _value(outcome)
    opened = [sources.copied(f, target, p) if target else f for f, target in zip(found, targets, strict=True)]
    return sources.pieces(opened, p)


def _agreed(folder: Folder, label: dict[str, Any], job: Job, run: _Run) -> str:
    """Return the bits with which the rows of a folder are computed; those of the first worker if there are none yet."""
    if "bits" not in label:
        label["bits"] = run.one(workers.bits, (job,), "compare-bits-0")
        folder.write_label(label)
    return str(label["bits"])


def _refuse_failures(failures: list[Failure], m: int) -> None:
    """Raise an error that names the rows which are not done."""
    if failures:
        failures.sort(key=lambda failure: failure.start)
        count = sum(stop - start for start, stop, _ in failures)
        start, stop, error = failures[0]
        raise RowsFailedError(
            f"all rows must be predicted; got {len(failures)} failed tasks with {count} of {m} rows, the first being "
            f"rows {start} to {stop - 1} ({type(error).__name__}: {checks.printable(error)}): the others are done; "
            "mend the cause, and call again to do the rest.",
            failures,
        ) from error


def _done(folder: Folder, arrays: dict[str, np.ndarray] | None) -> Prediction:
    """Return the outputs, when all rows are done, and delete the copies of the source."""
    if arrays is None or _left(arrays[outputs.STATUS]):
        raise RowsFailedError(
            f"out must belong to one call at a time; rows that were done are undone in {folder.shown}: call again when "
            "no other call writes there."
        )
    for copy in Path(folder.path).glob(f"{COPY}*"):
        copy.unlink()
    return Prediction(**arrays)
