"""This module checks what a training gets: inputs, targets, validation data and the weights of samples."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from idl_ref import checks, classes, losses
from idl_ref.choices import AnyLoss
from idl_ref.model import ImplicitModel
from idl_ref.preprocessing import needs_float64
from idl_ref.solution import warn
from idl_ref.training.ranks import Ranks
from idl_ref.training.rows import Rows, Some, some_of
from idl_ref.training.tree import share

LARGEST = 1e100  # a larger mean of weights might overflow
BLOCK = 4096  # A look at all samples reads so many of them at a time.

Found = TypeVar("Found")


class Samples(NamedTuple):
    """The samples of a training, checked and preprocessed; what is no array is read when some of it is needed."""

    U: Any  # (m, p), an array or Rows
    T: Any  # the targets in the form that the loss takes, with m columns, an array or Rows
    weights: Any  # (m,), with the mean 1, an array, Weights or None

    def some(self, chosen: Any) -> Samples:
        """Return the samples with the given numbers."""
        return Samples(*some_of(*self, chosen))

    def by_blocks(self, ranks: Ranks, function: Callable[[slice], Found]) -> list[Found]:
        """Return what a function returns for each block of samples, of which each rank reads its share."""
        own = share(-(-len(self.U) // BLOCK), ranks.rank, ranks.size)
        parts = ranks.each(lambda: [function(slice(k * BLOCK, (k + 1) * BLOCK)) for k in range(*own)])
        return [found for part in parts for found in part]

    def look(self, ranks: Ranks, kept: bool) -> tuple[Samples, int | None]:
        """Read, and so check, what was not read at once, and find the weights of all samples.

        Returned are the samples with their weights, and a checksum of all of them if it is `kept`. All ranks meet as
        often, whatever each of them was given.
        """
        in_memory, weights = isinstance(self.U, np.ndarray) and isinstance(self.T, np.ndarray), self.weights
        if in_memory and weights is None and not kept and ranks.size == 1:
            return self, None

        def seen(block: slice) -> tuple[int, Any]:
            return self.some(block).checksum(), 0.0 if weights is None else weights.sums(block)

        found = self.by_blocks(ranks, seen)
        total = zlib.crc32(np.array([checksum for checksum, _ in found], "<u4").tobytes())

        def settle() -> None:
            if weights is not None:
                weights.settle(sum(sums for _, sums in found), len(self.U))

        ranks.on_each(settle)
        if weights is not None:
            total = zlib.crc32((weights.factor * weights.of_class).tobytes(), total)
        looked = self._replace(weights=weights[:]) if in_memory and weights is not None else self
        return looked, total if kept else None

    def checksum(self) -> int:
        """Return a checksum of samples that are in memory."""
        total = 0
        for array in self:
            if isinstance(array, np.ndarray):
                total = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, total)
        return total


class Weights:
    """The weights of samples, w = s ω c(t), where the factor s gives them the mean 1.

    Parameters
    ----------
    given : (m,) array or Rows, optional
        The weights ω of the samples, numbers ≥ 0; 1 if not given.
    T : (m,) array or Rows, optional
        The labels t, if there is a class_weight.
    class_weight : "balanced" or dict, optional
        What says the weight c(t) of the samples of a class t; it is 1 if not given.
    model : ImplicitModel
        The model, for the number and the names of its classes, and for its dtype.
    """

    def __init__(self, given: Some | None, T: Some | None, class_weight: Any, model: ImplicitModel) -> None:
        self.given, self.T, self.class_weight, self.model = given, T, class_weight, model
        self.of_class = np.ones(1 if T is None else model.output_dim)
        self.factor = 1.0  # Both are known when all samples were read.

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """Return the weights of some samples, in the dtype of the model."""
        labels, w = self._some(chosen)
        with np.errstate(over="ignore"):  # before the factor is known, which refuses such weights
            return (w * self.of_class[labels] * self.factor).astype(self.model.dtype)

    def _some(self, chosen: Any) -> tuple[Any, Any]:
        """Return the labels of some samples, or 0 without class_weight, and their ω."""
        labels: Any = 0 if self.T is None else self.T[chosen]
        return labels, np.ones(len(labels)) if self.given is None else self.given[chosen]

    def sums(self, chosen: slice) -> np.ndarray:
        """Return the sum of ω over some samples of each class (q,), or without class_weight over all of them (1,)."""
        labels, w = self._some(chosen)
        return np.bincount(np.broadcast_to(labels, len(w)), w, minlength=len(self.of_class))

    def settle(self, sums: np.ndarray, m: int) -> None:
        """Find the weights of the classes, and the factor s, from what `sums` says of all m samples."""
        if not sums.any():  # which this check refuses; sums that overflow are refused below, by that reason
            checks.weights("sample_weight", sums, len(sums))
        if self.T is not None:
            self.of_class = class_weights(self.class_weight, sums, self.model.classes)
        with np.errstate(over="ignore"):
            total = float((self.of_class * sums).sum())
        mean = total / m
        if not 1 / LARGEST <= mean <= LARGEST:
            raise ValueError(
                f"sample_weight and class_weight must have a mean from {1 / LARGEST:g} to {LARGEST:g}; got {mean:.3g}: "
                "multiply all weights by the same number."
            )
        self.factor = m / total


def inputs_and_targets(
    model: ImplicitModel, name: str, U: Any, targets: Any, loss: AnyLoss, by_rows: bool = False, finite: bool = False
) -> tuple[Some, Some]:
    """Return checked and preprocessed inputs (m, p), and checked targets in the form that the loss takes.

    If `by_rows` is true, what is in an array is read when it is needed. If `finite` is true, all inputs must be.
    """

    def inputs(name: str, U: Any) -> np.ndarray:
        U = model.checked_inputs(name, U)
        return checks.finite(name, U) if finite else U

    def outputs(name: str, T: Any, m: int | None = None) -> np.ndarray:
        T = classes.encoded(loss, T, model.classes, name)
        if loss == "mse" and model.dtype == np.float32:
            _check_digits(name, checks.real_array(name, T))
        return losses.check_targets(loss, T, len(T) if m is None else m, model.output_dim, model.dtype, name)

    lazy = by_rows and Rows.takes(U) and U.ndim > 1 and math.prod(U.shape[1:]) == model.input_dim
    some = Rows(name, U, inputs) if lazy else inputs(name, U)
    m = len(some)
    lazy = by_rows and Rows.takes(targets) and len(targets) == m
    return some, Rows("targets", targets, outputs) if lazy else outputs("targets", targets, m)


def _check_digits(name: str, T: Any) -> None:
    """Refuse targets that float32 cannot hold, and warn of those whose differences it loses beside their mean."""
    if not isinstance(T, np.ndarray) or T.ndim == 0 or T.dtype.itemsize <= 4:
        return
    columns = T.reshape(len(T), math.prod(T.shape[1:])).T.astype(np.float64)
    largest = np.abs(columns, where=np.isfinite(columns), out=np.zeros(columns.shape)).max(initial=0.0)
    if largest > float(np.finfo(np.float32).max):
        raise ValueError(f"{name} must fit into float32; got {largest:.3g}: use a model with dtype='float64'.")
    if any(map(needs_float64, columns)):
        text = (
            "differ too little beside their mean for float32: use a model with dtype='float64', or subtract the mean."
        )
        warn(f"{name} {text}", UserWarning)


def validation_samples(model: ImplicitModel, validation: Any, loss: AnyLoss, by_rows: bool = False) -> Samples | None:
    """Check validation data before the first epoch, so that an error does not cost the time of an epoch."""
    if validation is None:
        return None
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        raise ValueError(f"validation must be a pair (U, targets); got {type(validation).__name__}: pass a tuple.")
    U, targets = validation
    return Samples(*inputs_and_targets(model, "validation U", U, targets, loss, by_rows), None)


def training_samples(
    model: ImplicitModel,
    U: Any,
    targets: Any,
    loss: AnyLoss,
    sample_weight: Any = None,
    class_weight: Any = None,
    by_rows: bool = False,
) -> Samples:
    """Check the samples of a training, of which there must be one; `Samples.look` finds their weights.

    If `by_rows` is true, what is in an array is read later, by `Samples.look`, which checks it.
    """
    U, T = inputs_and_targets(model, "U", U, targets, loss, by_rows, finite=True)
    m = len(U)
    if not m:
        raise ValueError("U must hold at least one sample to train on; got none: pass samples as rows.")
    if class_weight is not None and loss != "cross_entropy":
        raise ValueError('class_weight is for loss="cross_entropy", whose targets are classes: use sample_weight.')
    if sample_weight is None and class_weight is None:
        return Samples(U, T, None)
    if callable(loss):
        raise ValueError("sample_weight is for the losses of idl_ref; got a loss of your own: weight samples in it.")
    given = sample_weight
    if given is not None:
        lazy = by_rows and Rows.takes(given) and given.shape == (m,)
        given = Rows("sample_weight", given, _amounts) if lazy else checks.weights("sample_weight", given, m)
    return Samples(U, T, Weights(given, None if class_weight is None else T, class_weight, model))


def _amounts(name: str, given: np.ndarray) -> np.ndarray:
    """Return the weights of some samples, which may all be 0."""
    return checks.amounts(name, given, len(given))


def class_weights(class_weight: Any, sums: np.ndarray, names: np.ndarray | None) -> np.ndarray:
    """Return the weight of each class (q,): given by its name or number, or balanced, that is W/(K W_c).

    `sums` (q,) has the weights W_c of the samples of each class; W is their sum, and K the number of those above 0.
    """
    if isinstance(class_weight, str) and class_weight == "balanced":
        of_class, present = np.zeros(len(sums)), sums > 0
        of_class[present] = sums.sum() / (present.sum() * sums[present])
        return of_class
    if not isinstance(class_weight, Mapping):
        raise TypeError(f'class_weight must be "balanced" or a dict from classes to weights; got {class_weight!r}.')
    numbers = {name: i for i, name in enumerate(range(len(sums)) if names is None else names.tolist())}
    result = np.ones(len(sums))
    for name, weight in class_weight.items():
        if name not in numbers:
            raise ValueError(f"class_weight must name classes of the model; got {name!r}: use {list(numbers)[:9]}.")
        result[numbers[name]] = checks.number("class_weight", weight, 0)
    if not ((result > 0) & (sums > 0)).any():
        raise ValueError("class_weight must be positive for at least one class of the samples; got zeros only.")
    return result
