"""This module has the Predictor, a frozen copy of a model for serving, which is immutable and thread-safe."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from idl_ref import activations, checks
from idl_ref import preprocessing as first
from idl_ref.backends.numpy.one_sample import G_NORM, ITERATIONS, STEP, TOL, U_NORM, X_NORM, Z_NORM
from idl_ref.certificate import OutputBound, column_max
from idl_ref.choices import TwinName
from idl_ref.classes import checked
from idl_ref.factors import is_finite
from idl_ref.preprocessing import Standardise
from idl_ref.settings import Settings
from idl_ref.solution import Status, report
from idl_ref.sparse import Sparse
from idl_ref.weights import ForwardPass, Weights

if TYPE_CHECKING:
    from idl_ref.columns import Columns

__all__ = ["Prediction", "Predictor"]

_GOES_ON = int(Status.MAX_ITER)


@dataclass(frozen=True, eq=False)
class Prediction:
    """The outputs of `Predictor.certified`, with an error bound and a status for each sample.

    Attributes
    ----------
    Y : (m, q) array
        The outputs Ŷ, one row per sample; NaN where the status is NONFINITE.
    error_bound : (m,) float64 array
        A bound of the error of the row in the ∞-norm. The exact output is that of the model in real arithmetic, at its
        true equilibrium. The bound is inf where the map could not be shown to be a contraction. The module
        `idl_ref.certificate` has the formula.
    status : (m,) int8 array
        The `Status` of each sample; MAX_ITER also if the time limit ended the iteration.
    iterations : (m,) int array
        Number of applications of the map for each sample.
    step : (m,) float64 array
        Largest change of an entry of the hidden state in the last iteration, for each sample.
    """

    Y: np.ndarray
    error_bound: np.ndarray
    status: np.ndarray
    iterations: np.ndarray
    step: np.ndarray

    @property
    def converged(self) -> bool:
        """True if every sample converged."""
        return bool((self.status <= int(Status.PRECISION_LIMIT)).all())


class Predictor:
    """A frozen copy of a model for serving, as `ImplicitModel.freeze` returns it: Ŷ = C X + D U with X = φ(A X + B U).

    A Predictor is immutable, and may be called from several threads at once and in a forked child process. The results
    do not depend on concurrent calls. Each call takes its own scratch arrays, which later calls reuse.

    Parameters
    ----------
    settings : Settings
        The settings of the model.
    weights : Weights
        The effective weights, which are copied.
    preprocessing : Standardise, optional
        The preprocessing of the model, which is applied to the inputs.
    classes : (q,) array, optional
        The classes of the model.
    columns : Columns, optional
        The columns of the table that the inputs come from.

    Attributes
    ----------
    backend : str
        The name of the backend that computes, never "auto".
    weights : mapping
        Read-only copies of B, C and, unless no_D, D, by name.

    Raises
    ------
    ValueError
        Weights that are not finite, or backend="cuda".

    Examples
    --------
    >>> import numpy as np
    >>> import idl_ref
    >>> model = idl_ref.ImplicitModel(4, 3, 20, seed=0)
    >>> predictor = model.freeze()
    >>> predictor(np.ones((5, 4))).shape
    (5, 3)
    >>> prediction = predictor.certified(np.ones((1, 4)))
    >>> bool(prediction.error_bound[0] < 1e-3), prediction.converged
    (True, True)
    """

    settings: Settings
    preprocessing: Standardise | None
    classes: np.ndarray | None
    columns: Columns | None
    backend: TwinName
    weights: Mapping[str, np.ndarray]

    def __init__(
        self,
        settings: Settings,
        weights: Weights,
        preprocessing: Standardise | None = None,
        classes: np.ndarray | None = None,
        columns: Columns | None = None,
    ) -> None:
        backend = settings.resolved_backend()
        if backend == "cuda":
            raise ValueError(
                'freeze() needs a backend that computes on the CPU; got backend="cuda": '
                'use model.settings = dataclasses.replace(model.settings, backend="auto").'
            )
        self.settings, self.backend = settings, backend
        self.preprocessing = first.attached(preprocessing, settings.input_dim, settings.dtype)
        self.classes = None if classes is None else checked("classes", classes, settings.output_dim)
        if columns is not None:  # The module is imported here, because most models have no columns.
            from idl_ref.columns import attached

            columns = attached(columns, settings.input_dim)
        self.columns = columns
        factors, B, C, D, bias = weights
        named = {name: _copied(name, W) for name, W in (("B", B), ("C", C), ("D", D)) if W is not None}
        self.weights = MappingProxyType({name: _read_only(W) for name, W in named.items()})
        self._answer = 1, settings.output_dim
        own = Weights(tuple([_copied("A", F) for F in factors]), named["B"], named["C"], named.get("D"), bias)
        self.layer = settings.layer(own)
        self._bound = OutputBound.of(*own[:4], activations.get(settings.activation), preprocessing is not None)
        self.layer.prepare()
        self._one = self.layer.one_sample()  # This must be the last assignment: after it, __setattr__ refuses others.

    def __setattr__(self, name: str, value: Any) -> None:
        if "_one" in self.__dict__:
            raise AttributeError(f"a Predictor cannot be changed; got {name} = …: freeze the changed model again.")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Predictor cannot be changed; got del {name}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return Predictor, (self.settings, self.layer.weights, self.preprocessing, self.classes, self.columns)

    def __repr__(self) -> str:
        s = self.settings
        return f'Predictor({s.input_dim}, {s.output_dim}, {s.hidden_dim}, dtype="{s.dtype}", backend="{self.backend}")'

    def __call__(self, U: Any) -> np.ndarray:
        """Return the outputs Ŷ (m, q) for inputs U (m, p), with samples as rows.

        Parameters
        ----------
        U : (m, p) array
            Inputs. For a model with preprocessing, they are raw samples, and may have shape (m, …).

        Raises
        ------
        ValueError, TypeError
            A wrong shape or dtype.
        NotConvergedError
            A sample did not converge, and the model has on_failure="raise".

        Warns
        -----
        ConvergenceWarning
            Samples did not converge, and the model has on_failure="warn".

        Notes
        -----
        Cost: the same as `ImplicitModel.forward`. One function call takes a single sample from U to Ŷ.
        """
        U = self._rows(U)
        if len(U) == 1 and self._one is not None:
            Y = np.empty(self._answer, U.dtype)
            if self._one(U, Y):
                return Y
        forward = self.layer.forward(U.T)
        report(forward.solution, self.layer.weights.factors, self.settings.options.forward, "forward", "mitr")
        return forward.Y.T

    def certified(self, U: Any, seconds: float | None = None) -> Prediction:
        """Return the outputs Ŷ (m, q) with an error bound, a status and an iteration count for each sample.

        A sample that does not converge causes neither a warning nor an exception; its status tells it.

        Parameters
        ----------
        U : (m, p) array
            Inputs. For a model with preprocessing, they are raw samples, and may have shape (m, …).
        seconds : float, optional
            A time limit. The iteration stops if the next iterations are expected to take longer than the time that is
            left, judged by the speed of the iterations so far; the best iterate of each sample is then returned. At
            least one application of the map is computed, or the one sweep of substitution for a triangular A.

        Returns
        -------
        Prediction
            The error bounds are in the ∞-norm of each row.

        Raises
        ------
        ValueError, TypeError
            A wrong shape or dtype, or a negative time.

        Notes
        -----
        Cost: that of a call, and O((n + p + q) m) flops for the bounds. `idl_ref.certificate` derives the bounds.

        Examples
        --------
        >>> import numpy as np
        >>> import idl_ref
        >>> predictor = idl_ref.ImplicitModel(4, 3, 20, seed=0).freeze()
        >>> hurried = predictor.certified(np.ones((1, 4)), seconds=0)
        >>> hurried.iterations, bool(hurried.error_bound[0] < np.inf)
        (array([1]), True)
        """
        start = time.perf_counter()
        U = self._rows(U)
        if seconds is None and len(U) == 1 and self._one is not None:
            Y, measured = np.empty(self._answer, U.dtype), np.empty(TOL + 1)
            if self._one(U, Y, measured):
                return self._certificate(Y, measured)
        if seconds is None:
            forward = self.layer.forward(U.T)
        else:
            forward = self._within(U.T, start, start + checks.number("seconds", seconds, 0))
        solution = forward.solution
        u = column_max(forward.U).astype(np.float64)
        g = column_max(solution.X).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            state = solution.error_bound + self._bound.of_input(u)
            bound = self._bound.output(state, g, u)
        bound = np.where(np.isfinite(bound), bound, np.inf)
        return Prediction(forward.Y.T, bound, solution.status, solution.iterations, solution.step)

    def _rows(self, U: Any) -> np.ndarray:
        """Return U (m, p), preprocessed and in the model's dtype, and C-contiguous if it is one sample."""
        s, pre = self.settings, self.preprocessing
        p, dtype = s.input_dim, s.dtype
        U = checks.samples("U", U, "p", p, dtype) if pre is None else pre.inputs("U", U, p, dtype)
        return U if len(U) != 1 or U.flags.carray else np.array(U, order="C")

    def _within(self, U: np.ndarray, start: float, deadline: float) -> ForwardPass:
        """Return, for every column, the iterate with the smallest step before the deadline, and its output.   U (p, m)

        The iterations run in chunks of 1, 2, 4, … applications, and the time is read after each chunk.
        """
        options, layer = self.settings.options.forward, self.layer
        U = layer.inputs(U)
        with np.errstate(over="ignore", invalid="ignore"):
            equation = layer.equation(layer.constant(U))
        best = layer.solve(equation, None, replace(options, max_iter=1))
        X, status, step = best.X.copy(), best.status, best.step
        running, now = np.flatnonzero(status == _GOES_ON), time.perf_counter()
        current, chunk, spent, rate = X[:, running], 1, 1, now - start
        while running.size:
            # One application's time is reserved for the readout.
            chunk = min(2 * chunk, options.max_iter - spent, int((deadline - now) / rate) - 1)
            if chunk < 1:
                break
            part = layer.solve(equation.take(running), current, replace(options, max_iter=chunk))
            now, before, spent = time.perf_counter(), now, spent + chunk
            rate = (now - before) / max(1, int(part.iterations.max()))
            best.iterations[running] += part.iterations
            better = (part.step <= step[running]) | part.succeeded
            index = running[better]
            X[:, index], step[index], status[index] = part.X[:, better], part.step[better], part.status[better]
            best.error_bound[index] = part.error_bound[better]
            goes_on = part.status == _GOES_ON
            running, current = running[goes_on], part.X[:, goes_on]
        with np.errstate(over="ignore", invalid="ignore"):
            return layer.readout(U, equation.Z, replace(best, X=X))

    def _certificate(self, Y: np.ndarray, measured: np.ndarray) -> Prediction:
        """Return the Prediction for one sample, from the norms that the call for one sample measured."""
        step, x, z, g, u = (measured[i] for i in (STEP, X_NORM, Z_NORM, G_NORM, U_NORM))
        bound = self._bound.output(self._bound.state(step, x, z, g, u), g, u)
        status = Status.CONVERGED if step <= self.settings.tol else Status.PRECISION_LIMIT
        iterations = np.array([measured[ITERATIONS]], np.intp)
        return Prediction(Y, np.array([bound]), np.array([status], np.int8), iterations, np.array([step]))


def _copied(name: str, W: Any) -> Any:
    """Return a copy of a weight, and refuse one that is not finite."""
    if not is_finite(W):
        raise ValueError(f"{name} must be finite for predictions; got NaN or inf: the training has diverged.")
    return W.with_data(W.data.copy()) if isinstance(W, Sparse) else np.array(W, order="C")


def _read_only(W: np.ndarray) -> np.ndarray:
    """Return a read-only view of a weight; a compiled layer would copy a read-only array in every call."""
    view = W.view()
    view.flags.writeable = False
    return view
