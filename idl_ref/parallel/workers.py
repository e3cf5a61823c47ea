"""This module has what a worker does for a task of a prediction, in any process: it takes and leaves names of files."""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks
from idl_ref.blas import one_thread
from idl_ref.interface import described
from idl_ref.model import ImplicitModel, load
from idl_ref.parallel import outputs, sources
from idl_ref.parallel.sources import Piece
from idl_ref.predictor import Prediction, Predictor

PROBE = 1024  # At most so many rows are computed to compare the bits of two machines.

_kept: dict[str, Predictor] = {}  # the predictor of the last job, by the digest of its model
_known: dict[Job, str] = {}  # the bits of this process for the last job


class OtherBitsError(RuntimeError):
    """This error means that a machine computes other last bits than those that have computed the rows before."""


class Job(NamedTuple):
    """What all tasks of a prediction have in common."""

    out: str  # the folder of outputs, which has the model, too
    model: str  # the digest of the model
    rows: int  # the size of the blocks in which rows are computed
    one_thread: bool  # whether a worker is one of many
    solving: tuple[tuple[str, Any], ...] = ()  # settings that a file does not hold, or limits


def digest(model: ImplicitModel) -> str:
    """Return the SHA-256 of everything that a file holds about a model."""
    header, arrays = described(model, model.parameters)
    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        found.update(np.ascontiguousarray(arrays[name]).data)
    return found.hexdigest()


def bits(job: Job) -> str:
    """Return a digest of the outputs that this machine computes for a fixed block of inputs, once in a process.

    Kinds of processors may differ in the last digits of sums, and so may versions of NumPy and Numba.
    """
    if (found := _known.get(job)) is None:
        found = _bits(job)
        _known.clear()
        _known[job] = found
    return found


def _bits(job: Job) -> str:
    """Compute what `bits` returns."""
    predictor = _predictor(job)
    p, pre = predictor.settings.input_dim, predictor.preprocessing
    entries = np.arange(min(job.rows, PROBE) * p, dtype=np.int64)
    U = ((entries * 7919 % 2003 - 1001) / 500.0).reshape(-1, p)
    found = _outputs(predictor, U if pre is None else pre.inverse(U), job.one_thread)
    arrays = [np.ascontiguousarray(getattr(found, name)) for name in outputs.FIELDS]
    return f"{predictor.backend} {hashlib.sha256(b''.join(array.tobytes() for array in arrays)).hexdigest()[:32]}"


def rows(job: Job, expected: str, start: int, stop: int, pieces: list[Piece]) -> int:
    """Predict the rows start … stop − 1 in blocks of the grid, write the outputs, and return the number of rows."""
    found = bits(job)
    if found != expected:
        raise OtherBitsError(
            f"the workers must compute the same bits; got {found} on {platform.node()}, and {expected} in the folder: "
            "use machines of one kind with the same versions of NumPy and Numba, or predict into a new folder."
        )
    predictor, parts = _predictor(job), []
    for a in range(start, stop, job.rows):
        parts.append(_outputs(predictor, sources.read(pieces, a, min(a + job.rows, stop)), job.one_thread))
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in outputs.FIELDS}
    outputs.write(job.out, start, whole)
    return stop - start


def _predictor(job: Job) -> Predictor:
    """Return the predictor of a job, which is loaded once in a process."""
    if (kept := _kept.get(job.model)) is not None:
        return kept
    path = f"{job.out}/{outputs.MODEL}"
    model = load(path, **dict(job.solving))
    if digest(model) != job.model:
        raise ValueError(
            f"{checks.printable(path)} must be the model of this call; got another: choose another folder for it."
        )
    predictor = model.freeze()
    _kept.clear()
    _kept[job.model] = predictor
    return predictor


def _outputs(predictor: Predictor, U: np.ndarray, alone: bool) -> Prediction:
    """Return the outputs of a block. With NumPy, BLAS has one thread, because its threads change the last bits."""
    with one_thread(predictor.backend) if alone or predictor.backend == "numpy" else nullcontext():
        return predictor.certified(U)
