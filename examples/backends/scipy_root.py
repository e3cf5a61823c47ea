"""These two backends are SciPy's root finders: MINPACK's hybrid method, and a Newton–Krylov method with GMRES.

idl-ref conformance run --backend examples.backends.scipy_root:ScipyRoot \
    --expected-failures examples/backends/expected/scipy_root.json
idl-ref conformance run --backend examples.backends.scipy_root:ScipyKrylov \
    --expected-failures examples/backends/expected/scipy_krylov.json
"""

from functools import reduce

import numpy as np
from scipy.optimize import root
from scipy.sparse.linalg import gmres

from idl_ref import activations


class ScipyRoot:
    """Finds the root of x − φ(A x + z) in float64, column by column, in units of ‖z‖∞, and V by LU factorisations."""

    name, method, options = "SciPy root", "hybr", {"xtol": 1e-15}
    capabilities = {"stops": "residual", "phi0": 0.0}  # noqa: RUF012

    def _solve(self, p):
        phi, A = activations.get(p.activation), reduce(np.matmul, [F.astype(np.float64) for F in p.factors])
        Z = p.B.astype(np.float64) @ p.U
        X, residual, scale = np.zeros(Z.shape), np.zeros(Z.shape), np.abs(Z).max(axis=0, initial=0)
        for j in np.flatnonzero(np.isfinite(scale)):
            z, s = Z[:, j], scale[j] or 1.0
            found = root(lambda x: x - phi.phi(s * (A @ x) + z) / s, 0 * z, method=self.method, options=self.options)  # noqa: B023
            X[:, j], residual[:, j] = s * found.x, s * np.abs(found.fun)
        X[:, ~np.isfinite(scale)] = np.nan
        stop = np.maximum(p.tol * np.minimum(1, scale), 4 * np.finfo(p.dtype).eps * (np.abs(A) @ np.abs(X) + np.abs(Z)))
        return A, X, phi.slope(A @ X + Z), (residual <= stop).all(axis=0) & np.isfinite(X).all(axis=0)

    def forward(self, p):
        _, X, _, converged = self._solve(p)
        Y = p.C @ X + (0 if p.D is None else p.D @ p.U)
        return {"X": X.astype(p.dtype), "Y": Y.astype(p.dtype), "converged": converged}

    def _adjoint(self, M, g):
        """Solve M v = g."""
        return np.linalg.solve(M, g)

    def vjp(self, p, G_Y):
        A, X, S, _ = self._solve(p)
        G = S * (p.C.T.astype(np.float64) @ G_Y)
        V = [self._adjoint(np.eye(len(s)) - s[:, None] * A.T, g) for s, g in zip(S.T, G.T, strict=True)]
        V = np.array(V).reshape(G.T.shape).T
        out = {"B": V @ p.U.T, "C": G_Y @ X.T, "U": p.B.T @ V + (0 if p.D is None else p.D.T @ G_Y)}
        out |= {"A": V @ X.T} if p.L is None else {"L": V @ (p.R.T @ X).T, "R": X @ (p.L.T @ V).T}
        out |= {} if p.D is None else {"D": G_Y @ p.U.T}
        return {name: M.astype(p.dtype) for name, M in out.items()}


class ScipyKrylov(ScipyRoot):
    """Multiplies by A only: by `newton_krylov` forward, and by GMRES backward."""

    name, method, options = (
        "SciPy newton_krylov",
        "krylov",
        {"fatol": 1e-14, "maxiter": 200, "jac_options": {"method": "gmres"}},
    )

    def _adjoint(self, M, g):
        scale = np.abs(g).max(initial=0) or 1.0
        return scale * gmres(M, g / scale, rtol=1e-15, restart=len(g), maxiter=5)[0]
