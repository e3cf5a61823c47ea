"""This module has what a worker does for a task of a sweep, in any process: it trains the models of some points."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks
from idl_ref.blas import one_thread
from idl_ref.model import ImplicitModel
from idl_ref.parallel.points import Data, Point, key
from idl_ref.parallel.results import COLUMNS, Row
from idl_ref.parallel.workers import OtherBitsError
from idl_ref.train import History, fit

# `fit` takes these from the sweep, or they make no sense within one.
REFUSED = ("model", "U", "targets", "validation", "progress", "checkpoint", "comm")
SENTENCE = 300  # The longest error of a row, in characters.
PROBE = 64  # So many samples are trained on for one epoch to compare the bits of two machines.

_known: dict[tuple[str, str], str] = {}  # the bits of this process for the last sweep


class Job(NamedTuple):
    """What all tasks of a sweep have in common."""

    build: Callable[..., Any]
    data: Data
    probe: Point  # the first point for which `build` makes a model


def bits(job: Job) -> str:
    """Return the digest of a short training, which this machine computes once in a process.

    Kinds of processors may differ in the last digits of sums, and so may versions of NumPy and Numba.
    """
    name = f"{job.build.__module__}.{job.build.__qualname__} {key(job.probe)}", job.data.checksum
    if (found := _known.get(name)) is None:
        arrays = tuple(array[:PROBE] for array in job.data.load())
        row = fit_point(job.build, arrays, job.probe, epochs=1)
        found = row["digest"] or row["error"]
        _known.clear()
        _known[name] = found
    return found


def fit_points(job: Job, expected: str, chosen: Sequence[Point]) -> list[Row]:
    """Return the rows of some points: one task of a sweep, which may run anywhere, in any order, and twice."""
    if (found := bits(job)) != expected:
        raise OtherBitsError(
            f"the workers must compute the same bits; got {found} on {platform.node()}, and {expected} in the sweep: "
            "use machines of one kind with the same versions of NumPy and Numba, or begin in a new folder."
        )
    arrays = job.data.load()
    return [fit_point(job.build, arrays, point) for point in chosen]


def fit_point(build: Callable[..., Any], arrays: tuple[np.ndarray, ...], point: Point, **instead: Any) -> Row:
    """Train the model of one point, and return its row; an exception of `build` or of the fit is its error.

    Arguments of `fit` that are given take the place of those of `build`.
    """
    validation: Any = arrays[2:] or None
    try:
        model, options = built(build, point)
        with one_thread(model.settings.resolved_backend()):
            history = fit(model, *arrays[:2], validation=validation, progress=False, **{**options, **instead})
    except Exception as reason:
        return row_of(point, error=sentence(reason))
    if history.interrupted:  # `fit` returns after Ctrl-C, with fewer epochs than were asked for.
        raise KeyboardInterrupt
    return row_of(point, **_figures(model, history))


def built(build: Callable[..., Any], point: Point) -> tuple[ImplicitModel, dict[str, Any]]:
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


def row_of(point: Point, *, error: str = "", **figures: Any) -> Row:
    """Return the row of a point, with None for what is not known."""
    return {**point, **dict.fromkeys(COLUMNS), **figures, "error": error}


def sentence(reason: BaseException) -> str:
    """Return an exception as one line of limited length."""
    text = checks.printable(f"{type(reason).__name__}: {reason}")
    return text if len(text) <= SENTENCE else f"{text[: SENTENCE - 1]}…"
