"""This module trains one small model per point of a grid, here or on any executor, and tells what became of each."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref._version import __version__
from idl_ref.parallel.fits import Job, bits, built, fit_points, row_of, sentence
from idl_ref.parallel.points import Data, Point, key, points
from idl_ref.parallel.progress import Progress
from idl_ref.parallel.results import COLUMNS, Folder, Sweep
from idl_ref.parallel.tasks import completed
from idl_ref.parallel.workers import OtherBitsError

SHOWN = 60  # The longest description of a point in the name of a task, in characters.
TRAVELLING = 64  # So many tasks with arrays are submitted at a time.


def sweep(
    build: Callable[..., Any],
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    data: Any,
    *,
    executor: Executor | None = None,
    out: str | os.PathLike[str] | None = None,
    per_task: int = 4,
    in_flight: int | None = None,
    progress: bool = True,
) -> Sweep:
    """Train one model per point of a grid, and return a table with one row per point, in the order of the grid.

    Each fit has one thread and depends on its point and on the data alone. The table is hence the same, to the last
    digit, in any order, with any executor and any grouping, and after any number of interruptions.

    Parameters
    ----------
    build : function
        It takes a point, `build(**point)`, and returns an ImplicitModel, or a pair of it and a dict of arguments for
        `fit`, such as {"epochs": 20, "optimizer": SGD(0.1)}. It must return equal models for equal points, so that it
        passes a `seed` on, and be a function of a module, which workers can import.
    grid : dict or list of dict
        {"kappa": [0.5, 0.9], "seed": [0, 1]} stands for all combinations, of which the last name varies fastest; a list
        holds the points themselves. Values are numbers, words, truth values or None.
    data : tuple of arrays, or path
        (U, targets), or (U, targets, U of the validation, targets of the validation), as `fit` takes them; or the path
        of an .npz file with x_train and y_train, and for the validation x_test and y_test. Arrays travel with every
        task and may have 2 MiB; a path is read once by each worker, which compares the checksum.
    executor : concurrent.futures.Executor, optional
        What runs the fits: a pool of the standard library, loky's, `client.get_executor()` of Dask,
        `MPIPoolExecutor()` of mpi4py. None runs them here, one after the other.
    out : str or path, optional
        A folder for sweep.csv and sweep.json, which are written while the sweep runs. A call with the same arguments
        trains only what is missing there, and what ended with an error; the grid may have more points than before.
    per_task : int
        So many points make one task. To hand over a task takes about 0.2 ms on a pool, and 4 ms on Dask.
    in_flight : int, optional
        At most so many tasks are submitted and not done; if None, 1,024, or 64 where arrays travel.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    Sweep
        The table. A point whose `build` or fit raised an exception has a row, too, and its `error` says why.

    Raises
    ------
    ValueError, TypeError
        Arguments that do not fit together, a `build` whose models differ from call to call, or a folder of another
        sweep. No point builds a model: then the exception is that of the first one.
    OSError, FileFormatError
        The folder cannot be written, or a file is damaged.
    WorkersLostError
        A pool has lost a process. What was done is in `out`: call again with a new pool to do the rest.
    OtherBitsError
        A machine computes other last bits than those that have computed rows before.

    Notes
    -----
    The weights are not kept. `build(**point)` and the same call of `fit` give those of a row again, and `digest` tells
    that they are the same. What `build` calls must not change while a sweep goes on: the folder knows the source of
    `build` alone.
    Cost: that of `fit` for each point.

    Examples
    --------
    >>> from idl_ref import SGD, ImplicitModel, datasets
    >>> def build(kappa, seed):
    ...     return ImplicitModel(2, 2, 12, kappa=kappa, bias=True, seed=seed), {"epochs": 3, "optimizer": SGD(0.2)}
    >>> data = (*datasets.two_moons(80, seed=0), *datasets.two_moons(80, seed=1))
    >>> table = sweep(build, {"kappa": [0.5, 0.9], "seed": [0, 1]}, data, progress=False)
    >>> [(row["kappa"], row["seed"], row["epochs_done"]) for row in table.rows]
    [(0.5, 0, 3), (0.5, 1, 3), (0.9, 0, 3), (0.9, 1, 3)]
    >>> table.best()["error"], len(table.failed)
    ('', 0)
    """
    checks.integer("per_task", per_task, 1)
    _refuse_nameless(build)
    listed = points(grid, COLUMNS)
    source = Data.of(data, travels=executor is not None)
    job = Job(build, source, _tried_out(build, listed))
    folder = Folder(out, _fingerprint(build, source), listed)
    missing = folder.missing()
    in_flight = TRAVELLING if in_flight is None and source.arrays else in_flight
    place = {key(point): i for i, point in enumerate(listed)}

    def name(job: Job, expected: str, chosen: Sequence[Point]) -> str:
        """Return what Dask shows of a task, such as fit-points-8-kappa=0.5,seed=0: the first of its points."""
        words = ",".join(f"{name}={value}" for name, value in chosen[0].items())
        return f"fit-points-{place[key(chosen[0])]}-{words[:SHOWN]}"

    with Progress(progress, len(listed), len(listed) - len(missing), "fits", "sweep") as bar:
        if missing and folder.bits is None:
            ((_, first),) = completed(bits, [(job,)], executor, name=lambda _: "compare-bits-0")
            if first.error is not None:
                raise first.error
            folder.bits = str(first.value)
        tasks = [(job, folder.bits, missing[i : i + per_task]) for i in range(0, len(missing), per_task)]
        try:
            for (*_, chosen), (rows, error) in completed(fit_points, tasks, executor, in_flight, name):
                if isinstance(error, OtherBitsError):
                    raise error
                folder.add(rows if error is None else [row_of(point, error=sentence(error)) for point in chosen])
                bar.add(len(chosen))
        finally:
            folder.write()
    return folder.table()


# --- before the first fit ---------------------------------------------------------------------------------------------


def _refuse_nameless(build: Any) -> None:
    """Refuse what workers cannot import, and what a fingerprint cannot name."""
    name = getattr(build, "__qualname__", "")
    if not inspect.isfunction(build) or "<" in name:
        raise TypeError(
            f"build must be a function of a module, which workers import by its name; got {checks.shown(build)}: "
            "write it with def at the top of a file, and put what varies into the grid."
        )


def _tried_out(build: Callable[..., Any], listed: Sequence[Point]) -> Point:
    """Return the first point that can be built, twice: refuse a `build` that never works, or is not repeatable."""
    first: Exception | None = None
    for point in listed:
        try:
            one, other = built(build, point)[0], built(build, point)[0]
        except Exception as reason:
            first = first or reason
            continue
        same = all(np.array_equal(W, other.parameters[name]) for name, W in one.parameters.items())
        if one is other or not same:
            got = "one model for two calls" if one is other else "two models with other weights"
            raise ValueError(
                f"build must return a new, equal model in every call with the same point; got {got} for "
                f"{checks.shown(point)}: make the model in build, with seed=…."
            )
        return point
    assert first is not None
    raise first


def _fingerprint(build: Callable[..., Any], data: Data) -> dict[str, Any]:
    """Return what must be the same in a call that resumes a sweep. What `build` itself calls is not looked at."""
    try:
        source = hashlib.sha256(inspect.getsource(build).encode()).hexdigest()[:16]
    except (OSError, TypeError):  # A function that was typed into an interpreter has no source.
        source = None
    name = f"{build.__module__}.{build.__qualname__}"
    return {"build": name, "source of build": source, "data": data.checksum, "version of idl_ref": __version__}
