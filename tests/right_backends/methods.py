"""Other methods for X = φ(A X + Z): relaxation, Newton, bisection, other starts and other ways to stop."""

import numpy as np

from idl_ref.conformance.adapters import Plain
from right_backends.base import UNCOUNTED, ByResidual, dense, right


@right
class GaussSeidel(ByResidual):
    """Updates one unit after the other, each from the newest values of all others."""

    def improve(self, p, A, Z, X, g):
        A, X = dense(A), X.copy()
        for i in range(len(X)):
            X[i] = self.phi(p, A[i] @ X + Z[i])
        return X


@right
class SymmetricGaussSeidel(ByResidual):
    """Sweeps down and up again."""

    def improve(self, p, A, Z, X, g):
        A, X = dense(A), X.copy()
        for i in [*range(len(X)), *reversed(range(len(X)))]:
            X[i] = self.phi(p, A[i] @ X + Z[i])
        return X


@right
class Chaotic(ByResidual):
    """Updates units in a random order, another one in each sweep."""

    capabilities = ByResidual.capabilities | {"deterministic": False}

    def improve(self, p, A, Z, X, g):
        A, X = dense(A), X.copy()
        for i in np.random.default_rng().permutation(len(X)):
            X[i] = self.phi(p, A[i] @ X + Z[i])
        return X


@right
class Damped(ByResidual):
    """Goes three quarters of each step, for which it takes more iterations than Picard; it reports no counts."""

    def improve(self, p, A, Z, X, g):
        return X + (g(X) - X) * X.dtype.type(0.75)

    def limit(self, p):
        return 2 * p.max_iter

    def forward(self, p):
        out = super().forward(p)
        return {name: out[name] for name in ("X", "Y", "converged")}


@right
class Newton(ByResidual):
    """Solves (I − diag(φ′) A) step = g(X) − X for each column, and takes Picard's step where that one is no better."""

    def improve(self, p, A, Z, X, g):
        M, G, S = dense(A), g(X), self.slope(p, self.apply(A, X) + Z)
        try:
            step = np.linalg.solve(np.eye(len(X), dtype=X.dtype) - S.T[:, :, None] * M, (G - X).T[:, :, None])
        except np.linalg.LinAlgError:
            return G
        trial = X + step[:, :, 0].T
        better = np.abs(g(trial) - trial).max(axis=0) < np.abs(G - X).max(axis=0)
        return np.where(better, trial, G)


@right
class Bisected(Plain):
    """Finds the one unit of a scalar equation by bisection, because x − φ(a x + z) increases with x where |a| < 1."""

    capabilities = UNCOUNTED

    def equilibrium(self, p):
        (a, *rest), Z = dense(self.factors(p)).ravel(), self.Z(p)
        if rest or abs(a) >= 1:
            return super().equilibrium(p)
        reach = np.abs(self.phi(p, Z)) / (1 - abs(a)) + np.finfo(Z.dtype).smallest_subnormal
        low, high = -reach, reach
        for _ in range(1200):
            X = low + (high - low) / 2
            above = self.phi(p, a * X + Z) > X
            low, high = np.where(above, X, low), np.where(above, high, X)
        return self.phi(p, a * X + Z), np.isfinite(X).all(axis=0), 1


@right
class Aitken(ByResidual):
    """Extrapolates each column by the ratio of its last two steps, where that makes the residual smaller."""

    def improve(self, p, A, Z, X, g):
        G = g(X)
        H = g(G)
        ratio = ((H - G) * (G - X)).sum(axis=0) / np.maximum(((G - X) ** 2).sum(axis=0), np.finfo(X.dtype).tiny)
        trial = H + (H - G) * (ratio / (1 - ratio)).astype(X.dtype)
        return np.where(np.abs(g(trial) - trial).max(axis=0) < np.abs(g(H) - H).max(axis=0), trial, H)


@right
class TenMore(Plain):
    """Applies the map ten more times after the rule is met."""

    def iterate(self, g, noise, Z, X, p):
        X, converged, k = super().iterate(g, noise, Z, X, p)
        for _ in range(10 if self.contracts(p) else 0):
            X = g(X)
        return X, converged, k


@right
class Tight(Plain):
    """Iterates until rounding explains the step, whatever tol allows."""

    capabilities = UNCOUNTED

    def stop(self, p, z, noise):
        return noise


@right
class FromOnes(Plain):
    """Starts from ones where no start is given."""

    capabilities = UNCOUNTED

    def start(self, p, Z):
        return np.ones_like(Z) if p.X0 is None else p.X0


@right
class FromTheLastCall(Plain):
    """Starts from the answer to the previous call where that has the right shape, as a server of streams does."""

    capabilities = UNCOUNTED | {"deterministic": False}
    last = np.zeros((0, 0))

    def start(self, p, Z):
        fits = self.last.shape == Z.shape and self.last.dtype == Z.dtype and np.isfinite(self.last).all()
        return self.last if p.X0 is None and fits else super().start(p, Z)

    def forward(self, p):
        out = super().forward(p)
        self.last = out["X"].copy()
        return out
