"""This module has the file from which a training resumes, and the snapshots of weights that it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks, io
from idl_ref.npz import FileFormatError
from idl_ref.optim import Optimizer
from idl_ref.training.epoch import Epoch
from idl_ref.training.history import History

FORM = "idl_ref checkpoint"
HISTORY = "history"
DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "uint8")}


class Snapshot(NamedTuple):
    """The parameters of a model and the state of its optimizer at one moment, as copies."""

    weights: dict[str, np.ndarray]
    numbers: dict[str, Any]
    moments: dict[str, np.ndarray]

    @classmethod
    def of(cls, parameters: Mapping[str, np.ndarray], optimizer: Optimizer) -> Snapshot:
        """Return a snapshot of this moment."""
        return cls({name: w.copy() for name, w in parameters.items()}, *optimizer.state())

    def put_back(self, parameters: Mapping[str, np.ndarray], optimizer: Optimizer | None = None) -> None:
        """Write the weights into the arrays of `parameters`, and restore the optimizer if it is given."""
        for name, w in self.weights.items():
            parameters[name][...] = w
        if optimizer is not None:
            optimizer.restore(self.numbers, self.moments)

    def faults(self) -> int:
        """Return how many weights and moments are not finite."""
        return sum(int((~np.isfinite(array)).sum()) for array in (*self.weights.values(), *self.moments.values()))

    def named(self, prefix: str) -> dict[str, np.ndarray]:
        """Return all arrays with names for a file."""
        weights = {f"{prefix}.weights.{name}": w for name, w in self.weights.items()}
        return weights | {f"{prefix}.moments.{name}": M for name, M in self.moments.items()}

    @classmethod
    def from_named(cls, prefix: str, numbers: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Snapshot:
        """Return the snapshot whose arrays `named` gave."""
        weights, moments = (
            {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            for start in (f"{prefix}.weights.", f"{prefix}.moments.")
        )
        return cls(weights, numbers, moments)


def described(optimizer: Optimizer) -> str:
    """Return the class and all settings of an optimizer as text."""
    kind = type(optimizer)
    settings = (f"{name}={value!r}" for name, value in vars(optimizer).items() if not name.startswith("_"))
    return f"{kind.__module__}.{kind.__qualname__}, {', '.join(settings)}"


class Checkpoint(NamedTuple):
    """Everything that a training needs to go on as if it had not been interrupted."""

    fingerprint: dict[str, Any]  # what must be the same in the call that resumes
    state: dict[str, Any]  # numbers of the loop
    snapshots: dict[str, Snapshot]  # now, and where they differ: at the start of the epoch, and at the best epoch
    history: History

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, which is replaced as a whole or not at all."""
        arrays = {HISTORY: np.frombuffer(self.history.to_json().encode(), np.uint8)}
        for name, snapshot in self.snapshots.items():
            arrays |= snapshot.named(name)
        layout = {name: [array.dtype.name, *array.shape] for name, array in arrays.items()}
        numbers = {name: snapshot.numbers for name, snapshot in self.snapshots.items()}
        header = {"fingerprint": self.fingerprint, "state": self.state, "numbers": numbers, "layout": layout}
        io.write(path, header, arrays, FORM)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Return the checkpoint of a file, and raise FileFormatError for any other file."""
        header, arrays = io.read(path, _layout, FORM)
        history = History.from_json(arrays.pop(HISTORY).tobytes())
        snapshots = {name: Snapshot.from_named(name, numbers, arrays) for name, numbers in header["numbers"].items()}
        return cls(header["fingerprint"], header["state"], snapshots, history)

    def require(self, parameters: Mapping[str, np.ndarray], optimizer: Optimizer) -> None:
        """Refuse a checkpoint whose arrays do not go with the parameters: compiled code trusts their shapes."""
        forms = {name: (w.shape, w.dtype) for name, w in parameters.items()}
        complete = {f"{kind}.{name}" for kind in optimizer.MOMENTS for name in forms}
        for snapshot in self.snapshots.values():
            weights = {name: (w.shape, w.dtype) for name, w in snapshot.weights.items()}
            if weights != forms:
                raise ValueError(
                    "checkpoint must hold parameters of the shapes "
                    f"{ {name: w.shape for name, w in parameters.items()} }: choose another path."
                )
            known = all(forms.get(k.partition(".")[2]) == (M.shape, M.dtype) for k, M in snapshot.moments.items())
            lacks = snapshot.numbers["taken"] > 0 and complete - snapshot.moments.keys()
            if not known or (lacks and type(optimizer).state is Optimizer.state):
                raise ValueError(
                    "checkpoint must hold the moments of the optimizer for all parameters, in their shapes: choose "
                    "another path."
                )

    def check(self, path: Any, fingerprint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another training, and say what differs."""
        for name, value in fingerprint.items():
            if self.fingerprint.get(name) != value:
                what = "checksum of the data" if name == "data" else name
                there, here = _apart(self.fingerprint.get(name), value)
                raise ValueError(
                    f"checkpoint must belong to the training that resumes; the {what} of {checks.printable(path)} is "
                    f"{there}, and that of this call is {here}: choose another path, or delete the file."
                )


def _apart(one: Any, other: Any) -> tuple[str, str]:
    """Return two values as a message shows them; of texts with many parts, from the first part that differs."""
    if isinstance(one, str) and isinstance(other, str):
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
        start = one.rfind(", ", 0, same) + 2 if ", " in one[:same] else 0
        one, other = ("… " * (start > 0) + text[start:] for text in (one, other))
        return checks.printable(one)[:120], checks.printable(other)[:120]
    return checks.shown(one), checks.shown(other)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_state(state: dict[str, Any]) -> bool:
    """Tell whether numbers of the loop are those that `Training.save` writes."""
    epoch, optional = state.get("epoch"), ("best_value", "limit")
    return (
        state.keys() == {"epoch", "best_value", "best_epoch", "halvings", "here", "limit", "stopped", "ended"}
        and isinstance(epoch, dict)
        and epoch.keys() == {f.name for f in fields(Epoch)}
        and all(map(_is_number, epoch.values()))
        and all(state[name] is None or _is_number(state[name]) for name in optional)
        and all(_is_number(state[name]) for name in ("best_epoch", "halvings", "here", "ended"))
        and isinstance(state["stopped"], bool)
    )


def _is_optimizer(numbers: Any) -> bool:
    """Tell whether numbers are those that `Optimizer.state` returns, or more."""
    return (
        isinstance(numbers, dict)
        and (_is_number(numbers.get("base")) or numbers.get("base") == "auto")
        and _is_number(numbers.get("taken"))
        and (numbers.get("total", "") is None or _is_number(numbers.get("total")))
    )


def _layout(header: dict[str, Any]) -> tuple[io.Layout, dict[str, np.dtype]]:
    """Return the shapes and dtypes of all arrays, which the header of a checkpoint lists."""
    try:
        listed = {
            str(name): (DTYPES[dtype], tuple(map(int, shape))) for name, (dtype, *shape) in header["layout"].items()
        }
        parts = [header[name] for name in ("fingerprint", "state", "numbers")]
    except (KeyError, ValueError, TypeError, AttributeError):
        raise FileFormatError("the file is no checkpoint: its header lacks a part.") from None
    if HISTORY not in listed or not all(isinstance(part, dict) for part in parts):
        raise FileFormatError("the file is no checkpoint: it lacks a part.")
    _, state, numbers = parts
    if not _is_state(state) or not {"now", "first"} <= numbers.keys() or not all(map(_is_optimizer, numbers.values())):
        raise FileFormatError("the file is no checkpoint of this version: it lacks a part, or a part is no number.")
    return {name: shape for name, (_, shape) in listed.items()}, {name: dtype for name, (dtype, _) in listed.items()}
