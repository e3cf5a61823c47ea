"""SciPy's solvers: each gives a start, column by column, from which the stopping rule is met in a few applications."""

import numpy as np

from idl_ref.conformance.adapters import Plain
from right_backends.base import UNCOUNTED, dense, right


class ScipyStart(Plain):
    """Finds a root of x − φ(A x + z), scaled by ‖z‖∞, by one of SciPy's solvers, and goes on from there."""

    capabilities = UNCOUNTED | {"X0": False}
    method = "hybr"
    options: dict = {}  # noqa: RUF012

    def start(self, p, Z):
        from scipy.optimize import root

        A, X = dense(self.factors(p)).astype(np.float64), np.zeros(Z.shape)
        for j, z in enumerate(Z.T.astype(np.float64)):
            scale = np.abs(z).max(initial=0.0)
            if 0 < scale < np.inf and np.finfo(p.dtype).tiny < scale:
                f = lambda x: x - self.phi(p, scale * (A @ x) + z) / scale  # noqa: B023, E731
                found = scale * root(f, np.zeros(len(z)), method=self.method, options=self.options).x
                X[:, j] = np.where(np.abs(found).max() < np.finfo(p.dtype).max, found, 0)  # else, or if NaN, from 0
        return X.astype(p.dtype)


@right
class ScipyHybr(ScipyStart):
    """Powell's hybrid method of MINPACK."""


@right
class ScipyLevenberg(ScipyStart):
    """The method of Levenberg and Marquardt."""

    method = "lm"


@right
class ScipyKrylov(ScipyStart):
    """A Newton–Krylov method."""

    method, options = "krylov", {"fatol": 1e-12, "maxiter": 20}


@right
class ScipyAnderson(ScipyStart):
    """Anderson mixing."""

    method, options = "anderson", {"fatol": 1e-12, "maxiter": 50}


@right
class ScipyBroyden(ScipyStart):
    """Broyden's first method."""

    method, options = "broyden1", {"fatol": 1e-12, "maxiter": 50}
