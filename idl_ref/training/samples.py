"""This module checks what a training gets: inputs, targets, validation data and the weights of samples."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks, classes, losses
from idl_ref.choices import AnyLoss
from idl_ref.model import ImplicitModel
from idl_ref.training.ranks import Ranks
from idl_ref.training.rows import Rows
from idl_ref.training.tree import share


class Samples(NamedTuple):
    """The samples of a training, checked and preprocessed."""

    U: Any  # (m, p), an array, or Rows that are read when they are needed
    T: np.ndarray  # the targets in the form that the loss takes, with m columns
    weights: np.ndarray | None  # (m,), with the mean 1

    def some(self, chosen: Any) -> Samples:
        """Return the samples with the given numbers."""
        weights = None if self.weights is None else self.weights[chosen]
        return Samples(self.U[chosen], self.T[..., chosen], weights)

    def look(self, ranks: Ranks, kept: bool, finite: bool = True) -> int | None:
        """Read inputs that are not read at once, of which each rank has a share, and return a checksum if it is kept.

        If the inputs must be `finite`, others are refused on all ranks.
        """
        rows = 0
        if isinstance(self.U, Rows):
            own = share(self.U.blocks, ranks.rank, ranks.size)
            rows = self.U.total(ranks.each(partial(self.U.look, *own)), finite)
        return self.checksum(rows) if kept else None

    def checksum(self, rows: int = 0) -> int:
        """Return a checksum of all entries, of which `rows` is that of the inputs if these are not read at once."""
        total = rows
        for array in self:
            if isinstance(array, np.ndarray):
                total = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, total)
        return total


def inputs_and_targets(
    model: ImplicitModel, name: str, U: Any, targets: Any, loss: AnyLoss, by_rows: bool = False
) -> tuple[Any, np.ndarray]:
    """Return checked and preprocessed inputs (m, p), and checked targets in the form that the loss takes.

    If `by_rows` is true, inputs in an array are read when they are needed.
    """
    checked = model.checked_inputs
    U = Rows.of(name, U, model.input_dim, checked) if by_rows else checked(name, U)
    targets = classes.encoded(loss, targets, model.classes)
    return U, losses.check_targets(loss, targets, len(U), model.output_dim, model.dtype)


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
    """Check the samples of a training, of which there must be one, and compute their weights.

    If `by_rows` is true, inputs in an array are read later, by `Rows.look`, which checks that they are finite.
    """
    U, T = inputs_and_targets(model, "U", U, targets, loss, by_rows)
    if not len(U):
        raise ValueError(f"U must hold at least one sample to train on; got shape {U.shape}: pass samples as rows.")
    if isinstance(U, np.ndarray):
        checks.finite("U", U)
    weights = None if sample_weight is None else checks.weights("sample_weight", sample_weight, len(U))
    if class_weight is not None:
        if loss != "cross_entropy":
            raise ValueError('class_weight is for loss="cross_entropy", whose targets are classes: use sample_weight.')
        of_class = class_weights(class_weight, T, weights, model.output_dim, model.classes)[T]
        weights = of_class if weights is None else weights * of_class
    if weights is None:
        return Samples(U, T, None)
    if callable(loss):
        raise ValueError("sample_weight is for the losses of idl_ref; got a loss of your own: weight samples in it.")
    return Samples(U, T, (weights * (len(U) / weights.sum())).astype(model.dtype))


def class_weights(
    class_weight: Any, labels: np.ndarray, weights: np.ndarray | None, q: int, names: np.ndarray | None
) -> np.ndarray:
    """Return the weight of each class (q,): given by its name or number, or balanced, that is W/(K W_c).

    W is the weight of all samples, W_c that of the samples of class c, and K the number of classes that have any.
    """
    if isinstance(class_weight, str) and class_weight == "balanced":
        of_class = np.bincount(labels, weights, minlength=q).astype(np.float64)
        present = of_class > 0
        of_class[present] = of_class.sum() / (present.sum() * of_class[present])
        return of_class
    if not isinstance(class_weight, Mapping):
        raise TypeError(f'class_weight must be "balanced" or a dict from classes to weights; got {class_weight!r}.')
    numbers = {name: i for i, name in enumerate(range(q) if names is None else names.tolist())}
    result = np.ones(q)
    for name, weight in class_weight.items():
        if name not in numbers:
            raise ValueError(f"class_weight must name classes of the model; got {name!r}: use {list(numbers)[:9]}.")
        result[numbers[name]] = checks.number("class_weight", weight, 0)
    if not result[labels].any():
        raise ValueError("class_weight must be positive for at least one class of the samples; got zeros only.")
    return result
