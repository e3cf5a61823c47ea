"""This module trains one small model per point of a grid, here or on any executor, and tells what became of each."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from idl_ref import checks
from idl_ref._version import __version__
from idl_ref.model import ImplicitModel
from idl_ref.parallel.pinned import one_thread
from idl_ref.parallel.points import Data, Point, key, points
from idl_ref.parallel.results import COLUMNS, Folder, Row, Sweep
from idl_ref.parallel.tasks import completed
from idl_ref.train import History, fit

# `fit` takes these from the sweep, or they make no sense within one.
REFUSED = ("model", "U", "targets", "validation", "progress", "checkpoint", "comm")
SHOWN = 60  # The longest description of a point in the name of a task, in characters.
SENTENCE = 300  # The longest error of a row, in characters.


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
        It takes a point, build(**point), and returns an ImplicitModel, or a pair of it and a dict of arguments for
        `fit`, such as {"epochs": 20, "optimizer": SGD(0.1)}. It must return equal models for equal points, so that it
        passes a `seed` on, and be a function of a module, which workers can import.
    grid : dict or list of dict
        {"kappa": [0.5, 0.9], "seed": [0, 1]} stands for all combinations, of which the last name varies fastest; a list
        holds the points themselves. Values are numbers, words, truth values or None.
    data : tuple of arrays, or path
        (U, targets), or (U, targets, U of the validation, targets of the validation), as `fit` takes them; or the path
        of an .npz file with x_train and y_train, and for the validation x_test and y_test. Arrays travel with every
        task and may have 8 MiB; a path is read once by each worker, which compares the checksum.
    executor : concurrent.futures.Executor, optional
        What runs the fits: a pool of the standard library, loky's, `client.get_executor()` of Dask,
        `MPIPoolExecutor()` of mpi4py. None runs them here, one after the other.
    out : str or path, optional
        A folder for sweep.csv and sweep.json, which are written while the sweep runs. A call with the same arguments
        trains only what is missing there, and what ended with an error; the grid may have more points than before.
    per_task : int
        So many points make one task. A task takes about a millisecond on a pool and some milliseconds on Dask.
    in_flight : int, optional
        At most so many tasks are submitted at a time; as for `predict_file`.
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
    BrokenExecutor
        The executor lost its workers, as a pool does of which a process is killed. What was done is in `out`: call
        again with a new executor to do the rest.

    Notes
    -----
    The weights are not kept. `build(**point)` and the same call of `fit` give those of a row again, and `digest` tells
    that they are the same. BLAS, which computes for backend="numpy", gives the same bits on the same kind of processor.
    Cost: that of `fit` for each point.

    Examples
    --------
    >>> from idl_ref import datasets
    >>> def build(kappa, seed):
    ...     return ImplicitModel(2, 2, 12, kappa=kappa, bias=True, seed=seed), {"epochs": 3, "optimizer": SGD(0.2)}
    >>> from idl_ref import SGD
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
    _try_out(build, listed)
    folder = Folder(out, _fingerprint(build, source), listed)
    missing = folder.missing()
    tasks = [(build, source, missing[first : first + per_task]) for first in range(0, len(missing), per_task)]
    place = {key(point): i for i, point in enumerate(listed)}

    def name(build: Any, data: Data, chosen: Sequence[Point]) -> str:
        """Return what Dask shows of a task, such as fit-points-8-kappa=0.5,seed=0: the first of its points."""
        words = ",".join(f"{name}={value}" for name, value in chosen[0].items())
        return f"fit-points-{place[key(chosen[0])]}-{words[:SHOWN]}"

    try:
        for (*_, chosen), (rows, error) in completed(fit_points, tasks, executor, in_flight, name):
            folder.add(rows if error is None else [_row(point, error=_sentence(error)) for point in chosen])
    finally:
        folder.write()
    return folder.table()


def fit_points(build: Callable[..., Any], data: Data, chosen: Sequence[Point]) -> list[Row]:
    """Return the rows of some points: one task of a sweep, which may run anywhere, in any order, and twice."""
    arrays = data.load()
    return [fit_point(build, arrays, point) for point in chosen]


def fit_point(build: Callable[..., Any], arrays: tuple[np.ndarray, ...], point: Point) -> Row:
    """Train the model of one point, and return its row; an exception of `build` or of the fit is its error."""
    validation: Any = arrays[2:] or None
    try:
        model, options = _built(build, point)
        with one_thread(model.settings.resolved_backend()):
            history = fit(model, *arrays[:2], validation=validation, progress=False, **options)
    except Exception as reason:
        return _row(point, error=_sentence(reason))
    if history.interrupted:  # `fit` returns after Ctrl-C, with fewer epochs than were asked for.
        raise KeyboardInterrupt
    return _row(point, **_figures(model, history))


def _built(build: Callable[..., Any], point: Point) -> tuple[ImplicitModel, dict[str, Any]]:
    """Return the model of a point and the arguments of its fit, which does not warn; the table counts instead."""
    result = build(**point)
    model, options = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    if not isinstance(model, ImplicitModel) or not isinstance(options, Mapping):
        raise TypeError(
            "build must return an ImplicitModel, or a pair of it and a dict of arguments for fit; got "
            f"{checks.shown(result)}."
        )
    if wrong := [name for name in REFUSED if name in options]:
        raise TypeError(
            f"build must not set {wrong[0]} of fit, which the sweep sets or which belongs to one training; got it: "
            "leave it out."
        )
    if model.settings.on_failure == "warn":
        model.settings = replace(model.settings, on_failure="ignore")
    return model, deepcopy(dict(options))  # Fits in several threads must not share an optimizer.


def _figures(model: ImplicitModel, history: History) -> Row:
    """Return what the table tells about a fit."""
    lists: dict[str, list[Any]] = {
        "train_loss": history.loss,
        "train_accuracy": history.accuracy,
        "validation_loss": history.validation_loss,
        "validation_accuracy": history.validation_accuracy,
        "unconverged": history.unconverged,
        "iterations": [mean for mean, _ in history.forward_iterations],
        "norm": history.norm,
    }
    last = {name: values[-1] for name, values in lists.items() if values and math.isfinite(values[-1])}
    return {"epochs_done": len(history.loss), "digest": _digest(model), **last}


def _digest(model: ImplicitModel) -> str:
    """Return the first 16 digits of the SHA-256 of all parameters."""
    state = hashlib.sha256()
    for name, W in sorted(model.parameters.items()):
        state.update(f"{name}{W.shape}{W.dtype.str}".encode())
        state.update(np.ascontiguousarray(W).tobytes())
    return state.hexdigest()[:16]


def _row(point: Point, *, error: str = "", **figures: Any) -> Row:
    """Return the row of a point, with None for what is not known."""
    return {**point, **dict.fromkeys(COLUMNS), **figures, "error": error}


def _sentence(reason: BaseException) -> str:
    """Return an exception as one line of limited length."""
    text = checks.printable(f"{type(reason).__name__}: {reason}")
    return text if len(text) <= SENTENCE else f"{text[: SENTENCE - 1]}…"


# --- before the first fit ---------------------------------------------------------------------------------------------


def _refuse_nameless(build: Any) -> None:
    """Refuse what workers cannot import, and what a fingerprint cannot name."""
    name = getattr(build, "__qualname__", "")
    if not inspect.isfunction(build) or "<" in name:
        raise TypeError(
            f"build must be a function of a module, which workers import by its name; got {checks.shown(build)}: "
            "write it with def at the top of a file, and put what varies into the grid."
        )


def _try_out(build: Callable[..., Any], listed: Sequence[Point]) -> None:
    """Build the first model that can be built, twice: refuse a `build` that never works, or is not repeatable."""
    first: Exception | None = None
    for point in listed:
        try:
            one, other = _built(build, point)[0], _built(build, point)[0]
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
        return
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
