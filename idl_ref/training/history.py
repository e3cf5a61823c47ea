"""This module has the record of a training, and its file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from idl_ref import checks, npz
from idl_ref.files import replacing

LIMIT = 1 << 26  # The largest file that `load` reads, in bytes.


@dataclass
class History:
    """The record of a training, with one list entry per completed epoch.

    Attributes
    ----------
    loss, accuracy : list of float
        Means over the training samples, each taken when its minibatch was used; accuracy only for cross_entropy.
    validation_loss, validation_accuracy : list of float
        Values after each epoch; empty without validation data.
    forward_iterations, adjoint_iterations : list of (mean, max)
        Mean and largest number of iterations per sample.
    unconverged : list of int
        Number of samples whose forward or adjoint solve did not converge.
    norm : list of float
        ‖A‖∞ of the effective A after each epoch; for a low-rank A, the bound max |L||R|ᵀ1 of it.
    perron_root : list of float
        Upper bound of the Perron root λ_pf(|A|) after each epoch; for a low-rank A, that of |L||R|ᵀ.
    learning_rate : list of float
        The learning rate of the last step of each epoch.
    seconds : list of float
        Duration of the training steps of each epoch, in seconds.
    events : list of str
        Sentences about what else happened: a learning rate that was found or halved, and why training ended early.
    interrupted : bool
        True if training was interrupted from the keyboard; the lists lack an epoch that was not completed.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    forward_iterations: list[tuple[float, int]] = field(default_factory=list)
    adjoint_iterations: list[tuple[float, int]] = field(default_factory=list)
    unconverged: list[int] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    perron_root: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    interrupted: bool = False

    def keep(self, epochs: int) -> None:
        """Delete what was recorded after the first `epochs` epochs."""
        for name, record in vars(self).items():
            if isinstance(record, list) and name != "events":
                del record[epochs:]

    def latest(self) -> dict[str, str]:
        """Return the figures of the last epoch as text, by name."""
        words = {"loss": f"{self.loss[-1]:.4f}"}
        if self.accuracy:
            words["accuracy"] = f"{100 * self.accuracy[-1]:.2f} %"
        if self.validation_accuracy:
            words["validation"] = f"{100 * self.validation_accuracy[-1]:.2f} %"
        elif self.validation_loss:
            words["validation"] = f"{self.validation_loss[-1]:.4f}"
        words["iterations"] = f"{self.forward_iterations[-1][0]:.1f}"
        return words

    def to_json(self) -> str:
        """Return the history as JSON text, in which null stands for a number that is not finite."""
        return json.dumps(_without_nan(asdict(self)), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> History:
        """Return the history that `to_json` wrote, and raise ValueError for any other text."""
        values = json.loads(text)
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise ValueError(f"a history must hold {sorted(names)}; got {checks.shown(values)}.")
        if not isinstance(values["interrupted"], bool):
            raise ValueError(f"interrupted must be true or false; got {checks.shown(values['interrupted'])}.")
        for name in names - {"interrupted"}:
            kind, pair = (str if name == "events" else float), name.endswith("iterations")
            values[name] = [_entry(name, entry, kind, pair) for entry in _listed(name, values[name])]
        return cls(**values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the history to a JSON file, which is replaced as a whole or not at all."""
        with replacing(path, "w") as stream:
            stream.write(self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> History:
        """Return the history that `save` wrote. A number that was not finite is NaN.

        Raises
        ------
        FileFormatError
            The file does not hold a history.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     History(loss=[0.5]).save(f"{folder}/history.json")
        ...     History.load(f"{folder}/history.json").loss
        [0.5]
        """
        text = npz.whole(path, LIMIT)
        with npz.reading(path, "a history"):
            return cls.from_json(text)
        raise AssertionError  # for type checkers: `reading` raises what it catches


def _without_nan(value: Any) -> Any:
    """Return a nest of lists and dicts in which numbers that are not finite are None."""
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _listed(name: str, value: Any) -> list:
    """Return a list, and refuse everything else."""
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list; got {checks.shown(value)}.")
    return value


def _entry(name: str, value: Any, kind: type, pair: bool) -> Any:
    """Return one entry of a list: a sentence, a number, or a pair of numbers; null is NaN."""
    if pair:
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"{name} must hold pairs of numbers; got {checks.shown(value)}.")
        return tuple(_entry(name, number, kind, False) for number in value)
    if value is None and kind is float:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise ValueError(f"{name} must hold {'numbers' if kind is float else 'sentences'}; got {checks.shown(value)}.")
    return value
