"""This module has the estimator for regression."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref import targets
from idl_ref.columns import Columns
from idl_ref.estimators.base import Data, Implicit, conventions, weighted, with_weight
from idl_ref.train import History


class ImplicitRegressor(conventions.MultiOutputMixin, conventions.RegressorMixin, Implicit):
    """Regression by an implicit model, X = φ(A X + B U) and Ŷ = C X + D U, with scikit-learn's conventions.

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
        epochs. The loss is the mean squared error in units of the standard deviation of y.
    n_iter_no_change : int
        So many epochs without improvement stop the training.
    early_stopping : bool
        Set samples aside for validation, stop when their loss has not decreased for n_iter_no_change epochs, and
        restore the best weights.
    validation_fraction : float
        The fraction of samples that early_stopping sets aside.
    warm_start : bool
        Let `fit` continue with the weights and the standardisation of the last fit.
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
        The trained model, which takes raw samples and answers in the units of y. Its methods `save`, `freeze` and those
        of `idl_ref.export` serve the same predictions without this estimator.
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
    The dtype of the model is that of X, if it is float32 or float64, and float64 otherwise; also where the differences
    between the targets are so small beside their mean that float32 would lose them.
    The targets are trained as (y − mean)/scale, and both numbers are folded into C and D afterwards.
    Source: El Ghaoui et al., Implicit Deep Learning, SIAM J. Math. Data Sci. 3 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-3, 3, 100)[:, None]
    >>> regressor = ImplicitRegressor(max_iter=100, random_state=0).fit(x, 1000 * np.sin(x[:, 0]))
    >>> regressor.score(x, 1000 * np.sin(x[:, 0])) > 0.95
    True
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ImplicitRegressor:
        """Train on samples X (m, p) and numbers y, (m,) or (m, q), and return this estimator.

        A sample whose weight is a whole number k counts as k samples, and one of weight 0 as none.
        """
        self._forget()
        data = self._data(X, y, sample_weight, reset=True)
        self._fit(data, data.y.shape[1])
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> ImplicitRegressor:
        """Train for one epoch on samples X (m, p) and numbers y, and return this estimator.

        The first call decides on the standardisation of X and on the units of y, unless `fit` has done so.
        """
        data = self._data(X, y, sample_weight, reset=not hasattr(self, "model_"))
        self._partial_fit(data, data.y.shape[1])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted numbers for samples X (m, p), in the shape that y had.

        NotConvergedError is raised if the model has no answer for a sample, and names the rows.
        """
        Y = self._outputs(X)
        return Y[:, 0] if self._flat else Y

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R² of the predictions for samples X (m, p), whose numbers are y, (m,) or (m, q).

        R² = 1 − Σ w (y − ŷ)² / Σ w (y − ȳ)² for the weights w of the samples and the mean ȳ, and its mean over the q
        columns. The exceptions are those of `predict` and of `fit`.
        """
        U, T = conventions.measured(self, X, y, reset=False)
        if T.size != len(U) * self.model_.output_dim:
            raise ValueError(f"y must have {self.model_.output_dim} numbers per sample; got shape {T.shape}.")
        return super().score(X, T, weighted(sample_weight, len(T)))

    def _data(self, X: Any, y: Any, sample_weight: Any, reset: bool) -> Data:
        """Return checked samples, with targets of shape (m, q)."""
        U, T = conventions.measured(self, X, y, reset)
        self._flat = T.ndim == 1
        return with_weight(U, T.reshape(len(T), -1).astype(np.float64), weighted(sample_weight, len(U)))

    def _dtype(self, data: Data) -> Any:
        """Return the dtype of the samples, or float64 for targets whose differences float32 loses beside their mean."""
        return np.dtype(np.float64) if targets.need_float64(data.y) else data.U.dtype

    def _prepare(self, data: Data) -> None:
        self.model_.columns = self._columns(data.y.shape[1])
        self._units = targets.scale(data.y, data.weights), targets.mean(data.y, data.weights)
        targets.start(self.model_, data.y, data.weights)

    def _columns(self, q: int) -> Columns | None:
        """Return the columns by which the command line knows that the model predicts numbers, and which ones.

        They are not needed where X had no names and there is one output, which is a number in any case.
        """
        known = getattr(self, "feature_names_in_", None)
        if known is None and q == 1:
            return None
        names = (f"x{i}" for i in range(self.n_features_in_)) if known is None else map(str, known)
        return Columns.of_numbers(names, q)

    def _trained(self, data: Data, validation: Data | None = None, **how: Any) -> History:
        scale, mean = self._units
        data = data._replace(y=(data.y - mean) / scale)
        if validation is not None:
            validation = validation._replace(y=(validation.y - mean) / scale)
        with targets.scaled(self.model_, scale, mean):
            return self._run("mse", data, validation, **how)
