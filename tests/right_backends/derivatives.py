"""Other ways to the gradients: linear solvers, series, unrolled iterations, complex steps, other slopes at kinks."""

import numpy as np

from idl_ref import activations
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.truth.backend import EVERYTHING
from right_backends.base import dense, right


@right
class DenseAdjoint(Plain):
    """Solves (I − diag(S) Aᵀ) V = S ∘ G of each column by LU."""

    def adjoint(self, p, S, G):
        M = np.eye(len(S), dtype=S.dtype) - S.T[:, :, None] * dense(self.transposed(self.factors(p)))
        bad = ~np.isfinite(M).all(axis=(1, 2))
        M[bad] = np.eye(len(S))
        V = np.linalg.solve(M, (S * G).T[:, :, None])[:, :, 0].T
        return np.where(bad, np.nan, V).astype(S.dtype)


@right
class GmresAdjoint(Plain):
    """Solves the adjoint equation of each column by GMRES."""

    def adjoint(self, p, S, G):
        from scipy.sparse.linalg import gmres

        V, At = np.zeros_like(G), dense(self.transposed(self.factors(p)))
        for j in range(G.shape[1]):
            s, scale = S[:, j], np.abs(G[:, j]).max(initial=0.0)
            if 0 < scale < np.inf and np.isfinite(s).all():
                M = np.eye(len(s)) - s[:, None] * At
                V[:, j] = scale * gmres(M, s * (G[:, j] / scale), rtol=1e-15, restart=len(s), maxiter=5)[0]
        return V


@right
class NeumannAdjoint(Plain):
    """Adds the series V = Σ (diag(S) Aᵀ)ᵏ S ∘ G; the next term is the residual."""

    capabilities = EVERYTHING | {"stops": "residual"}

    def adjoint(self, p, S, G):
        At = self.transposed(self.factors(p))
        V = term = S * G
        g = np.abs(G).max(axis=0, initial=0.0)
        for _ in range(p.max_iter):
            term = S * self.apply(At, term)
            if np.all((np.abs(term) <= self.stop(p, g, self.noise(At, S, G, V) / 4)) | np.isnan(term)):
                break
            V = V + term
        return V


@right
class Unrolled(Plain):
    """Differentiates the iteration itself, backwards through twice as many steps as it needs."""

    def vjp(self, p, G_Y):
        with np.errstate(all="ignore"):
            A, Z = self.factors(p), self.Z(p)
            X, _, k = self.equilibrium(p)
            trail = [self.start(p, Z)]
            for _ in range(2 * k + 60):
                trail.append(self.phi(p, self.apply(A, trail[-1]) + Z))
            At, G, total, sums = self.transposed(A), self.G(p, G_Y), np.zeros_like(Z), []
            for X in reversed(trail[:-1]):
                V = self.slope(p, self.apply(A, X) + Z) * G
                G, total = self.apply(At, V), total + V
                sums.append(self.factor_gradients(A, X, V))
            out = self.gradients(p, trail[-1], total, G_Y)
            return out | self.raw(p, tuple(sum(reversed(terms)) for terms in zip(*sums, strict=True)))


@right
class DualNumbers(Plain):
    """Iterates all equations in which one entry has a tangent, held as an imaginary part that is too small to act."""

    capabilities = EVERYTHING | {"dtypes": ["float64"], "f": (), "subnormal": False}
    h, most = 1e-150, 64  # units; more equations at once take too much memory

    def vjp(self, p, G_Y):
        if len(p.B) > self.most:
            return super().vjp(p, G_Y)
        with np.errstate(all="ignore"):
            steps = 2 * self.equilibrium(p)[2] + 60
            return {name: self.slopes(p, name, G_Y, steps) for name in p.arrays if name != "X0"}

    def phi(self, p, P):
        real = super().phi(p, P.real)
        return real + 1j * self.slope(p, P.real) * P.imag if np.iscomplexobj(P) else real

    def slopes(self, p, name, G_Y, steps):
        M = p.arrays[name]
        W = dict(p.arrays, **{name: M + 1j * self.h * np.eye(M.size).reshape(M.size, *M.shape)})
        X, Z = self.start(p, p.B @ p.U), W["B"] @ W["U"]
        for _ in range(steps):
            X = self.phi(p, Z + (W["A"] @ X if "A" in W else W["L"] @ (np.swapaxes(W["R"], -1, -2) @ X)) + 0j)
        Y = W["C"] @ X + (W["D"] @ W["U"] if "D" in W else 0)
        columns = (G_Y * Y.imag / self.h).sum(axis=-2).reshape(*M.shape, p.U.shape[1])  # what each sample contributes
        return np.einsum("ijj->ij", columns) if name == "U" else columns.sum(axis=-1)


class AtKinks(Plain):
    """Replaces φ′ at a kink by another number between the one-sided slopes."""

    share = 1.0

    def slope(self, p, P):
        low, kinks = super().slope(p, P), activations.get(p.activation).kinks
        for kink in kinks:
            sides = [super(AtKinks, self).slope(p, np.array(kink + way, P.dtype)) for way in (-0.5, 0.5)]
            low = np.where(kink == P, min(sides) + self.share * (max(sides) - min(sides)), low).astype(P.dtype)
        return low


@right
class LargerSlope(AtKinks):
    """φ′ at a kink is the larger of the one-sided slopes."""

    capabilities = EVERYTHING | {"phi0": 1.0}


@right
class MeanSlope(AtKinks):
    """φ′ at a kink is the mean of the one-sided slopes, as in symmetric differences."""

    capabilities, share = EVERYTHING | {"phi0": 0.5}, 0.5
