"""This module checks samples, their labels, and the boxes of raw inputs around them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks, classes
from idl_ref.analysis.boxes import Box, System
from idl_ref.analysis.intervals import monotone
from idl_ref.model import ImplicitModel

BATCH = 256  # So many samples are bounded at a time, which limits the memory.


class Question(NamedTuple):
    """Samples, their labels as places of outputs, and the box of raw inputs around each of them."""

    system: System
    U: np.ndarray  # (m, p)
    labels: np.ndarray  # (m,)
    low: np.ndarray  # (m, p), rounded outwards: bounds hold for every input with |U′ − U| ≤ eps
    high: np.ndarray
    least: np.ndarray  # (m, p), rounded inwards: what is found between least and most has |U′ − U| ≤ eps
    most: np.ndarray

    @classmethod
    def of(cls, model: ImplicitModel, U: Any, labels: Any, eps: Any, clip: Any) -> Question:
        """Check the arguments of the public functions, and return the boxes U ± eps, rounded in both ways."""
        system, p, dtype = monotone(System.of(model), "a bound of margins"), model.input_dim, np.dtype(np.float64)
        q = model.output_dim
        if q < 2:
            raise ValueError(f"model must have two outputs or more, one per class; got {q}: bound it by interval.")
        U = checks.finite("U", checks.samples("U", U, "p", p, dtype))
        if model.classes is not None:
            labels = classes.encoded("cross_entropy", labels, model.classes, "labels")
        labels = checks.labels("labels", labels, len(U), q)
        radius, limits = _radius(eps, p), _limits(U, clip)
        return cls(system, U, labels, *_around(U, radius, limits, 1), *_around(U, radius, limits, -1))

    def batches(self) -> list[Question]:
        """Return parts of at most BATCH samples, and one part without samples if there are none."""
        starts = range(0, max(len(self.U), 1), BATCH)
        return [
            self._replace(**{name: getattr(self, name)[i : i + BATCH] for name in self._fields[1:]}) for i in starts
        ]


def _radius(eps: Any, p: int) -> np.ndarray:
    """Return eps as an array of shape () or (p,) of finite numbers ≥ 0."""
    radius: np.ndarray = checks.real_array("eps", eps, np.dtype(np.float64))
    if radius.shape not in ((), (p,)) or not ((radius >= 0) & (radius < np.inf)).all():
        raise ValueError(
            f"eps must be a finite number ≥ 0, or {p} of them, one per feature; got {checks.shown(eps)}: it is in the "
            "units of the raw inputs."
        )
    return radius


def _around(U: np.ndarray, radius: np.ndarray, limits: tuple[float, float], outwards: int) -> Box:
    """Return the ends of the boxes between the limits, rounded outwards for 1, and inwards for −1."""
    low, high = (np.nextafter(U + s * radius, s * outwards * np.inf) for s in (-1, 1))
    low, high = (np.where(radius > 0, end, U) for end in (np.minimum(low, U), np.maximum(high, U)))
    return np.maximum(low, limits[0]), np.minimum(high, limits[1])


def _limits(U: np.ndarray, clip: Any) -> tuple[float, float]:
    """Return the limits of raw inputs, after checking that the samples lie between them."""
    if clip is None:
        return -np.inf, np.inf
    if not isinstance(clip, (tuple, list)) or len(clip) != 2:
        raise ValueError(f"clip must be a pair (lowest, highest) of raw inputs, or None; got {checks.shown(clip)}.")
    least, largest = (checks.number(f"clip[{i}]", end, -np.inf) for i, end in enumerate(clip))
    if U.size and not (least <= U.min() and U.max() <= largest):
        raise ValueError(
            f"U must lie between the limits of clip, {least:g} and {largest:g}; got {U.min():g} … {U.max():g}: pass "
            "clip=None, or the limits of the raw inputs."
        )
    return least, largest
