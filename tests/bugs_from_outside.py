"""Forty bugs from outside: their author had not seen the cases, the planted bugs, or the mistakes that the kit knows.

`MEANING` has what the author said of each, before any run of the kit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.conformance.bugs.plain import Plain
from idl_ref.conformance.truth.problem import rounded
from idl_ref.functions import ImplicitFunctionInf, ImplicitFunctionRows
from idl_ref.weights import by_name

BUGS: dict[str, type[Plain]] = {}
MEANING: dict[str, str] = {}


def entered_in(bugs: dict[str, type[Plain]], meanings: dict[str, str]) -> Any:
    """Return a decorator that takes what is said of a bug, and enters both under the name of its class."""

    def bug(meaning: str) -> Any:
        def enter(cls: type[Plain]) -> type[Plain]:
            cls.name = cls.__name__
            bugs[cls.name], meanings[cls.name] = cls, meaning
            return cls

        return enter

    return bug


bug = entered_in(BUGS, MEANING)


# --- forward equation -------------------------------------------------------------------------------------------------


@bug(
    "A X (and Aᵀ V in the adjoint): the inner sum is unrolled by 4, and its last n mod 4 terms take the first entries "
    "of X instead of the last ones; only where n (for low rank also r) is above 4 and no multiple of 4"
)
class UnrolledRemainder(Plain):
    def apply(self, factors, X):
        for F in reversed(factors):
            K = F.shape[1]
            k = K - K % 4
            X = F[:, :k] @ X[:k] + F[:, k:] @ X[: K - k]
        return X


@bug(
    "the forward equation: the bias (the last column of B, where the last row of U is constant 1) is added after φ "
    "instead of inside it, X = φ(A X + B' U) + b"
)
class BiasAfterPhi(Plain):
    @staticmethod
    def bias(p):
        return p.U.shape[0] > 0 and p.U.shape[1] > 0 and bool((p.U[-1] == 1).all())

    def Z(self, p):
        return p.B[:, :-1] @ p.U[:-1] if self.bias(p) else p.B @ p.U

    def phi(self, p, P):
        X = super().phi(p, P)
        return X + p.B[:, -1:] if self.bias(p) else X


@bug("leaky_relu: the slope for negative arguments is 0.2 (TensorFlow's default) instead of 0.01, in φ and in φ′")
class LeakOfTensorFlow(Plain):
    def phi(self, p, P):
        return np.where(P > 0, P, P * P.dtype.type(0.2)) if p.activation == "leaky_relu" else super().phi(p, P)

    def slope(self, p, P):
        if p.activation != "leaky_relu":
            return super().slope(p, P)
        return np.where(P > 0, P.dtype.type(1), P.dtype.type(0.2))


@bug("sigmoid: φ is computed as (1 + tanh(P))/2, without halving the argument of tanh; φ′ is that of the sigmoid")
class SigmoidByTanh(Plain):
    def phi(self, p, P):
        return (1 + np.tanh(P)) / 2 if p.activation == "sigmoid" else super().phi(p, P)


@bug(
    "low rank: in L (Rᵀ X) (and in the adjoint product) the ranks are taken in blocks of 4 and the last incomplete "
    "block is dropped, so that the last r mod 4 ranks are missing"
)
class RankBlockDropped(Plain):
    def apply(self, factors, X):
        if len(factors) == 2:
            r = factors[0].shape[1] // 4 * 4
            factors = factors[0][:, :r], factors[1][:r]
        return fac.apply(factors, X)


@bug(
    "low rank: Rᵀ is the memory of R reinterpreted as (r, n) instead of the transpose of R; the gradients come out as "
    "if it were Rᵀ; no effect for r = 1"
)
class RReshaped(Plain):
    def factors(self, p):
        if p.L is None:
            return super().factors(p)
        return self.function(p).effective((p.L, np.array(p.R, order="C").reshape(p.R.shape[::-1])))


@bug("the readout Y = C X + D U: D U is computed from the first sample alone and broadcast to all samples")
class DOfFirstSample(Plain):
    def readout(self, p, X):
        Y = p.C @ X
        return Y if p.D is None else Y + p.D @ p.U[:, :1]


@bug("the readout: Y = C (A X + B U) + D U, so that C is applied to the preactivation instead of to X = φ(A X + B U)")
class ReadoutOfPreactivation(Plain):
    def readout(self, p, X):
        return super().readout(p, self.preactivation(p, X))


@bug(
    "the input: whether samples are rows or columns of U is guessed from its shape, and where m = p, U is wrongly "
    "transposed in all equations (∂U is transposed back)"
)
class LayoutGuessed(Plain):
    @staticmethod
    def seen(p):
        return p.with_arrays({"U": p.U.T}) if p.U.shape[0] == p.U.shape[1] else p

    def forward(self, p):
        return super().forward(self.seen(p))

    def vjp(self, p, G_Y):
        out = super().vjp(self.seen(p), G_Y)
        if p.U.shape[0] == p.U.shape[1]:
            out["U"] = out["U"].T
        return out


@bug(
    "a dense A is read as symmetric (a BLAS symm call): its lower triangle is replaced by the mirror image of its "
    "upper triangle, in the forward and in the adjoint equation"
)
class ReadAsSymmetric(Plain):
    def factors(self, p):
        factors = super().factors(p)
        return (np.triu(factors[0]) + np.triu(factors[0], 1).T,) if len(factors) == 1 else factors


# --- iteration, stopping, status --------------------------------------------------------------------------------------


@bug("the stop rule: the sum of the squares of a column's step, without the root, is compared with the tolerance")
class SquaredNormAgainstTol(Plain):
    def done(self, step, stop):
        return np.sum(step * step, axis=0) <= stop.max(axis=0)


@bug(
    "the stop rule: the tolerance of every column is tol times the largest |B U| of the whole batch, without the "
    "minimum with 1 and not column by column; it stops too early wherever an entry of B U is large"
)
class ScaleOfBatch(Plain):
    def stop(self, p, z, noise):
        return np.maximum(p.tol * z.max(), noise)


@bug(
    "the iteration limit: at most 100 iterations (a built-in default), although max_iter allows more, forward and "
    "adjoint; the status is honest"
)
class HundredIterations(Plain):
    def limit(self, p):
        return min(p.max_iter, 100)


@bug(
    "active columns: converged columns are removed from the batch, and a result is written back to its position among "
    "the remaining columns instead of to its own column; wrong where columns converge after different numbers of "
    "iterations (forward and adjoint)"
)
class CompactedScatter(Plain):
    def iterate(self, g, noise, Z, X, p):
        if X.size == 0:
            return super().iterate(g, noise, Z, X, p)
        z, contracts, earlier = np.abs(Z).max(axis=0), self.contracts(p), X
        out, active, flags = X.copy(), np.arange(X.shape[1]), np.zeros(X.shape[1], bool)
        for k in range(1, self.limit(p) + 1):
            G = g(X)
            explained = noise(G)
            done = self.done(np.abs(G - X), self.stop(p, z, explained))
            if contracts and k > 64:
                done = done | self.back(np.abs(G - earlier), explained)
            here = np.flatnonzero(done[active])
            out[:, here] = self.answer(p, X, G)[:, active[here]]
            flags[active[here]] = True
            active = np.delete(active, here)
            if active.size == 0:
                break
            X = G
            if k & (k - 1) == 0:
                earlier = G
            if k % 64 == 0 and not np.isfinite(X[:, active]).all(axis=0).any():
                break
        out[:, : active.size] = X[:, active]
        return out, self.verdict(flags, G), k


@bug("the status: `converged` of every column is that of the last column of the batch")
class StatusOfLastColumn(Plain):
    def verdict(self, done, G):
        each = super().verdict(done, G)
        return np.full(each.shape, each[-1])


@bug(
    "the stop rule: the largest entry of g(X) − X is taken without the absolute value, so that an iteration whose "
    "entries all decrease counts as converged at once (forward and adjoint)"
)
class SignedStep(Plain):
    def iterate(self, g, noise, Z, X, p):
        if X.size == 0:
            return super().iterate(g, noise, Z, X, p)
        z, contracts, earlier = np.abs(Z).max(axis=0), self.contracts(p), X
        for k in range(1, self.limit(p) + 1):
            G = g(X)
            explained = noise(G)
            done = self.done(G - X, self.stop(p, z, explained))
            if contracts and k > 64:
                done = done | self.back(np.abs(G - earlier), explained)
            if done.all():
                break
            X = G
            if k & (k - 1) == 0:
                earlier = G
            if k % 64 == 0 and (done | ~np.isfinite(X).all(axis=0)).all():
                break
        return self.answer(p, X, G), self.verdict(done, G), k


@bug(
    "the iteration: one column that is not finite (NaN or inf) ends the loop for the whole batch, so that the other "
    "columns are left where they are and reported as not converged"
)
class OneNaNStopsAll(Plain):
    def iterate(self, g, noise, Z, X, p):
        if X.size == 0:
            return super().iterate(g, noise, Z, X, p)
        z, contracts, earlier = np.abs(Z).max(axis=0), self.contracts(p), X
        for k in range(1, self.limit(p) + 1):
            G = g(X)
            explained = noise(G)
            done = self.done(np.abs(G - X), self.stop(p, z, explained))
            if contracts and k > 64:
                done = done | self.back(np.abs(G - earlier), explained)
            if done.all() or not np.isfinite(G).all():
                break
            X = G
            if k & (k - 1) == 0:
                earlier = G
        return self.answer(p, X, G), self.verdict(done, G), k


@bug(
    "the stop rule: as soon as the largest step of the batch is not smaller than the step before, this is taken for "
    "the rounding floor, and the iteration ends as converged; wrong where steps grow for a while (‖A‖∞ above 1, "
    "triangular A) or for ever (ill-posed)"
)
class GrowingStepIsFloor(Plain):
    def iterate(self, g, noise, Z, X, p):
        if X.size == 0:
            return super().iterate(g, noise, Z, X, p)
        z, before = np.abs(Z).max(axis=0), np.inf
        for k in range(1, self.limit(p) + 1):
            G = g(X)
            step = np.abs(G - X)
            done = self.done(step, self.stop(p, z, noise(G)))
            if done.all():
                break
            if step.max() >= before:
                done = np.ones_like(done)
                break
            X, before = G, step.max()
            if k % 64 == 0 and (done | ~np.isfinite(X).all(axis=0)).all():
                break
        return self.answer(p, X, G), self.verdict(done, G), k


# --- adjoint and slopes -----------------------------------------------------------------------------------------------


@bug("the adjoint's right side: the entries of G = Cᵀ G_Y are clipped to [−1, 1] (gradient clipping left switched on)")
class ClippedG(Plain):
    def G(self, p, G_Y):
        return np.clip(p.C.T @ G_Y, -1, 1)


@bug("the adjoint: the solution W of W = Aᵀ (S ∘ W) + G is used as V, without the last factor, V = S ∘ W")
class LastSlopeForgotten(Plain):
    def adjoint(self, p, S, G):
        At = self.transposed(self.factors(p))
        noise = lambda W: self.noise(At, 1.0, G, W)  # noqa: E731
        return self.iterate(lambda W: self.apply(At, S * W) + G, noise, G, np.zeros_like(G), p)[0]


@bug("the adjoint: V = Aᵀ (S ∘ V) + S ∘ G is solved, with the slopes on the wrong side of Aᵀ")
class SlopeBehindTranspose(Plain):
    def adjoint(self, p, S, G):
        At, SG = self.transposed(self.factors(p)), S * G
        noise = lambda V: self.noise(At, 1.0, SG, V)  # noqa: E731
        return self.iterate(lambda V: self.apply(At, S * V) + SG, noise, SG, np.zeros_like(G), p)[0]


@bug("the adjoint: the Neumann series is cut off after 10 terms, whatever tol is")
class TenNeumannTerms(Plain):
    def adjoint(self, p, S, G):
        At, V = self.transposed(self.factors(p)), np.zeros_like(G)
        for _ in range(10):
            V = S * (self.apply(At, V) + G)
        return V


@bug("the adjoint: the slopes S of the first sample are used for all samples (one Jacobian for the whole batch)")
class SlopesOfFirstSample(Plain):
    def adjoint(self, p, S, G):
        return super().adjoint(p, np.broadcast_to(S[:, :1], S.shape).copy(), G)


@bug("elu: φ′ for negative arguments is exp(P) − 1, that is X, instead of exp(P) = X + 1")
class EluSlopeWithoutOne(Plain):
    def slope(self, p, P):
        if p.activation != "elu":
            return super().slope(p, P)
        return np.where(P > 0, P.dtype.type(1), np.expm1(np.minimum(P, 0)))


@bug("softplus: φ′ is the sigmoid of the output X instead of the sigmoid of the preactivation")
class SoftplusSlopeOfOutput(Plain):
    def slope(self, p, P):
        return super().slope(p, self.phi(p, P) if p.activation == "softplus" else P)


@bug(
    "low rank: the adjoint is solved by the r × r system with I − Lᵀ R instead of I − Lᵀ diag(s) R, so that the slopes "
    "are missing in the reduced matrix; no effect where all slopes are 1, nor for a dense A"
)
class ReducedSystemWithoutSlopes(Plain):
    def adjoint(self, p, S, G):
        if p.L is None:
            return super().adjoint(p, S, G)
        L, Rt = self.factors(p)
        M = np.eye(L.shape[1], dtype=L.dtype) - L.T @ Rt.T
        try:
            y = np.linalg.solve(M, L.T @ (S * G))
        except np.linalg.LinAlgError:
            y = np.full((L.shape[1], G.shape[1]), np.nan, G.dtype)
        return S * (Rt.T @ y + G)


# --- gradients and maps f ---------------------------------------------------------------------------------------------


@bug("∂R of low rank: X (Rᵀ V)ᵀ instead of X (Lᵀ V)ᵀ")
class RInPlaceOfL(Plain):
    def factor_gradients(self, factors, X, V):
        out = super().factor_gradients(factors, X, V)
        return out if len(factors) == 1 else (out[0], (factors[1] @ V) @ X.T)


@bug("∂U: the direct term is D G_Y instead of Dᵀ G_Y, where D is square (q = p) so that no shape complains")
class SquareDNotTransposed(Plain):
    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if p.D is not None and p.D.shape[0] == p.D.shape[1]:
            out["U"] = p.B.T @ V + p.D @ G_Y
        return out


@bug(
    "∂B: the column of the bias (the last one, where the last row of U is constant 1) is the mean over the samples "
    "instead of their sum"
)
class BiasGradientIsMean(Plain):
    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if p.U.size and (p.U[-1] == 1).all():
            out["B"] = out["B"].copy()
            out["B"][:, -1] /= p.U.shape[1]
        return out


class _RowOnly(ImplicitFunctionInf):
    def _pull(self, F, G):
        sums = np.abs(F).sum(axis=1)
        if not sums.size or not sums.max() > self.kappa:
            return G
        i = sums.argmax()
        nu, s = sums[i], np.zeros_like(F)
        s[i] = np.sign(F[i])
        return ((self.kappa / nu) * (G - ((G[i] @ F[i]) / nu) * s)).astype(G.dtype)


@bug(
    "the pullback of f = inf: ⟨G, A⟩ is summed over the row that attains the norm alone, instead of over the whole "
    "matrix; only where ‖A‖∞ > κ"
)
class InnerProductOfRow(Plain):
    def function(self, p):
        return _RowOnly(p.kappa, p.straight_through) if p.f == "inf" else p.function


class _ColumnNorm(ImplicitFunctionInf):
    def _map(self, F):
        nu = np.abs(F).sum(axis=0).max(initial=0)
        return (F * (self.kappa / max(self.kappa, nu))).astype(F.dtype)

    def _pull(self, F, G):
        sums = np.abs(F).sum(axis=0)
        if not sums.size or not sums.max() > self.kappa:
            return G
        j = sums.argmax()
        nu, s = sums[j], np.zeros_like(F)
        s[:, j] = np.sign(F[:, j])
        return ((self.kappa / nu) * (G - ((G * F).sum() / nu) * s)).astype(G.dtype)


@bug(
    "f = inf, map and pullback: the norm is the largest absolute column sum (axis 0, the 1-norm) instead of the "
    "largest absolute row sum"
)
class ColumnSums(Plain):
    def function(self, p):
        return _ColumnNorm(p.kappa, p.straight_through) if p.f == "inf" else p.function


class _MeanOverRow(ImplicitFunctionRows):
    def _pull(self, F, G):
        sigma = np.sign(self._map(F))
        mean = (sigma * G).sum(axis=1, keepdims=True) / F.shape[1]
        outside = np.abs(F).sum(axis=1, keepdims=True) > self.kappa
        return np.where(outside, np.where(sigma != 0, G - sigma * mean, 0), G).astype(G.dtype)


@bug(
    "the pullback of f = rows: σᵀ G is divided by the length of the row instead of by the size |S| of the support; "
    "only in rows outside of the ball whose projection has zeros"
)
class DividedByRowLength(Plain):
    def function(self, p):
        return _MeanOverRow(p.kappa, p.straight_through) if p.f == "rows" else p.function


class _SupportTooSmall(ImplicitFunctionRows):
    def _map(self, F):
        out = F.copy()
        for i, a in enumerate(np.abs(F).astype(np.float64)):
            if a.sum() > self.kappa:
                u = np.sort(a)[::-1]
                excess = np.cumsum(u) - self.kappa
                last = np.flatnonzero(u * np.arange(1, u.size + 1) > excess)[-1]
                last = max(last - 1, 0)
                theta = excess[last] / (last + 1)
                out[i] = np.sign(F[i]) * np.maximum(a - theta, 0)
        return out


@bug(
    "f = rows: the threshold of the projection is computed with one entry too few (the smallest entry of the support "
    "is left out, an index off by one), so that rows outside of the ball stay too long; the pullback "
    "is that of the right projection"
)
class SupportOffByOne(Plain):
    def function(self, p):
        return _SupportTooSmall(p.kappa, p.straight_through) if p.f == "rows" else p.function


@bug(
    "f of low rank (inf and rows): the map and its pullback are applied to the rows of R instead of the rows of Rᵀ; L "
    "is right"
)
class RowsOfR(Plain):  # f = perron, which takes both factors at once, was added after this bug was written
    def factors(self, p):
        if p.L is None or p.f in ("none", "perron"):
            return super().factors(p)
        L, R = self.function(p).effective((p.L, p.R))
        return L, R.T

    def raw(self, p, gradients):
        if p.L is None or p.f in ("none", "perron"):
            return super().raw(p, gradients)
        L, R = self.function(p).pullback((p.L, p.R), (gradients[0], gradients[1].T))
        return by_name((L, R.T))


# --- sizes, state, memory, precision ----------------------------------------------------------------------------------


@bug(
    "state: the effective A is uploaded (copied) once and reused as long as the caller passes the same array object, "
    "so that changes in place between two calls are not seen"
)
class UploadedOnce(Plain):
    last: Any = None

    def factors(self, p):
        key, last = (p.A, p.L, p.R), self.last
        if last is not None and last[1] == (p.f, p.kappa) and all(a is b for a, b in zip(key, last[0], strict=True)):
            return last[2]
        factors = tuple(np.array(F) for F in super().factors(p))
        self.last = key, (p.f, p.kappa), factors
        return factors


@bug(
    "state: ∂U is added to the ∂U of earlier calls with the same sizes and dtype (the gradient of the input is never "
    "set to zero); the first call is right"
)
class InputGradientAccumulates(Plain):
    def __init__(self):
        self.sums = {}

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        key = p.sizes, p.dtype.name
        if key in self.sums:
            out["U"] = out["U"] + self.sums[key]
        self.sums[key] = out["U"].copy()
        return out


@bug(
    "samples are processed in chunks of 32, and the last incomplete chunk reads the columns of B U of the first chunk; "
    "only where m > 32 is no multiple of 32"
)
class TailChunkOfSamples(Plain):
    def Z(self, p):
        Z, m = p.B @ p.U, p.U.shape[1]
        tail = m % 32
        if m > 32 and tail:
            Z[:, m - tail :] = Z[:, :tail].copy()
        return Z


@bug(
    "precision: in float32, and from n = 16 on, A X and Aᵀ V are products of inputs rounded to 11 bits (TF32 of the "
    "tensor cores)"
)
class TensorFloat32(Plain):
    def apply(self, factors, X):
        if X.dtype != np.float32 or X.shape[0] < 16:
            return fac.apply(factors, X)
        for F in reversed(factors):
            X = rounded(F, 11) @ rounded(X, 11)
        return X


@bug(
    "the flat index i n + j of a dense A is kept in 16 bits and wraps round at 65536, so that the last rows of A are "
    "copies of its first entries; only from n = 257 on"
)
class IndexOf16Bits(Plain):
    def factors(self, p):
        factors = super().factors(p)
        A = factors[0]
        if len(factors) == 2 or A.size <= 65536:
            return factors
        return (np.ravel(A)[np.arange(A.size) & 0xFFFF].reshape(A.shape),)


@bug(
    "memory: B is read in the order of its memory as if it were in C order, forward and backward, so that a B in "
    "Fortran order is scrambled"
)
class MemoryOrderOfB(Plain):
    @staticmethod
    def seen(p):
        return p.with_arrays({"B": p.B.ravel(order="K").reshape(p.B.shape)})

    def forward(self, p):
        return super().forward(self.seen(p))

    def vjp(self, p, G_Y):
        return super().vjp(self.seen(p), G_Y)
