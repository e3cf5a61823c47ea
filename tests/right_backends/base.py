"""What the right backends share: their table, and an iteration that stops by the residual and not by the step."""

from functools import reduce

import numpy as np

from idl_ref import activations
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.bugs.plain import registered_in
from idl_ref.conformance.truth.backend import EVERYTHING

# Other methods take other numbers of iterations than X ← φ(A X + Z) from the start does.
UNCOUNTED = EVERYTHING | {"iterations": False}
RIGHT = {}
right = registered_in(RIGHT)


def dense(factors):
    """A as one matrix.   (n, n)"""
    return reduce(np.matmul, factors)


class ByResidual(Plain):
    """Improves X until |φ(A X + Z) − X| is small, and returns that X without a further application of the map."""

    capabilities = UNCOUNTED | {"stops": "residual"}

    def improve(self, p, A, Z, X, g):
        raise NotImplementedError

    def explained(self, p, A, Z, X):
        """What rounding of A X + Z explains of the residual, which is next to nothing where φ saturates."""
        eps = 4 * np.finfo(X.dtype).eps
        spread = eps * (self.apply(tuple(map(np.abs, A)), np.abs(X)) + np.abs(Z))
        return activations.get(p.activation).change(self.apply(A, X) + Z, spread) / 2 + eps * np.abs(X)

    def equilibrium(self, p):
        A, Z = self.factors(p), self.Z(p)
        X, z, contracts = self.start(p, Z), np.abs(Z).max(axis=0, initial=0.0), self.contracts(p)
        earlier = X
        g = lambda X: self.phi(p, self.apply(A, X) + Z)  # noqa: E731
        for k in range(1, self.limit(p) + 1):
            step, noise = np.abs(g(X) - X), self.explained(p, A, Z, X)
            done = self.done(step, self.stop(p, z, noise))
            if contracts and k > 64:  # It may go round in a cycle of the last digits, of any period.
                done = done | self.back(np.abs(X - earlier), noise)
            if (done | ~np.isfinite(step).all(axis=0)).all():
                break
            if k & (k - 1) == 0:
                earlier = X
            X = np.where(done, X, self.improve(p, A, Z, X, g))
        return X, self.verdict(done, X), k
