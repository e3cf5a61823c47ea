"""Training: minibatches, validation, history, a progress bar."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from idl_ref import checks, losses
from idl_ref.backends import resolve
from idl_ref.factors import norm_inf
from idl_ref.gradients import BackwardPass, ForwardPass
from idl_ref.model import ImplicitModel
from idl_ref.optim import SGD
from idl_ref.solution import NotConvergedError, warn
from idl_ref.wellposed import perron_root

__all__ = ["History", "evaluate", "fit", "train_step"]

CHUNK = 1024  # samples at a time when a whole data set is evaluated


@dataclass
class History:
    """What happened in training; one entry per epoch.

    Attributes
    ----------
    loss, accuracy : list of float
        Means over the epoch's minibatches, as they were seen; accuracy only for cross_entropy.
    validation_loss, validation_accuracy : list of float
        After the epoch; empty without validation data.
    forward_iterations, adjoint_iterations : list of (mean, max)
    unconverged : list of int
        Samples whose forward or adjoint solve did not converge.
    norm : list of float
        ‖A‖∞ of the effective A; for low rank its bound max |L||R|ᵀ1.
    perron_root : list of float
        Upper end of the bracket of λ_pf(|A|); for low rank of |L||R|ᵀ.
    seconds : list of float
    interrupted : bool
        Stopped from the keyboard; the last epoch is then not in the lists.
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
    seconds: list[float] = field(default_factory=list)
    interrupted: bool = False

    def keep(self, epochs: int) -> None:
        """Drop what was recorded after so many epochs."""
        for record in vars(self).values():
            if isinstance(record, list):
                del record[epochs:]

    def latest(self) -> dict[str, str]:
        """The last epoch in words."""
        words = {"loss": f"{self.loss[-1]:.4f}"}
        if self.accuracy:
            words["accuracy"] = f"{100 * self.accuracy[-1]:.2f} %"
        if self.validation_accuracy:
            words["validation"] = f"{100 * self.validation_accuracy[-1]:.2f} %"
        elif self.validation_loss:
            words["validation"] = f"{self.validation_loss[-1]:.4f}"
        words["iterations"] = f"{self.forward_iterations[-1][0]:.1f}"
        return words

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the history as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def fit(
    model: ImplicitModel,
    U: Any,
    targets: Any,
    *,
    loss: str = "cross_entropy",
    optimizer: SGD | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    validation: tuple[Any, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train `model` in place by stochastic gradient descent.

    Parameters
    ----------
    model : ImplicitModel
    U : (m, p) array
        Samples as rows.
    targets : (m,) whole numbers for "cross_entropy", (m, q) array for "mse"
    loss : {"cross_entropy", "mse"}
    optimizer : SGD, optional
        SGD() if not given; it is started afresh.
    epochs, batch_size : int
        Each epoch goes once through the samples in a new order.
    validation : (U, targets), optional
        Evaluated after every epoch.
    seed : int
        Of the order of the samples. The same seed on the same machine gives the same weights, bit for bit.
    progress : bool
        Show progress on standard error: a bar where tqdm is installed, a line per epoch elsewhere.

    Returns
    -------
    History
        Also after Ctrl-C, for the epochs that were completed; the model keeps the weights it had.

    Raises
    ------
    FloatingPointError
        The loss or a gradient is not finite; the message names epoch and batch, and the model keeps the weights from
        before that batch.
    NotConvergedError
        With the model's on_failure="raise", when a sample does not converge; "warn" warns once per epoch.

    Examples
    --------
    >>> from idl_ref import datasets
    >>> x, y = datasets.two_moons(200)
    >>> model = ImplicitModel(2, 2, 20, bias=True, seed=0)
    >>> history = fit(model, x, y, epochs=30, optimizer=SGD(0.1), progress=False)
    >>> history.accuracy[-1] > 0.9
    True
    """
    U = checks.samples("U", U, "p", model.input_dim, model.dtype)
    m = len(U)
    T = losses.check_targets(loss, targets, m, model.output_dim, model.dtype)
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1)
    checks.integer("seed", seed, 0)
    if validation is not None:
        validation = _check_validation(model, validation, loss)
    optimizer = SGD() if optimizer is None else optimizer
    optimizer.start(epochs * -(-m // batch_size))
    rng = np.random.default_rng(seed)
    history, completed = History(), 0
    trainer = _trainer(model)
    with Progress(progress, epochs, -(-m // batch_size)) as display:
        try:
            for epoch in range(1, epochs + 1):
                order = rng.permutation(m)
                batches = (order[j : j + batch_size] for j in range(0, m, batch_size))
                try:
                    _run_epoch(trainer, U, T, loss, optimizer, batches, epoch, history, display)
                finally:
                    trainer.bring_back()
                _record_norms(model, history)
                if validation is not None:
                    value, accuracy = evaluate(model, *validation, loss=loss)
                    history.validation_loss.append(value)
                    if accuracy is not None:
                        history.validation_accuracy.append(accuracy)
                completed = epoch
                display.epoch_done(epoch, history.latest(), history.seconds[-1])
        except KeyboardInterrupt:
            history.interrupted = True
            history.keep(completed)
    return history


def evaluate(model: ImplicitModel, U: Any, targets: Any, *, loss: str = "cross_entropy") -> tuple[float, float | None]:
    """Loss, and accuracy for cross_entropy (else None), over a whole data set, in chunks.

    Parameters
    ----------
    model, U, targets, loss
        As for `fit`.
    """
    U = checks.samples("U", U, "p", model.input_dim, model.dtype)
    T = losses.check_targets(loss, targets, len(U), model.output_dim, model.dtype)
    total, hits = 0.0, 0
    for j in range(0, len(U), CHUNK):
        chunk = slice(j, j + CHUNK)
        Y = model(U[chunk]).T
        t = T[..., chunk]
        total += float(losses.get(loss)(Y, t)[0]) * Y.shape[1]
        hits += _hits(loss, Y, t)
    m = max(len(U), 1)
    return total / m, hits / m if loss == "cross_entropy" else None


class Progress:
    """One bar over all batches where tqdm is installed, a line per epoch elsewhere; on standard error."""

    def __init__(self, show: bool, epochs: int, batches: int) -> None:
        self.show, self.epochs = checks.flag("progress", show), epochs
        self.bar: Any = None
        if show:
            try:
                from tqdm import tqdm
            except ImportError:
                pass  # the lines below do without it
            else:
                self.bar = tqdm(total=epochs * batches, unit="batch", dynamic_ncols=True, desc="training")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def batch_done(self, epoch: int) -> None:
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.bar.update()

    def epoch_done(self, epoch: int, words: dict[str, str], seconds: float) -> None:
        if self.bar is not None:
            self.bar.set_postfix(words)
        elif self.show:
            text = ", ".join(f"{name} {value}" for name, value in words.items())
            print(f"epoch {epoch}/{self.epochs}: {text}, {seconds:.1f} s", file=sys.stderr, flush=True)


def _check_validation(model: ImplicitModel, validation: Any, loss: str) -> tuple[np.ndarray, Any]:
    """Refuse bad validation data before the first epoch, not after it."""
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        raise ValueError(f"validation must be a pair (U, targets); got {type(validation).__name__}.")
    U = checks.samples("validation U", validation[0], "p", model.input_dim, model.dtype)
    losses.check_targets(loss, validation[1], len(U), model.output_dim, model.dtype)
    return U, validation[1]


def _hits(loss: str, Y: np.ndarray, t: np.ndarray) -> int:
    return int((Y.argmax(axis=0) == t).sum()) if loss == "cross_entropy" else 0


def train_step(
    model: ImplicitModel, U: np.ndarray, T: np.ndarray, loss: str, optimizer: SGD
) -> tuple[float, ForwardPass, BackwardPass]:
    """One step: forward, loss, backward, SGD, and the projection where `f` has one.   U (m, p), T as the loss takes it

    Raises FloatingPointError, the weights untouched, if the loss or a gradient is not finite.
    """
    forward = model.forward_pass(U)
    with np.errstate(over="ignore", invalid="ignore"):
        value, G_Y = losses.get(loss)(forward.Y, T)
    if not np.isfinite(value):
        raise FloatingPointError(f"the loss is {float(value)}")
    backward = model.backward_pass(forward, G_Y)
    gradients = model.parameter_gradients(backward)
    for name, G in gradients.items():
        if not np.isfinite(G).all():
            raise FloatingPointError(f"the gradient of {name} is not finite")
    optimizer.step(model.parameters, gradients)
    model.project()
    return float(value), forward, backward


class Trainer:
    """Takes the steps of a model: on the host, where the arrays that it trains are the model's own."""

    def __init__(self, model: ImplicitModel) -> None:
        self.model = model

    def step(self, *batch: Any) -> tuple[float, ForwardPass, BackwardPass]:
        return train_step(self.model, *batch)

    def bring_back(self) -> None:
        """The parameters are where they belong."""


def _trainer(model: ImplicitModel) -> Any:
    """For backend "cuda" one that keeps everything on the device."""
    if model.backend != "cuda":
        return Trainer(model)
    resolve("cuda")  # or say why it is not available
    return import_module("idl_ref.backends.cuda.trainer").Trainer(model)


def _run_epoch(
    trainer: Any,
    U: np.ndarray,
    T: np.ndarray,
    loss: str,
    optimizer: SGD,
    batches: Iterator[np.ndarray],
    epoch: int,
    history: History,
    display: Progress,
) -> None:
    started, model = time.perf_counter(), trainer.model
    total, hits, seen, unconverged = 0.0, 0, 0, 0
    iterations: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for number, batch in enumerate(batches, 1):
        try:
            value, forward, backward = trainer.step(U[batch], T[..., batch], loss, optimizer)
        except FloatingPointError as reason:
            raise FloatingPointError(
                f"epoch {epoch}, batch {number}: {reason}. Lower the learning rate, or look for NaN in the data."
            ) from None
        failed = ~(forward.solution.succeeded & backward.solution.succeeded)
        if failed.any() and model.on_failure == "raise":
            worse = forward.solution if not forward.solution.converged else backward.solution
            raise NotConvergedError(f"epoch {epoch}, batch {number}: {failed.sum()} samples not converged.", worse)
        total += value * len(batch)
        hits += _hits(loss, forward.Y, T[..., batch])
        seen += len(batch)
        unconverged += int(failed.sum())
        iterations[0].append(forward.solution.iterations)
        iterations[1].append(backward.solution.iterations)
        display.batch_done(epoch)
    history.loss.append(total / max(seen, 1))
    if loss == "cross_entropy":
        history.accuracy.append(hits / max(seen, 1))
    for record, counts in zip((history.forward_iterations, history.adjoint_iterations), iterations, strict=True):
        joined = np.concatenate(counts) if counts else np.zeros(1, int)
        record.append((float(joined.mean()), int(joined.max())))
    history.unconverged.append(unconverged)
    history.seconds.append(time.perf_counter() - started)
    if unconverged and model.on_failure == "warn":
        warn(
            f"epoch {epoch}: {unconverged} of {seen} samples not converged, forward or adjoint. "
            'Raise mitr and grad_mitr, or try method="anderson".'
        )


def _record_norms(model: ImplicitModel, history: History) -> None:
    weights = model.effective_weights()
    history.norm.append(norm_inf(weights.factors))
    history.perron_root.append(perron_root(weights.A).upper)
