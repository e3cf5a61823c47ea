"""This module has the estimator for classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from idl_ref import classes
from idl_ref.activations import Activation
from idl_ref.choices import ActivationName, Backend
from idl_ref.estimators.base import Data, Implicit, conventions, weighted, with_weight
from idl_ref.functions import ImplicitFunction, ImplicitFunctionInf
from idl_ref.train import History


class ImplicitClassifier(conventions.ClassifierMixin, Implicit):
    """A classifier by an implicit model, X = φ(A X + B U) and Ŷ = C X + D U, with scikit-learn's conventions.

    Parameters
    ----------
    hidden_dim : int
        The number n of hidden units.
    activation : str or Activation
        The activation φ; see ImplicitModel.
    f : subclass of ImplicitFunction
        The constraint on A; see ImplicitModel.
    kappa : float
        Radius κ of the ball in which `f` keeps A, with 0 ≤ κ·Lip(φ) < 1; for low rank, 0 ≤ κ²·Lip(φ) < 1.
    rank : int, optional
        The rank of A = L Rᵀ; None for a dense A.
    alpha : float
        The weight decay α ≥ 0 over the whole training: without gradients, all weights would shrink by exp(−α). For
        Adam with the learning rates η_t, it is the decoupled decay λ with Σ η_t λ = α.
    batch_size : int or "auto"
        The number of samples per step; "auto" is all samples up to 512, else 64.
    learning_rate_init : float
        The learning rate η of Adam in the first step, which decreases to 0 along a half cosine, and is constant in
        partial_fit.
    max_iter : int, optional
        The largest number of epochs, which are passes over the samples. None, the default, is as many as make 300
        steps, at least 14 and at most 40.
    tol : float
        Without early_stopping, training stops when the loss has not decreased by more than `tol` for n_iter_no_change
        epochs.
    n_iter_no_change : int
        So many epochs without improvement stop the training.
    early_stopping : bool
        Set samples aside for validation, stop when their loss has not decreased for n_iter_no_change epochs, and
        restore the best weights.
    validation_fraction : float
        The fraction of samples of each class that early_stopping sets aside.
    warm_start : bool
        Let `fit` continue with the weights and the standardisation of the last fit.
    class_weight : dict or "balanced", optional
        The weight of each class by its label, 1 for others. "balanced" gives every class the same total weight.
    backend : {"auto", "numpy", "numba", "cuda"}
        The implementation that computes; see `available_backends`.
    random_state : int, Generator or RandomState, optional
        The seed of the initial weights, of the order of the samples, and of the validation samples; None for a seed
        that differs each time.
    verbose : bool
        Show progress on standard error.

    Attributes
    ----------
    model_ : ImplicitModel
        The trained model, which takes raw samples and knows the classes. Its methods `save`, `freeze` and those
        of `idl_ref.export` serve the same predictions without this estimator.
    classes_ : (K,) array
        The labels, sorted.
    history_ : History
        The record of the last training.
    n_iter_ : int
        The number of epochs that were completed; partial_fit counts on.
    n_features_in_ : int
        The number of features p.
    feature_names_in_ : (p,) array of str
        The names of the features; only if X was a DataFrame with names, and scikit-learn is installed.

    Raises
    ------
    ValueError, TypeError
        Parameters outside their range, or samples that scikit-learn's conventions refuse, when `fit` is called.
    NotConvergedError
        A sample has no answer, when predictions are asked for. The message names the rows.

    Notes
    -----
    The features are standardised, with sample weights, by the first layer of the model, so that no scaler is needed.
    The dtype of the model is that of X, if it is float32 or float64, and float64 otherwise.
    Source: El Ghaoui et al., Implicit Deep Learning, SIAM J. Math. Data Sci. 3 (2021).

    Examples
    --------
    >>> from idl_ref import datasets
    >>> x, y = datasets.two_moons(200)
    >>> classifier = ImplicitClassifier(max_iter=100, random_state=0).fit(x, y)
    >>> classifier.score(x, y) > 0.95
    True
    >>> classifier.predict_proba(x[:1]).shape
    (1, 2)
    """

    classes_: np.ndarray

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
        class_weight: Mapping[Any, float] | str | None = None,
        backend: Backend = "auto",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            hidden_dim, activation, f=f, kappa=kappa, rank=rank, alpha=alpha, batch_size=batch_size,
            learning_rate_init=learning_rate_init, max_iter=max_iter, tol=tol, n_iter_no_change=n_iter_no_change,
            early_stopping=early_stopping, validation_fraction=validation_fraction, warm_start=warm_start,
            backend=backend, random_state=random_state, verbose=verbose,
        )  # fmt: skip
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ImplicitClassifier:
        """Train on samples X (m, p) and their labels y (m,), and return this estimator.

        A sample whose weight is a whole number k counts as k samples, and one of weight 0 as none.
        """
        self._forget()
        U, y = conventions.labelled(self, X, y, reset=True)
        found = np.unique(y)
        if hasattr(self, "model_") and not np.array_equal(found, self.classes_):
            raise ValueError(
                f"warm_start needs the classes of the last fit, {self.classes_.tolist()}; got {found.tolist()}: use "
                "warm_start=False, or partial_fit, which takes classes."
            )
        self.classes_ = found
        self._fit(self._data(U, y, sample_weight), len(found))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> ImplicitClassifier:
        """Train for one epoch on samples X (m, p) and labels y (m,), and return this estimator.

        The first call needs all `classes`, and decides on the standardisation of X, unless `fit` has done so.
        """
        fresh = not hasattr(self, "model_")
        U, y = conventions.labelled(self, X, y, reset=fresh)
        if fresh and classes is None:
            raise ValueError("classes must be all labels that will come, in the first call of partial_fit; got None.")
        found = self.classes_ if classes is None else np.unique(classes)
        if not fresh and not np.array_equal(found, self.classes_):
            raise ValueError(f"classes must stay {self.classes_.tolist()}; got {found.tolist()}: use a new estimator.")
        self.classes_ = found
        self._partial_fit(self._data(U, y, sample_weight), len(found))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits (m, K) of the classes, or for two classes (m,) the second minus the first.

        The arguments and exceptions are those of `predict`.
        """
        Y = self._outputs(X)
        return Y[:, 1] - Y[:, 0] if Y.shape[1] == 2 else Y

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities (m, K) of the classes, the softmax of the logits.

        The arguments and exceptions are those of `predict`.
        """
        Y = self._outputs(X)
        E = np.exp(Y - Y.max(axis=1, keepdims=True))
        return E / E.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the class of each sample of X (m, p), which is that of the largest logit.

        NotConvergedError is raised if the model has no answer for a sample, and names the rows.
        """
        number = self._outputs(X).argmax(axis=1)
        return self.classes_[number]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the fraction of the samples X (m, p), or of their weight, whose predicted class is their label y (m,).

        The exceptions are those of `predict` and of `fit`. A label that is not one of the classes counts as wrong.
        """
        _, y = conventions.labelled(self, X, y, reset=False)
        classes.like("y", y, self._kept())
        return super().score(X, y, weighted(sample_weight, len(y)))

    def _kept(self) -> np.ndarray:
        """Return the classes as a model keeps them."""
        return classes.checked("classes", self.classes_, len(self.classes_))

    def _data(self, U: np.ndarray, y: np.ndarray, sample_weight: Any) -> Data:
        """Return checked samples, with labels of the kind that a model keeps."""
        kept = self._kept()
        return with_weight(U, kept[classes.index("y", y, kept)], weighted(sample_weight, len(U)))

    def _prepare(self, data: Data) -> None:
        self.model_.classes = self.classes_

    def _trained(self, data: Data, validation: Data | None = None, **how: Any) -> History:
        return self._run("cross_entropy", data, validation, class_weight=self.class_weight, **how)
