"""Training: minibatches, validation, history, a progress bar."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activations, checks, losses
from idl_ref.backends import twin
from idl_ref.backends.numpy import Trainer
from idl_ref.factors import norm_inf
from idl_ref.model import ImplicitModel
from idl_ref.optim import SGD
from idl_ref.solution import NotConvergedError, warn
from idl_ref.wellposed import perron_root

__all__ = ["History", "evaluate", "fit"]

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
    trainer = _trainer(model, loss, optimizer)
    with Progress(progress, epochs, -(-m // batch_size)) as display:
        try:
            for epoch in range(1, epochs + 1):
                order = rng.permutation(m)
                batches = [order[j : j + batch_size] for j in range(0, m, batch_size)]
                try:
                    _run_epoch(model, trainer, _Epoch(epoch, U, T, batches, loss), history, display)
                finally:
                    trainer.update_host()
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


def _trainer(model: ImplicitModel, loss: str, optimizer: SGD) -> Trainer:
    """The trainer of the model's backend."""
    model.effective_weights()  # refuses parameters of a wrong shape or dtype
    s, phi = model.settings, activations.get(model.activation)
    return twin(s.backend).Trainer(model.parameters, s.parametrisation, phi, s.options, loss, optimizer)


class _Epoch(NamedTuple):
    """One pass over the samples, in minibatches."""

    number: int
    U: np.ndarray  # (m, p)
    T: np.ndarray  # targets as the loss takes them
    batches: list[np.ndarray]  # indices of samples
    loss: str


def _run_epoch(model: ImplicitModel, trainer: Trainer, epoch: _Epoch, history: History, display: Progress) -> None:
    """Take the steps of one epoch, and record it."""
    started = time.perf_counter()
    total, hits, seen, unconverged = 0.0, 0, 0, 0
    iterations: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for number, batch in enumerate(epoch.batches, 1):
        t = epoch.T[..., batch]
        try:
            value, forward, backward = trainer.step(epoch.U[batch], t)
        except FloatingPointError as reason:
            raise FloatingPointError(
                f"epoch {epoch.number}, batch {number}: {reason}. Lower the learning rate, or look for NaN in the data."
            ) from None
        failed = ~(forward.solution.succeeded & backward.solution.succeeded)
        if failed.any() and model.on_failure == "raise":
            worse = forward.solution if not forward.solution.converged else backward.solution
            raise NotConvergedError(
                f"epoch {epoch.number}, batch {number}: {failed.sum()} samples not converged.", worse
            )
        total += value * len(batch)
        hits += _hits(epoch.loss, forward.Y, t)
        seen += len(batch)
        unconverged += int(failed.sum())
        iterations[0].append(forward.solution.iterations)
        iterations[1].append(backward.solution.iterations)
        display.batch_done(epoch.number)
    history.loss.append(total / max(seen, 1))
    if epoch.loss == "cross_entropy":
        history.accuracy.append(hits / max(seen, 1))
    for record, counts in zip((history.forward_iterations, history.adjoint_iterations), iterations, strict=True):
        joined = np.concatenate(counts) if counts else np.zeros(1, int)
        record.append((float(joined.mean()), int(joined.max())))
    history.unconverged.append(unconverged)
    history.seconds.append(time.perf_counter() - started)
    if unconverged and model.on_failure == "warn":
        warn(
            f"epoch {epoch.number}: {unconverged} of {seen} samples not converged, forward or adjoint. "
            'Raise mitr and grad_mitr, or try method="anderson".'
        )


def _record_norms(model: ImplicitModel, history: History) -> None:
    weights = model.effective_weights()
    history.norm.append(norm_inf(weights.factors))
    history.perron_root.append(perron_root(weights.A).upper)
