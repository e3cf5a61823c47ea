"""Fifty-eight more bugs from outside; their two authors had seen neither the cases nor any bug or mistake known before.

`MEANING` has what the authors said of each, before any run of the kit.
"""

from __future__ import annotations

import time
from functools import reduce
from typing import Any

import numpy as np
from bugs_from_outside import entered_in

from idl_ref.conformance.bugs.plain import Plain
from idl_ref.functions import FUNCTIONS

BUGS: dict[str, type[Plain]] = {}
MEANING: dict[str, str] = {}
bug = entered_in(BUGS, MEANING)


def dense(factors):
    return reduce(np.matmul, factors)


# --- inputs, forward equation, readout --------------------------------------------------------------------------------


@bug(
    "arrays with negative strides are uploaded with the absolute strides, so a reversed view is read back to front "
    "(all inputs and G_Y)"
)
class NegativeStridesDropped(Plain):
    @staticmethod
    def upload(M):
        for axis in range(M.ndim):
            if M.strides[axis] < 0:
                M = np.flip(M, axis)
        return np.ascontiguousarray(M)

    def uploaded(self, p):
        return p.with_arrays({name: self.upload(M) for name, M in p.arrays.items()})

    def forward(self, p):
        return super().forward(self.uploaded(p))

    def vjp(self, p, G_Y):
        return super().vjp(self.uploaded(p), self.upload(G_Y))


@bug(
    "with p = 3 the rows of B are declared array<vec3f> in the forward shader: read with a stride of 4 numbers from a "
    "packed buffer, 0 past its end"
)
class Vec3RowsOfBPadded(Plain):
    def Z(self, p):
        n, cols = p.B.shape
        if cols != 3:
            return super().Z(p)
        flat = np.zeros(4 * n + 4, p.B.dtype)
        flat[: 3 * n] = np.ascontiguousarray(p.B).ravel()
        return flat[: 4 * n].reshape(n, 4)[:, :3] @ p.U


@bug(
    "the orientation of U is guessed from its shape: if m = p, U is taken to have samples as rows and is transposed "
    "(forward and gradients)"
)
class SamplesAsRowsGuessed(Plain):
    @staticmethod
    def oriented(p):
        return p.with_arrays({"U": p.U.T}) if p.U.shape[1] == p.B.shape[1] else p

    def forward(self, p):
        return super().forward(self.oriented(p))

    def vjp(self, p, G_Y):
        return super().vjp(self.oriented(p), G_Y)


@bug(
    "C is written into a generated header with std::to_string, so that its entries keep only 6 decimals (readout and "
    "G = C^T G_Y)"
)
class ReadoutSixDecimals(Plain):
    @staticmethod
    def printed(p):
        return p.with_arrays({"C": np.round(p.C.astype(np.float64), 6).astype(p.C.dtype)})

    def forward(self, p):
        return super().forward(self.printed(p))

    def vjp(self, p, G_Y):
        return super().vjp(self.printed(p), G_Y)


@bug("columns with B u = 0 are skipped and keep X = 0, which is wrong where phi(0) is not 0 (sigmoid, softplus)")
class ZeroColumnsSkipped(Plain):
    def equilibrium(self, p):
        X, converged, k = super().equilibrium(p)
        skipped = (self.Z(p) == 0).all(axis=0)
        return np.where(skipped, X.dtype.type(0), X), converged | skipped, k


@bug(
    "the sparse product sums each row with np.add.reduceat, which for a row of A (or of A^T) without entries gives "
    "the next row's first product instead of 0"
)
class EmptyRowsReduceat(Plain):
    def apply(self, factors, X):
        if len(factors) > 1:
            return super().apply(factors, X)
        M = np.array(factors[0])
        rows, cols = np.nonzero(M)
        if rows.size:
            start = np.searchsorted(rows, np.arange(M.shape[0]))
            for i in np.setdiff1d(np.arange(M.shape[0]), rows):
                k = min(int(start[i]), rows.size - 1)
                M[i, cols[k]] = factors[0][rows[k], cols[k]]
        return M @ X


# --- activations ------------------------------------------------------------------------------------------------------


@bug(
    "a missing break in the switch of phi: elu falls through into hardtanh, so that elu values above 1 become 1 (the "
    "slope is right)"
)
class EluFallsThroughToHardtanh(Plain):
    def phi(self, p, P):
        out = super().phi(p, P)
        return np.clip(out, -1, 1) if p.activation == "elu" else out


@bug(
    "the slope of hardtanh is taken from the saved output with |x| <= 1, so that saturated units have slope 1 instead "
    "of 0"
)
class HardtanhSlopeFromOutput(Plain):
    def slope(self, p, P):
        if p.activation != "hardtanh":
            return super().slope(p, P)
        return (np.abs(self.phi(p, P)) <= 1).astype(P.dtype)


@bug(
    "the slope of elu adds both branches of a where, so that it is 0 * inf = NaN where exp(P) overflows for a large "
    "positive P"
)
class EluSlopeWhereTrap(Plain):
    def slope(self, p, P):
        if p.activation != "elu":
            return super().slope(p, P)
        positive = (P > 0).astype(P.dtype)
        return positive + (1 - positive) * np.exp(P)


@bug(
    "the scalar tail of the vectorised phi (the last n m mod 4 entries in float64, mod 8 in others, in C order) "
    "always applies relu"
)
class ScalarTailAlwaysRelu(Plain):
    def phi(self, p, P):
        out = np.array(super().phi(p, P), order="C")
        tail = P.size % (4 if P.dtype == np.float64 else 8)
        if tail:
            out.reshape(-1)[-tail:] = np.maximum(np.ascontiguousarray(P).reshape(-1)[-tail:], 0)
        return out


@bug(
    "nan_to_num is applied to B U and to every preactivation, so that columns with NaN get finite states and count as "
    "converged"
)
class NanToNumForStability(Plain):
    def Z(self, p):
        return np.nan_to_num(super().Z(p))

    def phi(self, p, P):
        return super().phi(p, np.nan_to_num(P))


# --- stopping, counts, statuses ---------------------------------------------------------------------------------------


@bug(
    "the stopping test compares squares, step^2 <= stop^2, both of which underflow to 0 for small inputs in float32 "
    "(or float16), so that it stops too early"
)
class SquaredStepUnderflows(Plain):
    def done(self, step, stop):
        return np.all(step * step <= stop * stop, axis=0)


def columnwise(backend, p):
    """Solve column by column with Plain's iteration: X, converged, k per column."""
    found = []
    for j in range(p.U.shape[1]):
        arrays = {"U": p.U[:, j : j + 1]} | ({} if p.X0 is None else {"X0": p.X0[:, j : j + 1]})
        found.append(Plain.equilibrium(backend, p.with_arrays(arrays)))
    return found


@bug(
    "columns are solved one after the other and the iteration counter is not reset between them: the counts add up, "
    "and max_iter limits their sum"
)
class CounterNotResetBetweenColumns(Plain):
    def equilibrium(self, p):
        from dataclasses import replace

        m = p.U.shape[1]
        if m == 0 or p.B.shape[0] == 0:
            return super().equilibrium(p)
        used, Xs, ok, ks = 0, [], [], []
        for j in range(m):
            arrays = {"U": p.U[:, j : j + 1]} | ({} if p.X0 is None else {"X0": p.X0[:, j : j + 1]})
            left = p.max_iter - used
            sub = replace(p.with_arrays(arrays), max_iter=max(left, 1))
            if left > 0:
                X, converged, k = super().equilibrium(sub)
                used += k
            else:
                X, converged = self.start(sub, self.Z(sub)), np.zeros(1, bool)
            Xs.append(X)
            ok.append(converged)
            ks.append(used)
        return np.hstack(Xs), np.concatenate(ok), np.array(ks)


@bug("the iteration count is returned as uint8, so that counts above 255 wrap around")
class IterationsInOneByte(Plain):
    def equilibrium(self, p):
        X, converged, k = super().equilibrium(p)
        return X, converged, k & 0xFF


@bug(
    "the converged flags travel as bits, written most significant first and read least significant first: within each "
    "8 columns a failure is reported for column 7 - j instead of j (unused bits say converged)"
)
class StatusBitsReversed(Plain):
    def verdict(self, done, G):
        ok = super().verdict(done, G)
        padded = np.ones(-(-ok.size // 8) * 8, bool)
        padded[: ok.size] = ok
        return np.unpackbits(np.packbits(padded), bitorder="little")[: ok.size].astype(bool)


@bug(
    "converged columns are swapped to the end of the active set, and the permutation is not undone: X and Y come back "
    "in the order of convergence, if columns converge at different iterations"
)
class CompactionNotUndone(Plain):
    def equilibrium(self, p):
        if p.U.shape[1] < 2 or p.B.shape[0] == 0:
            return super().equilibrium(p)
        found = columnwise(self, p)
        ks = np.array([k for _, _, k in found])
        X, ok = np.hstack([X for X, _, _ in found]), np.concatenate([c for _, c, _ in found])
        order, live = list(range(ks.size)), ks.size
        for k in sorted(set(ks.tolist())):
            for j in range(live - 1, -1, -1):
                if ks[order[j]] <= k:
                    live -= 1
                    order[j], order[live] = order[live], order[j]
        return X[:, order], ok[order], int(ks.max())


# --- adjoint ----------------------------------------------------------------------------------------------------------


@bug(
    "the adjoint iteration scales its tolerance by the forward ||B u|| instead of ||C^T g||, so that it stops too "
    "early for small output gradients"
)
class AdjointToleranceFromForward(Plain):
    def adjoint(self, p, S, G):
        At = self.transposed(self.factors(p))
        g = lambda V: S * (self.apply(At, V) + G)  # noqa: E731
        return self.iterate(g, lambda V: self.noise(At, S, G, V), self.Z(p), np.zeros_like(G), p)[0]


@bug("the adjoint factorises I - A^T diag(phi') for the slopes of the first column only and uses it for all columns")
class AdjointLUOfFirstColumn(Plain):
    def adjoint(self, p, S, G):
        if G.size == 0:
            return super().adjoint(p, S, G)
        A = dense(self.factors(p)).astype(np.float64)
        M = np.eye(A.shape[0]) - A.T * S[:, 0].astype(np.float64)
        return (S * np.linalg.solve(M, G.astype(np.float64))).astype(G.dtype)


@bug(
    "for low rank the adjoint is solved by Woodbury with the r x r matrix I - R^T S L instead of its transpose I - "
    "L^T S R"
)
class WoodburyNotTransposed(Plain):
    def adjoint(self, p, S, G):
        factors = self.factors(p)
        if len(factors) == 1 or G.size == 0 or factors[0].shape[1] == 0:
            return super().adjoint(p, S, G)
        L, Rt = (F.astype(np.float64) for F in factors)
        V = np.empty(G.shape)
        for j in range(G.shape[1]):
            s, g = S[:, j].astype(np.float64), G[:, j].astype(np.float64)
            y = np.linalg.solve(np.eye(L.shape[1]) - (Rt * s) @ L, L.T @ (s * g))
            V[:, j] = s * (g + Rt.T @ y)
        return V.astype(G.dtype)


# --- gradients --------------------------------------------------------------------------------------------------------


@bug("if p = q, D^T G_Y is written over the work copy of G_Y before the gradient of D is formed from it")
class DirectTermOverwritesGY(Plain):
    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if p.D is not None and p.D.shape[0] == p.D.shape[1]:
            out["D"] = (p.D.T @ G_Y) @ p.U.T
        return out


@bug(
    "in float16 G_Y is scaled by 256 against underflow, and the gradients of C and D, which do not pass through the "
    "adjoint, are not unscaled"
)
class LossScaleLeftInReadout(Plain):
    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if p.storage == "float16":
            for name in {"C", "D"} & {*out}:
                out[name] = out[name] * out[name].dtype.type(256)
        return out


@bug(
    "the gradient of A (or of L and R) is accumulated over chunks of 64 columns with = instead of +=, so that for m > "
    "64 only the last chunk counts"
)
class LastChunkOfWeightGradient(Plain):
    def factor_gradients(self, factors, X, V):
        m = X.shape[1]
        first = (max(m - 1, 0) // 64) * 64
        return super().factor_gradients(factors, X[:, first:], V[:, first:])


# --- the map f --------------------------------------------------------------------------------------------------------


@bug(
    "straight-through for the scaling maps (inf, perron) only detaches the factor: the gradient is kappa/norm times G "
    "instead of G"
)
class StraightThroughDetachesScale(Plain):
    def raw(self, p, gradients):
        if p.straight_through and p.f in ("inf", "perron"):
            scaled = []
            for F, E, G in zip(p.factors, self.factors(p), gradients, strict=True):
                top = np.abs(F).max(initial=0)
                scaled.append(G * G.dtype.type(np.abs(E).max(initial=0) / top) if top else G)
            gradients = tuple(scaled)
        return super().raw(p, gradients)


@bug(
    "the projection of f = rows finds its threshold from the sorted signed entries instead of the sorted absolute "
    "values, wrong for long rows with negative entries (pullback as it should be)"
)
class RowsSortsSignedEntries(Plain):
    def factors(self, p):
        if p.f != "rows":
            return super().factors(p)
        return tuple(self.project(F, p.kappa) for F in p.factors)

    @staticmethod
    def project(F, kappa):
        out = np.array(F)
        for i, a in enumerate(F.astype(np.float64)):
            if np.abs(a).sum() > kappa:
                u = np.sort(a)[::-1]
                excess = np.cumsum(u) - kappa
                index = np.arange(1, a.size + 1)
                good = np.flatnonzero(u * index > excess)
                last = good[-1] if good.size else 0
                theta = max(excess[last] / (last + 1), 0.0)
                out[i] = np.sign(a) * np.maximum(np.abs(a) - theta, 0)
        return out


@bug(
    "for low rank, f = inf and f = rows map the rows of R (n rows of length r) instead of the rows of R^T, with a "
    "matching pullback"
)
class LowRankMapsRowsOfR(Plain):
    def applies(self, p):
        return len(p.factors) == 2 and p.f in ("inf", "rows")

    def factors(self, p):
        if not self.applies(p):
            return super().factors(p)
        L, R = self.function(p).effective((p.L, p.R))
        return L, R.T

    def raw(self, p, gradients):
        if not self.applies(p):
            return super().raw(p, gradients)
        gL, gRt = gradients
        L, R = self.function(p).pullback((p.L, p.R), (gL, gRt.T))
        return {"L": L, "R": R}


@bug(
    "f = perron takes the root from 30 unshifted power iterations, which oscillate for a periodic |A| and are not "
    "finished for a small spectral gap"
)
class PerronByPowerIteration(Plain):
    def factors(self, p):
        if p.f != "perron":
            return super().factors(p)
        absolute = dense(tuple(np.abs(F).astype(np.float64) for F in p.factors))
        v, root = np.ones(absolute.shape[0]), 0.0
        for _ in range(30):
            w = absolute @ v
            root = float(w.max(initial=0.0))
            if not root > 0:
                break
            v = w / root
        if not root > 0:
            return p.factors
        scale = min(1.0, p.kappa / (root if len(p.factors) == 1 else np.sqrt(root)))
        return tuple((F * scale).astype(F.dtype) for F in p.factors)


# --- state, caches, buffers, threads ----------------------------------------------------------------------------------


@bug(
    "prepared weights are cached under shape, dtype, f, kappa and the sum of the entries, so that A with permuted or "
    "transposed entries meets the entry of another A"
)
class CacheKeyedBySum(Plain):
    def __init__(self):
        self.cache: dict[Any, Any] = {}

    def factors(self, p):
        raw = p.factors
        sums = tuple(float(F.sum(dtype=np.float64)) for F in raw)
        key = (tuple(F.shape for F in raw), p.storage, p.f, p.kappa, sums)
        found = self.cache.get(key)
        if found is None:
            found = tuple(np.array(F) for F in super().factors(p))
            if len(self.cache) >= 8:
                self.cache.pop(next(iter(self.cache)), None)
            self.cache[key] = found
        return found


@bug(
    "answers are views of two result buffers per name and shape, used in turn: an answer is overwritten by the second "
    "call after it"
)
class RingOfTwoResults(Plain):
    def __init__(self):
        self.ring: dict[Any, list[np.ndarray]] = {}
        self.turn = 0

    def lent(self, answer):
        self.turn ^= 1
        out = {}
        for name, M in answer.items():
            M = np.asarray(M)
            slots = self.ring.setdefault((name, M.shape, M.dtype.str), [np.empty_like(M), np.empty_like(M)])
            slots[self.turn][...] = M
            out[name] = slots[self.turn]
        return out

    def forward(self, p):
        return self.lent(super().forward(p))

    def vjp(self, p, G_Y):
        return self.lent(super().vjp(p, G_Y))


@bug(
    "the readout reads C, D and U through a pointer to the current problem that all threads share, so that a "
    "concurrent call with the same shapes mixes its D U and C into Y"
)
class CurrentProblemShared(Plain):
    current: Any = None

    def forward(self, p):
        self.current = p
        return super().forward(p)

    def readout(self, p, X):
        time.sleep(2e-4)
        other = self.current
        same = other.sizes == p.sizes and (other.D is None) == (p.D is None) and other.dtype == p.dtype
        return super().readout(other if same else p, X)


# --- activations and slopes -------------------------------------------------------------------------------------------


@bug(
    "sigmoid is exp(p)/(1 + exp(p)), which is inf/inf = NaN where p is large and positive (89 in float32, 710 in "
    "float64)"
)
class SigmoidOverflow(Plain):
    def phi(self, p, P):
        if p.activation != "sigmoid":
            return super().phi(p, P)
        e = np.exp(P)
        return e / (1 + e)


@bug("the slope of elu for p <= 0 is p + 1, the formula for an output (is_result) applied to the preactivation")
class EluSlopeIsResult(Plain):
    def slope(self, p, P):
        return np.where(P > 0, 1, P + 1).astype(P.dtype) if p.activation == "elu" else super().slope(p, P)


@bug("leaky_relu in float64 multiplies by the float literal 0.01f, which is off by 2e-8 of itself, for p < 0")
class LeakyFloatLiteral(Plain):
    def phi(self, p, P):
        if p.activation != "leaky_relu" or P.dtype != np.float64:
            return super().phi(p, P)
        return np.where(P > 0, P, float(np.float32(0.01)) * P)


@bug("relu is `p > 0 ? p : 0`, which turns NaN into 0, so that a column with NaN gets a finite answer as converged")
class ReluSwallowsNaN(Plain):
    def phi(self, p, P):
        return np.where(P > 0, P, np.zeros_like(P)) if p.activation == "relu" else super().phi(p, P)


# --- bias and readout -------------------------------------------------------------------------------------------------


@bug("a last row of U whose entries are all equal is taken for the bias 1, so that a batch of one always has a bias")
class ConstantRowIsBias(Plain):
    def affine(self, W, U):
        if U.size and (U[-1] == U[-1, 0]).all():
            return W[:, :-1] @ U[:-1] + W[:, -1:]
        return W @ U

    def Z(self, p):
        return self.affine(p.B, p.U)

    def readout(self, p, X):
        Y = p.C @ X
        return Y if p.D is None else Y + self.affine(p.D, p.U)


@bug("the readout gathers X by a flat index of 8 bits, which wraps, so that Y is wrong where n m > 256")
class FlatIndexUint8(Plain):
    def readout(self, p, X):
        i = np.arange(X.size) & 0xFF
        return super().readout(p, X.ravel()[i].reshape(X.shape))


@bug("Y is returned in a buffer kept for its shape and dtype, which the next forward call of that shape overwrites")
class OutputBufferReused(Plain):
    def __init__(self):
        self.buffers = {}

    def forward(self, p):
        out = super().forward(p)
        Y = out["Y"]
        buffer = self.buffers.setdefault((Y.shape, Y.dtype), np.empty_like(Y))
        buffer[...] = Y
        return out | {"Y": buffer}


# --- products ---------------------------------------------------------------------------------------------------------


@bug("the inner loop of A X goes in tiles of 16 while k + 16 <= K: with K > 16 the last K mod 16 terms are missing")
class TileTailDropped(Plain):
    def apply(self, factors, X):
        for F in reversed(factors):
            K = F.shape[1]
            K = K - K % 16 if K > 16 else K
            X = F[:, :K] @ X[:K]
        return X


@bug("float32 products A X with n a multiple of 8 run on TF32 tensor cores: operands are rounded to 11 bits")
class Tf32WhenAligned(Plain):
    def tf32(self, M):
        bits = np.ascontiguousarray(M).view(np.uint32)
        return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)

    def apply(self, factors, X):
        if X.dtype != np.float32 or X.shape[0] % 8 or not X.size:
            return super().apply(factors, X)
        for F in reversed(factors):
            X = self.tf32(F) @ self.tf32(X)
        return X


@bug("a dense A in Fortran order that no f has copied is read as row-major, that is, as its transpose")
class FortranReadAsC(Plain):
    def factors(self, p):
        factors = super().factors(p)
        F = factors[0]
        if len(factors) == 1 and F.flags.f_contiguous and not F.flags.c_contiguous:
            return (F.T,)
        return factors


# --- adjoint ----------------------------------------------------------------------------------------------------------


@bug(
    "the adjoint solve returns G + A' V, the cotangent of X, instead of V: the last product with the slopes is "
    "forgotten"
)
class AdjointWithoutLastSlope(Plain):
    def adjoint(self, p, S, G):
        V = super().adjoint(p, S, G)
        return self.apply(self.transposed(self.factors(p)), V) + G


@bug("the adjoint stops at steps of tol in absolute terms, too early where the column of G = C' G_Y is small")
class AdjointAbsoluteTolerance(Plain):
    def adjoint(self, p, S, G):
        At = self.transposed(self.factors(p))
        noise = lambda V: self.noise(At, S, G, V)  # noqa: E731
        step = lambda V: S * (self.apply(At, V) + G)  # noqa: E731
        return self.iterate(step, noise, np.ones_like(G), np.zeros_like(G), p)[0]


@bug("the slopes of the adjoint lie in an attribute of the backend, which a vjp in another thread overwrites meanwhile")
class SlopesSharedByThreads(Plain):
    def adjoint(self, p, S, G):
        self.S = S
        At = self.transposed(self.factors(p))
        noise = lambda V: self.noise(At, self.S, G, V)  # noqa: E731
        step = lambda V: self.S * (self.apply(At, V) + G)  # noqa: E731
        return self.iterate(step, noise, G, np.zeros_like(G), p)[0]


# --- gradients --------------------------------------------------------------------------------------------------------


@bug(
    "the gradient of B is formed in chunks of 8 columns with = instead of +=, so that with m > 8 only the last chunk "
    "counts"
)
class LastChunkOverwrites(Plain):
    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        for c in range(0, V.shape[1], 8):
            out["B"] = V[:, c : c + 8] @ p.U[:, c : c + 8].T
        return out


@bug("with m = 1, the gradient of B is the outer product of u and v, reshaped to (n, p) instead of transposed")
class OuterReshapedForOneSample(Plain):
    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if V.shape[1] == 1:
            out["B"] = np.outer(p.U, V).reshape(out["B"].shape)
        return out


@bug("the gradient of D is added to that of earlier calls with a D of the same shape and dtype: it is never zeroed")
class GradientOfDNotZeroed(Plain):
    def __init__(self):
        self.sums = {}

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if "D" in out:
            D = out["D"]
            key = D.shape, D.dtype
            self.sums[key] = self.sums.get(key, np.zeros_like(D)) + D
            out["D"] = self.sums[key].copy()
        return out


@bug("for low rank, R'X and L'V share one scratch array, and the gradient of L reads it after L'V has overwritten R'X")
class LowRankScratchReused(Plain):
    def factor_gradients(self, factors, X, V):
        if len(factors) == 1:
            return super().factor_gradients(factors, X, V)
        T = np.empty((factors[1].shape[0], X.shape[1]), X.dtype)
        T[...] = factors[1] @ X
        T[...] = factors[0].T @ V
        return V @ T.T, T @ X.T


@bug(
    "for low rank under an f that scales, the gradients of L and R are formed with the raw R and L, not the effective "
    "ones"
)
class LowRankGradientsFromRaw(Plain):
    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        return out | self.raw(p, self.factor_gradients(p.factors, X, V))


@bug(
    "if any gradient holds an inf or NaN, all gradients are set to 0, as a loss scaler does, also those of good "
    "columns of U"
)
class FoundInfZeroesAll(Plain):
    def vjp(self, p, G_Y):
        out = super().vjp(p, G_Y)
        if all(np.isfinite(g).all() for g in out.values()):
            return out
        return {name: np.zeros_like(g) for name, g in out.items()}


# --- the map f --------------------------------------------------------------------------------------------------------


@bug(
    "f = inf is kappa A / norm without the max(kappa, norm), so that a matrix inside of the ball is scaled up to its "
    "surface"
)
class InfAlwaysNormalizes(Plain):
    def factors(self, p):
        if p.f != "inf":
            return super().factors(p)
        out = []
        for F in p.factors:
            norm = np.abs(F).sum(axis=1).max(initial=0)
            out.append((F * (p.kappa / norm)).astype(F.dtype) if norm > 0 else F)
        return tuple(out)


@bug(
    "the pullback of f = rows takes all nonzero entries of a raw row for the support, also those the projection sets "
    "to 0"
)
class RowsSupportOfRaw(Plain):
    def raw(self, p, gradients):
        if p.f != "rows" or p.straight_through:
            return super().raw(p, gradients)
        out = []
        for F, G in zip(p.factors, gradients, strict=True):
            s = np.sign(F)
            count = np.maximum(np.abs(s).sum(axis=1, keepdims=True), 1)
            pulled = np.abs(s) * G - s * ((s * G).sum(axis=1, keepdims=True) / count)
            outside = np.abs(F).sum(axis=1, keepdims=True) > p.kappa
            out.append(np.where(outside, pulled, G).astype(G.dtype))
        return {"A": out[0]} if len(out) == 1 else {"L": out[0], "R": out[1].T}


@bug("straight_through is passed on for a dense A only; L and R get the gradient through f all the same")
class StraightThroughOnlyDense(Plain):
    def function(self, p):
        return FUNCTIONS[p.f](p.kappa, p.straight_through and p.A is not None)


@bug(
    "the Perron root is taken from 5 power iterations, which have not converged, so that the scale of f = perron is "
    "wrong"
)
class PerronFewPowerIterations(Plain):
    def factors(self, p):
        if p.f != "perron":
            return super().factors(p)
        v = np.ones(p.B.shape[0]) / max(p.B.shape[0], 1) ** 0.5
        root = 0.0
        for _ in range(5):
            w = v
            for F in reversed(p.factors):
                w = np.abs(F).astype(float) @ w
            root = float(np.linalg.norm(w))
            if root == 0:
                break
            v = w / root
        root = root if len(p.factors) == 1 else root**0.5
        scale = min(1.0, p.kappa / root) if root else 1.0
        return tuple((F * scale).astype(F.dtype) for F in p.factors)


# --- stopping, counts, statuses ---------------------------------------------------------------------------------------


@bug(
    "one Frobenius norm of the whole batch decides, so that a column of large scale lets small ones stop, and one NaN "
    "fails all"
)
class FrobeniusOfBatch(Plain):
    def done(self, step, stop):
        ok = np.linalg.norm(step) <= np.linalg.norm(np.broadcast_to(stop, step.shape))
        return np.full(step.shape[1], bool(ok))


@bug("tol is raised to at least 1e-6, a floor meant for float32, in float64 too")
class ToleranceFloor(Plain):
    def stop(self, p, z, noise):
        return np.maximum(max(p.tol, 1e-6) * np.minimum(1, z), noise).astype(noise.dtype)


@bug("the number of iterations is returned as uint8 and wraps at 256")
class CountUint8(Plain):
    def forward(self, p):
        out = super().forward(p)
        return out | {"iterations": out["iterations"].astype(np.uint8)}


@bug("a column counts as converged if its X is finite, also when max_iter ended the iteration")
class FiniteCountsAsConverged(Plain):
    def verdict(self, done, G):
        return np.isfinite(G).all(axis=0)


@bug(
    "where some columns fail, the compacted good ones are written back to the first columns of X instead of to their "
    "own"
)
class CompactedNotScattered(Plain):
    def equilibrium(self, p):
        X, converged, k = super().equilibrium(p)
        if not converged.all():
            good = X[:, converged]
            X = X.copy()
            X[:, : good.shape[1]] = good
        return X, converged, k


# --- state ------------------------------------------------------------------------------------------------------------


@bug(
    "B U is cached under the contents of U alone, so that the same U with another B of the same shape gets the old "
    "product"
)
class ProductCachedByU(Plain):
    def __init__(self):
        self.cache = {}

    def Z(self, p):
        key = p.U.tobytes(), p.U.shape, p.B.shape, p.U.dtype
        if key not in self.cache:
            self.cache = {key: super().Z(p)}
        return self.cache[key]
