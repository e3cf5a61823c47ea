"""This module has what classification and regression have in common: parameters, training, and outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks
from idl_ref.activations import Activation
from idl_ref.choices import ActivationName, Backend, Loss, Schedule
from idl_ref.functions import ImplicitFunction, ImplicitFunctionInf
from idl_ref.labels import has_class, reason
from idl_ref.model import ImplicitModel
from idl_ref.optim import Adam
from idl_ref.preprocessing import Standardise
from idl_ref.settings import Settings
from idl_ref.solution import NotConvergedError, warn
from idl_ref.train import History, fit

try:
    from idl_ref.estimators import conventional as conventions
except ModuleNotFoundError:
    from idl_ref.estimators import plain as conventions  # type: ignore[no-redef]

# What "auto" and None stand for; docs/estimators.md says by which measurement.
FULL, BATCH = 512, 64  # Up to FULL samples are one batch. More are divided into batches of BATCH.
STEPS, FEWEST, MOST = 300, 14, 40  # About so many steps are taken, in FEWEST … MOST epochs.
BETA2 = 0.99  # Few steps are taken, and in so few, Adam's usual 0.999 would still remember the first gradients.
TOLERANCE = 1e-3  # The equations are solved so far while training. The model keeps its own tolerance for predictions.
LARGEST = 0.25  # The largest part of a weight that weight decay takes away in a step, on average.


class Data(NamedTuple):
    """The samples of a training, of which each has a weight > 0."""

    U: np.ndarray  # (m, p)
    y: np.ndarray  # labels (m,), or numbers (m, q)
    weights: np.ndarray | None  # (m,)

    def take(self, index: np.ndarray) -> Data:
        """Return some of the samples."""
        return Data(self.U[index], self.y[index], None if self.weights is None else self.weights[index])


class Implicit(conventions.BaseEstimator):
    """The base of both estimators."""

    model_: ImplicitModel
    history_: History
    _optimizer: Adam | None

    def __init__(
        self,
        hidden_dim: int = 64,
        activation: ActivationName | Activation = "relu",
        *,
        f: type[ImplicitFunction] = ImplicitFunctionInf,
        kappa: float = 0.8,
        rank: int | None = None,
        alpha: float = 1.0,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.03,
        max_iter: int | None = None,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        backend: Backend = "auto",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.hidden_dim, self.activation = hidden_dim, activation
        self.f, self.kappa, self.rank, self.alpha = f, kappa, rank, alpha
        self.batch_size, self.learning_rate_init = batch_size, learning_rate_init
        self.max_iter, self.tol, self.n_iter_no_change = max_iter, tol, n_iter_no_change
        self.early_stopping, self.validation_fraction = early_stopping, validation_fraction
        self.warm_start, self.backend = warm_start, backend
        self.random_state, self.verbose = random_state, verbose

    # --- training -----------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Forget the last model, so that none is there when `fit` fails; with warm_start, keep it."""
        if not checks.flag("warm_start", self.warm_start):
            self.__dict__.pop("model_", None)

    def _fit(self, data: Data, outputs: int) -> None:
        """Train a new model, or with warm_start the one that is there, for at most max_iter epochs."""
        seed, patience = _seed(self.random_state), checks.integer("n_iter_no_change", self.n_iter_no_change, 1)
        stop: dict[str, Any] = {"on_epoch": Patience(checks.number("tol", self.tol, 0), patience)}
        training = data
        if checks.flag("early_stopping", self.early_stopping):
            training, validation = self._split(data, seed)
            stop = {"validation": validation, "early_stopping": patience}
        epochs, optimizer = self._epochs(len(training.U)), self._adam(Adam, "cosine", len(training.U))
        self._begin(data, outputs, seed)
        self._optimizer = None
        self.history_ = self._trained(training, optimizer=optimizer, epochs=epochs, seed=seed, **stop)
        self.n_iter_ = len(self.history_.loss)

    def _partial_fit(self, data: Data, outputs: int) -> None:
        """Train the model that is there, or a new one, for one epoch; the optimizer goes on where it was."""
        seed = _seed(self.random_state)
        optimizer = getattr(self, "_optimizer", None) or self._adam(Continued, "constant", len(data.U))
        self._begin(data, outputs, seed)
        self._optimizer = optimizer
        done = getattr(self, "n_iter_", 0)
        self.history_ = self._trained(data, optimizer=optimizer, epochs=1, seed=seed + done)
        self.n_iter_ = done + 1

    def _trained(self, data: Data, validation: Data | None = None, **how: Any) -> History:
        """Train the model with samples of this kind of estimator."""
        raise NotImplementedError

    def _run(self, loss: Loss, data: Data, validation: Data | None, **how: Any) -> History:
        """Train the model with a loss, and with a tolerance that changes gradients less than minibatches do."""
        if validation is not None:
            how["validation"] = validation.U, validation.y
        model, batch = self.model_, self._batch(len(data.U))
        own, loose = model.settings, {name: max(TOLERANCE, getattr(model, name)) for name in ("tol", "grad_tol")}
        model.settings = replace(own, **loose)
        try:
            show, weights = checks.flag("verbose", self.verbose), data.weights
            how = {**how, "batch_size": batch, "sample_weight": weights, "progress": show}
            history = fit(model, data.U, data.y, loss=loss, **how)
        finally:
            model.settings = own
        if history.interrupted:
            warn(f"training was interrupted after {len(history.loss)} epochs.", UserWarning)
        return history

    def _prepare(self, data: Data) -> None:
        """Give a new model what this kind of estimator needs beside weights and standardisation."""
        raise NotImplementedError

    def _begin(self, data: Data, outputs: int, seed: int) -> None:
        """Make a new model, or check that one which is to be trained further fits the samples and the parameters."""
        settings = self._settings(data, outputs)
        if not hasattr(self, "model_"):
            weights = settings.initial_parameters(np.random.default_rng(seed))
            first = Standardise.fit(data.U, True, data.weights)
            self.model_ = ImplicitModel.from_parameters(settings, weights)
            self.model_.preprocessing = first
            self._prepare(data)
            return
        old = self.model_.settings
        if settings.shapes() != old.shapes():
            raise ValueError(
                f"a model that is trained further must keep its sizes {old.shapes()}; got {settings.shapes()} from the "
                "parameters, the features of X, and y: use warm_start=False, or a new estimator."
            )
        same = {name: getattr(settings, name) for name in ("f", "kappa", "activation", "backend")}
        self.model_.settings = replace(old, **same)

    def _dtype(self, data: Data) -> Any:
        """Return the dtype of a model for these samples."""
        return data.U.dtype

    def _settings(self, data: Data, outputs: int) -> Settings:
        """Return the settings of a model for these samples."""
        return Settings(
            data.U.shape[1],
            outputs,
            checks.integer("hidden_dim", self.hidden_dim, 1),
            self.f,
            bias=True,
            kappa=self.kappa,
            is_low_rank=self.rank is not None,
            rank=self.rank,
            activation=self.activation,
            dtype=self._dtype(data),
            backend=self.backend,
        )

    def _adam(self, kind: type[Adam], schedule: Schedule, m: int) -> Adam:
        """Return an optimizer for a training with m samples.

        Its weight decay λ is such that Σ η_t λ = alpha over all steps: without gradients, the weights shrink by
        exp(−alpha), whatever the number of steps and the learning rate are.
        """
        rate = checks.number("learning_rate_init", self.learning_rate_init, 0)
        steps = self._epochs(m) * -(-m // self._batch(m))
        share = min(checks.number("alpha", self.alpha, 0) / steps, LARGEST)
        mean = rate / 2 if schedule == "cosine" else rate
        return kind(rate, beta2=BETA2, weight_decay=share / mean if mean else 0.0, schedule=schedule)

    def _epochs(self, m: int) -> int:
        """Return the number of epochs for m samples."""
        if self.max_iter is not None:
            return checks.integer("max_iter", self.max_iter, 1, why="Or pass None.")
        return min(MOST, max(FEWEST, -(-STEPS // -(-m // self._batch(m)))))

    def _batch(self, m: int) -> int:
        """Return the number of samples per step of a training with m samples."""
        if isinstance(self.batch_size, str) and self.batch_size == "auto":
            return m if m <= FULL else BATCH
        return min(m, checks.integer("batch_size", self.batch_size, 1, why='Or pass "auto".'))

    def _split(self, data: Data, seed: int) -> tuple[Data, Data]:
        """Return the samples to train with, and those for validation: of each class if there are classes."""
        share = checks.number("validation_fraction", self.validation_fraction, 0, 1)
        order = np.random.default_rng(seed).permutation(len(data.U))
        groups = [order[data.y[order] == k] for k in np.unique(data.y)] if data.y.ndim == 1 else [order]
        sizes = [min(len(group) - 1, max(1, round(share * len(group)))) for group in groups]
        if not any(sizes):
            raise ValueError(
                f"early_stopping needs samples for validation beside those for training; got {len(order)} samples in "
                f"{len(groups)} groups: use early_stopping=False, or more samples."
            )
        kept = np.concatenate([group[:k] for group, k in zip(groups, sizes, strict=True)])
        rest = np.concatenate([group[k:] for group, k in zip(groups, sizes, strict=True)])
        return data.take(np.sort(rest)), data.take(np.sort(kept))

    # --- outputs ------------------------------------------------------------------------------------------------------

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the outputs (m, q) of the model, and raise NotConvergedError if a sample has none."""
        U = conventions.samples(self, X)
        forward = self.model_.forward_pass(U)
        known = has_class(forward)
        if not known.all():
            rows = np.flatnonzero(~known)
            shown = ", ".join(map(str, rows[:10])) + (", …" if len(rows) > 10 else "")
            raise NotConvergedError(
                f"X must be samples whose equilibrium is found; got {len(rows)} of {len(known)} that have no answer, "
                f"rows {shown} ({reason(forward.solution.status[rows[0]])}): leave them out, or raise mitr by "
                "model_.settings = dataclasses.replace(model_.settings, mitr=…).",
                forward.solution,
            )
        return forward.Y.T


class Continued(Adam):
    """Adam whose moments and steps go on from one training to the next."""

    def start(self, total_steps: int | None = None, learning_rate: float | None = None) -> None:
        """Reset moments and step count before the first training only."""
        if not hasattr(self, "_moments"):
            super().start(total_steps, learning_rate)


class Patience:
    """Tells `fit` to stop when the training loss has not become smaller by `tol` for so many epochs."""

    def __init__(self, tol: float, epochs: int) -> None:
        self.tol, self.epochs = tol, epochs
        self.best, self.waited = np.inf, 0

    def __call__(self, history: History, model: ImplicitModel) -> bool:
        loss = history.loss[-1]
        self.waited = self.waited + 1 if loss > self.best - self.tol else 0
        self.best = min(self.best, loss)
        return self.waited >= self.epochs


def weighted(sample_weight: Any, m: int) -> np.ndarray | None:
    """Return the weights (m,) of samples, after checking them, or None for None."""
    if sample_weight is None:
        return None
    given = checks.real_array("sample_weight", sample_weight)
    return checks.weights("sample_weight", np.full(m, given) if given.ndim == 0 else given, m)


def with_weight(U: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> Data:
    """Return the samples whose weight is not 0; the others are not part of the training, nor of its batches."""
    data = Data(U, y, weights)
    if weights is not None and not weights.any():
        raise ValueError("the weights of samples and classes must not all be zero; got zeros only.")
    return data if weights is None or weights.all() else data.take(np.flatnonzero(weights))


def _seed(random_state: Any) -> int:
    """Return a seed from None, a whole number, or a generator of random numbers of NumPy, which draws it."""
    if random_state is None:
        return int(np.random.default_rng().integers(2**31))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    return checks.integer("random_state", random_state, 0, why="Or pass None, or a generator of numpy.random.")
