"""This module trains a model on minibatches, with validation, a history and a progress bar."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activations, blas, checks, classes, losses, optim, preprocessing
from idl_ref.backends.numpy import Trainer
from idl_ref.choices import Loss
from idl_ref.factors import norm_inf
from idl_ref.labels import has_class
from idl_ref.model import ImplicitModel
from idl_ref.optim import SGD
from idl_ref.solution import NotConvergedError, report, warn
from idl_ref.weights import ForwardPass
from idl_ref.wellposed import perron_root

__all__ = ["History", "evaluate", "fit"]

CHUNK = 1024  # A data set is evaluated in chunks of this many samples.
# A product of fewer flops takes less than about a millisecond on one core, and gains little from a second one.
SMALL_PRODUCT = 1e8


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
    seconds : list of float
        Duration of the training steps of each epoch, in seconds.
    interrupted : bool
        True if training was interrupted from the keyboard; the lists then lack the epoch that was not completed.
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
        """Delete what was recorded after the first `epochs` epochs."""
        for record in vars(self).values():
            if isinstance(record, list):
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the history to a JSON file."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def fit(
    model: ImplicitModel,
    U: Any,
    targets: Any,
    *,
    loss: Loss = "cross_entropy",
    optimizer: SGD | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    validation: tuple[Any, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train `model` in place by stochastic gradient descent.

    Each step solves the forward and the adjoint equation of one minibatch, and then updates the parameters; see SGD.

    Parameters
    ----------
    model : ImplicitModel
        The model, whose parameters are changed.
    U : (m, p) array
        Inputs, one sample per row. With a preprocessing, they are raw samples, and may have shape (m, …).
    targets : (m,) whole numbers for "cross_entropy", (m, q) array for "mse"
        The labels or the desired outputs.
    loss : {"cross_entropy", "mse"}
        The loss that is minimised.
    optimizer : SGD, optional
        The optimizer; SGD() if not given. Its velocity and step count are reset.
    epochs, batch_size : int
        Number of epochs, and number of samples per step. Each epoch uses every sample once, in a new random order.
    validation : (U, targets), optional
        Data on which loss and accuracy are computed after every epoch.
    seed : int
        Seed of the order of the samples. The same seed on the same machine gives the same weights, bit for bit.
    progress : bool
        Show progress on standard error: a progress bar if tqdm is installed, else one line per epoch.

    Returns
    -------
    History
        The record of the completed epochs. After Ctrl-C, too, the history is returned, and the model keeps the weights
        of that moment.

    Raises
    ------
    ValueError, TypeError
        Arrays of a wrong shape or dtype, no samples, inputs or targets that are not finite, an unknown loss, a number
        outside its range, or an optimizer that is not an SGD.
    FloatingPointError
        The loss or a gradient is not finite. The message names the epoch and the batch, and the model keeps the weights
        that it had before this batch.
    NotConvergedError
        A sample did not converge, and the model has on_failure="raise".

    Warns
    -----
    ConvergenceWarning
        Samples did not converge, and the model has on_failure="warn"; there is one warning per epoch.

    Notes
    -----
    Cost of an epoch: (forward and adjoint iterations per sample) · 2 n² m flops for a dense A, or · 4 n r m for a
    low-rank A, and at most about 6 (n² + n p + n q + p q) m flops for the products with weights and for the gradients.
    Source: El Ghaoui et al., Implicit Deep Learning, SIAM J. Math. Data Sci. 3 (2021), section on training.

    Examples
    --------
    >>> from idl_ref import datasets
    >>> x, y = datasets.two_moons(200)
    >>> model = ImplicitModel(2, 2, 20, bias=True, seed=0)
    >>> history = fit(model, x, y, epochs=30, optimizer=SGD(0.1), progress=False)
    >>> history.accuracy[-1] > 0.9
    True
    """
    U, T = _inputs_and_targets(model, "U", U, targets, loss)
    m = len(U)
    if not m:
        raise ValueError(f"U must hold at least one sample to train on; got shape {U.shape}: pass samples as rows.")
    checks.finite("U", U)
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1)
    checks.integer("seed", seed, 0)
    if validation is not None:
        validation = _check_validation(model, validation, loss)
    optimizer = optim.checked(optimizer)
    optimizer.start(epochs * -(-m // batch_size))
    rng = np.random.default_rng(seed)
    history, completed = History(), 0
    trainer = _trainer(model, loss, optimizer)
    with (
        blas.OneThread(_has_small_products(model, batch_size)),
        Progress(progress, epochs, -(-m // batch_size)) as display,
    ):
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
                    value, accuracy, _ = _measure(model, *validation, loss)
                    history.validation_loss.append(value)
                    if accuracy is not None:
                        history.validation_accuracy.append(accuracy)
                completed = epoch
                display.epoch_done(epoch, history.latest(), history.seconds[-1])
        except KeyboardInterrupt:
            history.interrupted = True
            history.keep(completed)
    return history


def evaluate(model: ImplicitModel, U: Any, targets: Any, *, loss: Loss = "cross_entropy") -> tuple[float, float | None]:
    """Return the mean loss over a data set, and the accuracy for cross_entropy, else None.

    Parameters
    ----------
    model, U, targets, loss
        As for `fit`.

    Returns
    -------
    loss : float
    accuracy : float or None
        The fraction of samples whose largest output is that of their label. A sample that did not converge, or whose
        outputs are not finite, counts as wrong.
    """
    value, accuracy, _ = _measure(model, *_inputs_and_targets(model, "U", U, targets, loss), loss)
    return value, accuracy


class Measured(NamedTuple):
    """The mean loss and the accuracy over a data set, and the number of samples that failed."""

    loss: float
    accuracy: float | None  # None for a loss that does not classify
    failed: int


def measure(model: ImplicitModel, U: Any, targets: Any, loss: str = "cross_entropy") -> Measured:
    """Return what `evaluate` returns, and the number of samples that did not converge or whose outputs are not finite.

    They cause neither a warning nor an exception.
    """
    return _measure(model, *_inputs_and_targets(model, "U", U, targets, loss), loss, quiet=True)


def _measure(model: ImplicitModel, U: np.ndarray, T: np.ndarray, loss: str, quiet: bool = False) -> Measured:
    """Do the same as `measure` for inputs and targets that are checked already, and preprocessed.

    Unless `quiet` is true, warn or raise an exception for samples that failed, as the model's on_failure says.
    """
    layer, options = model.layer(), model.settings.options.forward
    total, hits, answered = 0.0, 0, 0
    for j in range(0, len(U), CHUNK):
        chunk = slice(j, j + CHUNK)
        forward = layer.forward(U[chunk].T)
        if not quiet:
            report(forward.solution, forward.weights.factors, options, "forward", "mitr")
        t = T[..., chunk]
        with np.errstate(over="ignore", invalid="ignore"):  # A failed sample makes the loss NaN, which is returned.
            total += float(losses.get(loss)(forward.Y, t)[0]) * forward.Y.shape[1]
        hits += _hits(loss, forward, t)
        answered += int(has_class(forward).sum())
    m = max(len(U), 1)
    return Measured(total / m, hits / m if loss == "cross_entropy" else None, len(U) - answered)


class Progress:
    """Shows progress on standard error: one bar over all batches if tqdm is installed, else one line per epoch."""

    def __init__(self, show: bool, epochs: int, batches: int) -> None:
        self.show, self.epochs = checks.flag("progress", show), epochs
        self.bar: Any = None
        if show:
            try:
                from tqdm import tqdm
            except ImportError:
                pass  # Without tqdm, `epoch_done` prints one line per epoch.
            else:
                self.bar = tqdm(total=epochs * batches, unit="batch", dynamic_ncols=True, desc="training")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def batch_done(self, epoch: int) -> None:
        """Advance the bar by one batch."""
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.bar.update()

    def epoch_done(self, epoch: int, words: dict[str, str], seconds: float) -> None:
        """Show the figures of a completed epoch."""
        if self.bar is not None:
            self.bar.set_postfix(words)
        elif self.show:
            text = ", ".join(f"{name} {value}" for name, value in words.items())
            print(f"epoch {epoch}/{self.epochs}: {text}, {seconds:.1f} s", file=sys.stderr, flush=True)


def _inputs_and_targets(
    model: ImplicitModel, name: str, U: Any, targets: Any, loss: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return checked and preprocessed inputs (m, p), and checked targets in the form that the loss takes."""
    U = preprocessing.inputs(name, U, model.input_dim, model.dtype, model.preprocessing)
    targets = classes.encoded(loss, targets, model.classes)
    return U, losses.check_targets(loss, targets, len(U), model.output_dim, model.dtype)


def _check_validation(model: ImplicitModel, validation: Any, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """Check validation data before the first epoch, so that an error does not cost the time of an epoch."""
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        raise ValueError(f"validation must be a pair (U, targets); got {type(validation).__name__}: pass a tuple.")
    U, targets = validation
    return _inputs_and_targets(model, "validation U", U, targets, loss)


def _hits(loss: str, forward: ForwardPass, t: np.ndarray) -> int:
    """Return the number of correctly classified samples; 0 for a loss that does not classify."""
    return int(((forward.Y.argmax(axis=0) == t) & has_class(forward)).sum()) if loss == "cross_entropy" else 0


def _has_small_products(model: ImplicitModel, batch_size: int) -> bool:
    """Tell whether BLAS computes the products of a step, and one core is enough for them."""
    flops = 2 * batch_size * max(W.size for W in model.parameters.values())
    return model.settings.resolved_backend() == "numpy" and flops <= SMALL_PRODUCT


def _trainer(model: ImplicitModel, loss: str, optimizer: SGD) -> Trainer:
    """Return the trainer of the model's backend."""
    model.effective_weights()  # This call refuses parameters of a wrong shape or dtype.
    s, phi = model.settings, activations.get(model.activation)
    return s.twin().Trainer(model.parameters, s.parametrisation, phi, s.options, loss, optimizer)


class _Epoch(NamedTuple):
    """The data of one pass over the samples, divided into minibatches."""

    number: int  # the number of the epoch, from 1
    U: np.ndarray  # (m, p)
    T: np.ndarray  # the targets in the form that the loss takes
    batches: list[np.ndarray]  # the indices of the samples of each minibatch
    loss: str  # the name of the loss


def _run_epoch(model: ImplicitModel, trainer: Trainer, epoch: _Epoch, history: History, display: Progress) -> None:
    """Take the training steps of one epoch, and record its figures."""
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
        hits += _hits(epoch.loss, forward, t)
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
    """Record the norm and the Perron root of the effective A."""
    weights = model.effective_weights()
    history.norm.append(norm_inf(weights.factors))
    history.perron_root.append(perron_root(weights.A).upper)
