"""Fifty-seven bugs of ports; their two authors had seen neither the cases nor any bug or mistake known before.

The first one thought of C++, Fortran, SIMD and GPU kernels, the second one of PyTorch, JAX, Julia, MATLAB and services.
`MEANING` has what they said of each, before any run of the kit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from bugs_from_outside import entered_in

from idl_ref import activations
from idl_ref.conformance.bugs.plain import Plain
from idl_ref.conformance.truth.problem import rounded
from idl_ref.functions import FUNCTIONS
from idl_ref.weights import by_name

BUGS: dict[str, type[Plain]] = {}
MEANING: dict[str, str] = {}
bug = entered_in(BUGS, MEANING)


# ===== the first author ===============================================================================================


# --- forward ----------------------------------------------------------------------------------------------------------


@bug("Z = B U reads the row-major buffer of B as if it were column-major (Fortran), always; the gradients read B right")
class ColumnMajorB(Plain):
    def Z(self, p):
        return np.reshape(p.B.ravel(), p.B.shape, order="F") @ p.U


@bug(
    "every product with A or A^T sums over full tiles of 8 only and drops the last k % 8 terms, where the inner "
    "size k (n, and r for low rank) is above 8 and not a multiple of 8"
)
class InnerTailDropped(Plain):
    def apply(self, factors, X):
        for F in reversed(factors):
            k = F.shape[1] if F.shape[1] <= 8 else F.shape[1] // 8 * 8
            X = F[:, :k] @ X[:k]
        return X


@bug(
    "a step of the forward iteration writes X in place without a barrier: the second half of the rows already sees "
    "the new first half; the same fixed point, but another iteration count, always for n > 1"
)
class NoBarrierBetweenHalves(Plain):
    def equilibrium(self, p):
        A, Z, lipschitz = self.factors(p), self.Z(p), activations.get(p.activation).lipschitz
        half = Z.shape[0] // 2

        def g(X):
            X = X.copy()
            for rows in (slice(None, half), slice(half, None)):
                X[rows] = self.phi(p, self.apply(A, X) + Z)[rows]
            return X

        return self.iterate(g, lambda X: self.noise(A, lipschitz, Z, X), Z, self.start(p, Z), p)


@bug(
    "the stopping rule calls the integer abs of C, which truncates: every step below 1 counts as 0, so that "
    "iterations stop far too early, always, forward and adjoint"
)
class IntegerAbs(Plain):
    def done(self, step, stop):
        return super().done(np.trunc(step), stop)


@bug(
    "the vote on convergence is an any where it should be an all: the whole batch stops, as converged, as soon as "
    "one column has converged, for m > 1"
)
class AnyInsteadOfAllVote(Plain):
    def done(self, step, stop):
        done = super().done(step, stop)
        return np.full_like(done, done.any())


@bug(
    "tanh is the fast rational approximation p (27 + p^2) / (27 + 9 p^2) with p clamped to [-3, 3], for tanh only; "
    "its slope is exact"
)
class FastTanh(Plain):
    def phi(self, p, P):
        if p.activation != "tanh":
            return super().phi(p, P)
        P = np.clip(P, -3, 3)
        return P * (27 + P * P) / (27 + 9 * P * P)


@bug(
    "the fused bias epilogue adds the last column of B a second time to Z, only where the last row of U is the "
    "constant 1 (a bias)"
)
class BiasAddedTwice(Plain):
    def Z(self, p):
        Z = super().Z(p)
        bias = p.U.size > 0 and bool((p.U[-1] == 1).all())
        return Z + p.B[:, -1:] if bias else Z


@bug(
    "the readout kernel is launched on q // 4 blocks of 4 rows, so that the last q % 4 rows of Y stay 0, for q > 4 "
    "that is not a multiple of 4"
)
class ReadoutGridFloored(Plain):
    def readout(self, p, X):
        Y = super().readout(p, X)
        if Y.shape[0] > 4:
            Y[Y.shape[0] // 4 * 4 :] = 0
        return Y


@bug(
    "the convergence flags of blocks of 8 rows overwrite one another instead of being combined: only the last block"
    " is judged, for n > 8, forward and adjoint"
)
class LastBlockJudgesConvergence(Plain):
    def done(self, step, stop):
        first = max(step.shape[0] - 1, 0) // 8 * 8
        return np.all((step <= stop)[first:], axis=0)


# --- gradients --------------------------------------------------------------------------------------------------------


@bug("the vectorised adjoint, taken where A is dense and n is a multiple of 4, multiplies by A instead of A^T")
class AlignedAdjointUntransposed(Plain):
    def transposed(self, factors):
        aligned = len(factors) == 1 and factors[0].shape[0] % 4 == 0
        return factors if aligned else super().transposed(factors)


@bug(
    "the gradient of B is summed by chunks of 8 columns without a reduction, so that only the last chunk is left, "
    "for m > 8"
)
class LostPartialSums(Plain):
    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        first = max(p.U.shape[1] - 1, 0) // 8 * 8
        out["B"] = V[:, first:] @ p.U[:, first:].T
        return out


@bug(
    "the gradient of R is computed after the gradient of L has overwritten the buffer of L: (dL^T V) X^T instead of"
    " (L^T V) X^T, for low rank only"
)
class GradientOverwritesL(Plain):
    def factor_gradients(self, factors, X, V):
        if len(factors) == 1:
            return super().factor_gradients(factors, X, V)
        L, Rt = factors
        L = V @ (Rt @ X).T
        return L, (L.T @ V) @ X.T


@bug(
    "the slope is evaluated at the stored output X = phi(P) instead of at the preactivation P, always; wrong for "
    "the smooth activations"
)
class SlopeAtOutput(Plain):
    def slope(self, p, P):
        return super().slope(p, self.phi(p, P))


@bug(
    "the adjoint iterates V = S * (A^T V) + G instead of S * (A^T V + G): the right-hand side misses the slope, "
    "always (no effect where all slopes are 1)"
)
class SlopeMissesRightSide(Plain):
    def adjoint(self, p, S, G):
        At = self.transposed(self.factors(p))
        noise = lambda V: self.noise(At, S, G, V)  # noqa: E731
        return self.iterate(lambda V: S * self.apply(At, V) + G, noise, G, np.zeros_like(G), p)[0]


@bug(
    "the slope buffer holds n numbers instead of n m: all columns of the adjoint use the slopes of the first "
    "column, for m > 1"
)
class SlopesOfFirstColumn(Plain):
    def slope(self, p, P):
        S = super().slope(p, P)
        return np.broadcast_to(S[:, :1], S.shape).copy()


@bug(
    "the gradient of U is overwritten instead of added to (gemm with beta 0): D^T G_Y without B^T V, always where "
    "there is a D"
)
class BetaZeroInGradientOfU(Plain):
    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if p.D is not None:
            out["U"] = p.D.T @ G_Y
        return out


@bug(
    "the pullback of f = inf holds the norm constant and only scales the gradient by kappa / max(kappa, norm), "
    "where the norm exceeds kappa and straight_through is off"
)
class NormHeldConstant(Plain):
    def raw(self, p, gradients):
        if p.f != "inf" or p.straight_through:
            return super().raw(p, gradients)
        scaled = []
        for F, G in zip(p.factors, gradients, strict=True):
            norm = np.abs(F).sum(axis=1).max(initial=0.0)
            scaled.append(G if norm <= p.kappa else (G * (p.kappa / norm)).astype(G.dtype))
        return by_name(tuple(scaled))


@bug(
    "the pullback of f = rows takes all nonzero entries of a row outside of the ball as the support, also those "
    "that the projection sets to 0"
)
class SupportOfRawRow(Plain):
    def raw(self, p, gradients):
        if p.f != "rows" or p.straight_through:
            return super().raw(p, gradients)
        pulled = []
        for F, G in zip(p.factors, gradients, strict=True):
            sign = np.sign(F)
            count = np.maximum(np.abs(sign).sum(axis=1, keepdims=True), 1)
            tangent = np.abs(sign) * G - sign * (sign * G).sum(axis=1, keepdims=True) / count
            outside = np.abs(F).sum(axis=1, keepdims=True) > p.kappa
            pulled.append(np.where(outside, tangent, G))
        return by_name(tuple(pulled))


@bug(
    "the gradient of C is G_Y P^T with the preactivation P, because the backward pass has overwritten the buffer of"
    " X with it, always (no effect for identity)"
)
class PreactivationInGradientOfC(Plain):
    def gradients(self, p, X, V, G_Y):
        return super().gradients(p, X, V, G_Y) | {"C": G_Y @ self.preactivation(p, X).T}


# --- the rest ---------------------------------------------------------------------------------------------------------


@bug("products with A and A^T round their operands to the 11 bits of TF32, as tensor cores do, in float32 only")
class TensorCoreTF32(Plain):
    def apply(self, factors, X):
        if X.dtype != np.float32:
            return super().apply(factors, X)
        for F in reversed(factors):
            X = rounded(F, 11) @ rounded(X, 11)
        return X


@bug(
    "the host looks at convergence only after every eighth step, so that counts are rounded up to a multiple of 8, "
    "and an earlier end by max_iter is reported as not converged, always"
)
class PollsEveryEighthStep(Plain):
    def iterate(self, g, noise, Z, X, p):
        self.steps = 0
        return super().iterate(g, noise, Z, X, p)

    def done(self, step, stop):
        self.steps += 1
        done = super().done(step, stop)
        return done if self.steps % 8 == 0 else np.zeros_like(done)


@bug(
    "vjp takes the caller's G_Y as a workspace and leaves it overwritten with zeros, always where it is writable; "
    "the gradients are right"
)
class CotangentConsumed(Plain):
    def vjp(self, p, G_Y):
        out = super().vjp(p, G_Y)
        if G_Y.flags.writeable:
            G_Y[...] = 0
        return out


@bug(
    "the device buffer of X is not cleared: without X0, a call starts where the last one of the same shape and "
    "dtype ended, from the second such call on"
)
class DeviceBufferNotCleared(Plain):
    def __init__(self):
        self.buffers = {}

    def start(self, p, Z):
        kept = self.buffers.get((Z.shape, Z.dtype))
        return super().start(p, Z) if p.X0 is not None or kept is None else kept.copy()

    def equilibrium(self, p):
        X, converged, k = super().equilibrium(p)
        self.buffers[X.shape, X.dtype] = X.copy()
        return X, converged, k


@bug(
    "four threads take max(1, m // 4) columns each, so that the remaining columns keep their start and are reported"
    " as converged, for m > 4 that is not a multiple of 4"
)
class RemainderColumnsNotSolved(Plain):
    def equilibrium(self, p):
        X, converged, k = super().equilibrium(p)
        solved = 4 * max(1, X.shape[1] // 4)
        if solved < X.shape[1]:
            X, converged = X.copy(), converged.copy()
            X[:, solved:] = self.start(p, self.Z(p))[:, solved:]
            converged[solved:] = True
        return X, converged, k


@bug(
    "the largest step is reduced with fmax, which drops NaN, and fast-math removes the check for finite numbers: a "
    "column with NaN or infinities is reported as converged"
)
class FmaxDropsNaN(Plain):
    def done(self, step, stop):
        return ~np.any(step > stop, axis=0)

    def verdict(self, done, G):
        return done


@bug(
    "for low rank, f maps each factor with the radius sqrt(kappa) instead of kappa (for f = perron too), forward "
    "and pullback"
)
class RootOfKappaForFactors(Plain):
    def function(self, p):
        if p.L is None or p.f == "none":
            return super().function(p)
        return FUNCTIONS[p.f](p.kappa**0.5, p.straight_through)


@bug(
    "all columns start from the first column of X0, for m > 1, only where an X0 is given: other iteration counts, "
    "and another X at a limit"
)
class FirstColumnOfX0(Plain):
    def start(self, p, Z):
        return super().start(p, Z) if p.X0 is None else np.broadcast_to(p.X0[:, :1], Z.shape).copy()


@bug(
    "forward returns X and Y in workspaces that it keeps by shape and dtype: the next call with the same sizes "
    "overwrites the earlier result, always"
)
class ResultsShareWorkspace(Plain):
    def __init__(self):
        self.workspace = {}

    def forward(self, p):
        out = super().forward(p)
        for name in ("X", "Y"):
            M = out[name]
            kept = self.workspace.setdefault((name, M.shape, M.dtype), np.empty_like(M))
            kept[...] = M
            out[name] = kept
        return out


# ===== the second author ==============================================================================================


# --- forward ----------------------------------------------------------------------------------------------------------


@bug("U is taken as samples in rows, and transposed, whenever it is square (p = m), in forward and vjp")
class SquareBatchTransposed(Plain):
    def turned(self, p):
        return p.with_arrays({"U": p.U.T}) if p.U.shape[0] == p.U.shape[1] else p

    def forward(self, p):
        return super().forward(self.turned(p))

    def vjp(self, p, G_Y):
        out = super().vjp(self.turned(p), G_Y)
        if p.U.shape[0] == p.U.shape[1]:
            out["U"] = out["U"].T
        return out


@bug(
    "Z is added after the activation, X = phi(A X) + Z, and slopes are taken at A X; for every activation but identity"
)
class InjectsAfterActivation(Plain):
    def equilibrium(self, p):
        A, Z, lipschitz = self.factors(p), self.Z(p), activations.get(p.activation).lipschitz
        g = lambda X: self.phi(p, self.apply(A, X)) + Z  # noqa: E731
        return self.iterate(g, lambda X: self.noise(A, lipschitz, Z, X), Z, self.start(p, Z), p)

    def preactivation(self, p, X):
        return self.apply(self.factors(p), X)


@bug(
    "both iterations are unrolled to exactly 30 steps without a test, whatever tol and max_iter are, and every "
    "finite column is reported as converged after 30"
)
class UnrolledThirty(Plain):
    def iterate(self, g, noise, Z, X, p):
        for _ in range(30):
            X = g(X)
        return X, np.isfinite(X).all(axis=0), 30


@bug(
    "the test of convergence is that of allclose(G, X, atol=tol) with its default rtol = 1e-5 left in, so that an "
    "entry also counts as converged when it changes by less than 1e-5 of its size, in forward and adjoint, always"
)
class AllcloseDefaultRtol(Plain):
    def noise(self, factors, slopes, Z, X):
        relative = np.where(np.isfinite(X), 1e-5 * np.abs(X), 0)
        return (super().noise(factors, slopes, Z, X) + relative).astype(X.dtype)


@bug(
    "the tolerance is scaled by the largest |Z| of the whole batch instead of that of the column, so that columns "
    "with |z| < 1 stop too early when they come with larger ones (m > 1), in forward and adjoint"
)
class ToleranceOfWholeBatch(Plain):
    def stop(self, p, z, noise):
        return super().stop(p, np.full_like(z, z.max(initial=0)), noise)


@bug(
    "columns that have converged leave the batch, but are written back to their position among the columns still "
    "active instead of their own, so that answers land in wrong columns when columns converge at different steps (m"
    " > 1)"
)
class ScatterByCompactedIndex(Plain):
    def iterate(self, g, noise, Z, X, p):
        if X.size == 0:
            return X, np.ones(X.shape[1], bool), 0
        z, active = np.abs(Z).max(axis=0), np.arange(X.shape[1])
        out, converged = X.copy(), np.zeros(X.shape[1], bool)
        for k in range(1, self.limit(p) + 1):  # noqa: B007
            G = g(X)
            done = self.done(np.abs(G - X), self.stop(p, z, noise(G)))
            local = np.flatnonzero(done[active])
            out[:, local] = G[:, active[local]]  # should be out[:, active[local]]
            converged[active[local]] = True
            active = active[~done[active]]
            X = G
            if active.size == 0:
                break
        out[:, active] = X[:, active]
        return out, converged & np.isfinite(out).all(axis=0), k


@bug(
    "the X that forward returns is the preactivation A X + Z instead of phi of it; Y and gradients are right; "
    "always where phi is not the identity there"
)
class ReturnsPreactivation(Plain):
    def forward(self, p):
        out = super().forward(p)
        with np.errstate(all="ignore"):
            return out | {"X": self.preactivation(p, out["X"])}


@bug(
    "f = 'perron' divides by the spectral radius of A, max |eigvals(A)|, instead of that of |A| (for low rank by "
    "that of L R^T), which scales too little where A has entries of both signs"
)
class PerronOfSignedMatrix(Plain):
    def factors(self, p):
        if p.f != "perron":
            return super().factors(p)
        low_rank = len(p.factors) == 2
        M = p.factors[1] @ p.factors[0] if low_rank else p.factors[0]
        radius = np.abs(np.linalg.eigvals(M.astype(np.float64))).max(initial=0.0) if M.size else 0.0
        radius = radius**0.5 if low_rank else radius
        scale = M.dtype.type(min(1.0, p.kappa / radius) if radius > 0 else 1.0)
        return tuple(F * scale for F in p.factors)


@bug(
    "in a problem with a bias (last row of U all 1) and a D, the bias enters Z only: the readout leaves out the "
    "last column of D, whose gradient is 0"
)
class BiasNotInReadout(Plain):
    def has_bias(self, p):
        return p.D is not None and p.U.size > 0 and bool((p.U[-1] == 1).all())

    def readout(self, p, X):
        return p.C @ X + p.D[:, :-1] @ p.U[:-1] if self.has_bias(p) else super().readout(p, X)

    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if self.has_bias(p):
            out["D"][:, -1] = 0
        return out


@bug(
    "f = 'inf' divides by the infinity norm always, kappa A / norm, so that a matrix (or factor) with a norm below "
    "kappa is scaled up to kappa"
)
class ScalesUpToKappa(Plain):
    def factors(self, p):
        if p.f != "inf":
            return super().factors(p)
        norms = [np.abs(F).sum(axis=1).max(initial=0.0) for F in p.factors]
        return tuple(
            (F * (p.kappa / norm)).astype(F.dtype) if norm > 0 else F for F, norm in zip(p.factors, norms, strict=True)
        )


# --- gradients --------------------------------------------------------------------------------------------------------


@bug(
    "the backward hook solves for V including phi', and autograd then passes V through phi once more, so that all "
    "gradients behind it have the slope twice; wrong wherever a slope is neither 0 nor 1"
)
class HookThenSlopeAgain(Plain):
    def vjp(self, p, G_Y):
        with np.errstate(all="ignore"):
            X = self.equilibrium(p)[0]
            S = self.slope(p, self.preactivation(p, X))
            return self.gradients(p, X, S * self.adjoint(p, S, self.G(p, G_Y)), G_Y)


@bug(
    "the adjoint is solved for the gradient of X, W = A^T (phi' W) + G, and W is used as V without the factor phi',"
    " so that even units with slope 0 get gradients; always where a slope is not 1"
)
class GradientOfXAsV(Plain):
    def adjoint(self, p, S, G):
        At = self.transposed(self.factors(p))
        noise = lambda W: self.noise(At, 1.0, G, W)  # noqa: E731
        return self.iterate(lambda W: self.apply(At, S * W) + G, noise, G, np.zeros_like(G), p)[0]


@bug(
    "the Jacobian of the adjoint is built once, from the slopes of the first sample, for the whole batch (m > 1); "
    "the last factor phi' is that of each sample; wrong where slopes differ between samples"
)
class JacobianOfFirstSample(Plain):
    def adjoint(self, p, S, G):
        first = np.broadcast_to(S[:, :1], S.shape)
        At = self.transposed(self.factors(p))
        V = super().adjoint(p, first, G)
        return S * (self.apply(At, V) + G)


@bug(
    "for low rank, the gradients of L and R are formed with the raw factors instead of the effective ones; wrong "
    "only where f changes the factors"
)
class RawFactorsInGradients(Plain):
    def gradients(self, p, X, V, G_Y):
        out = super().gradients(p, X, V, G_Y)
        if p.L is not None:
            out |= self.raw(p, self.factor_gradients(p.factors, X, V))
        return out


@bug(
    "for low rank, the gradient of R^T, (r, n), is brought to the shape (n, r) of R by a reshape instead of a "
    "transpose; wrong for r > 1 and n > 1"
)
class ReshapedR(Plain):
    def raw(self, p, gradients):
        out = super().raw(p, gradients)
        if "R" in out:
            out["R"] = np.ascontiguousarray(out["R"].T).reshape(out["R"].shape)
        return out


@bug(
    "the backward products with C, B and D go through a helper that transposes a matrix only if its shape does not "
    "fit otherwise, so that C^T, B^T or D^T is not transposed where q = n, n = p or q = p"
)
class TransposesOnlyIfNeeded(Plain):
    def fit(self, M, V):
        return M @ V if M.shape[1] == V.shape[0] else M.T @ V

    def G(self, p, G_Y):
        return self.fit(p.C, G_Y)

    def gradients(self, p, X, V, G_Y):
        U = self.fit(p.B, V)
        return super().gradients(p, X, V, G_Y) | {"U": U if p.D is None else U + self.fit(p.D, G_Y)}


@bug(
    "the pullback of f = 'inf' treats the norm as a constant (computed under no_grad): (kappa/norm) G without the "
    "term of the largest row; wrong only where the norm exceeds kappa and straight_through is off"
)
class NormDetached(Plain):
    def raw(self, p, gradients):
        if p.f != "inf" or p.straight_through:
            return super().raw(p, gradients)
        norms = [np.abs(F).sum(axis=1).max(initial=0.0) for F in p.factors]
        return by_name(
            tuple(
                (G * (p.kappa / max(p.kappa, norm) if p.kappa else 0.0)).astype(G.dtype)
                for G, norm in zip(gradients, norms, strict=True)
            )
        )


@bug(
    "the adjoint solution reaches the weights only: the gradient of U uses the one-step V = phi' G of the last "
    "application of the map instead, B^T (phi' C^T G_Y) + D^T G_Y; always"
)
class InputBypassesAdjoint(Plain):
    def vjp(self, p, G_Y):
        out = super().vjp(p, G_Y)
        with np.errstate(all="ignore"):
            S = self.slope(p, self.preactivation(p, self.equilibrium(p)[0]))
            U = p.B.T @ (S * self.G(p, G_Y))
            return out | {"U": U if p.D is None else U + p.D.T @ G_Y}


@bug(
    "gradients of the weights (not of U) are added to those of earlier vjp calls of the object with the same shapes"
    " and dtype, because .grad is never zeroed; from the second such call on"
)
class GradientsAccumulate(Plain):
    def __init__(self):
        self.grad = {}

    def vjp(self, p, G_Y):
        out = super().vjp(p, G_Y)
        key = (p.dtype.name, *((name, g.shape) for name, g in out.items()))
        before = self.grad.get(key, {})
        out = {name: g + before[name] if name in before else g for name, g in out.items()}
        self.grad[key] = {name: g.copy() for name, g in out.items() if name != "U"}
        return out


# --- the rest ---------------------------------------------------------------------------------------------------------


@bug(
    "a float64 problem is computed in float32 throughout and cast back at the end, because x64 is disabled; always "
    "in float64"
)
class X64Disabled(Plain):
    def narrow(self, p):
        if p.dtype != np.float64:
            return p
        arrays = {name: M.astype(np.float32) for name, M in p.arrays.items()}
        return replace(p, dtype=np.dtype("float32"), **arrays)

    def forward(self, p):
        out = super().forward(self.narrow(p))
        return out | {name: out[name].astype(p.dtype) for name in ("X", "Y")}

    def vjp(self, p, G_Y):
        out = super().vjp(self.narrow(p), G_Y.astype(self.narrow(p).dtype))
        return {name: g.astype(p.dtype) for name, g in out.items()}


@bug(
    "in float32, the products A X and A^T V round their operands to TF32 (10 bits after the point), only where n is"
    " a multiple of 8, for which tensor cores are chosen"
)
class TensorCoresInFloat32(Plain):
    def tf32(self, M):
        bits = np.array(M, np.float32, order="C").view(np.uint32)
        return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)

    def apply(self, factors, X):
        if X.dtype == np.float32 and X.shape[0] % 8 == 0 and X.size:
            factors, X = tuple(map(self.tf32, factors)), self.tf32(X)
        return super().apply(factors, X)


@bug(
    "forward returns its workspace, which the next forward of the object with the same shape and dtype overwrites, "
    "so that X and Y of an earlier call change afterwards"
)
class ReturnsWorkspace(Plain):
    def __init__(self):
        self.workspace = {}

    def forward(self, p):
        out = super().forward(p)
        for name in ("X", "Y"):
            key = name, out[name].shape, out[name].dtype.name
            space = self.workspace.setdefault(key, np.empty_like(out[name]))
            space[...] = out[name]
            out[name] = space
        return out


@bug(
    "A, Z and X of the call are attributes of the object, read again in every step, so that calls in other threads "
    "on the same object replace them in the middle of an iteration; right in one thread"
)
class CallStateOnObject(Plain):
    def equilibrium(self, p):
        lipschitz = activations.get(p.activation).lipschitz
        self.A_, self.Z_ = self.factors(p), self.Z(p)
        g = lambda X: self.phi(p, self.apply(self.A_, X) + self.Z_)  # noqa: E731
        noise = lambda X: self.noise(self.A_, lipschitz, self.Z_, X)  # noqa: E731
        self.X_, converged, k = self.iterate(g, noise, self.Z_, self.start(p, self.Z_), p)
        return self.X_, converged, k

    def preactivation(self, p, X):
        return self.apply(self.A_, self.X_) + self.Z_

    def readout(self, p, X):
        return super().readout(p, self.X_)


@bug(
    "tol, max_iter and kappa are baked in when the function is compiled for a signature (shapes, dtype, activation,"
    " f, which arrays there are), so that later calls with the same signature use those of the first"
)
class SettingsBakedAtCompile(Plain):
    def __init__(self):
        self.compiled = {}

    def baked(self, p):
        shapes = tuple((name, M.shape) for name, M in p.arrays.items())
        key = shapes, p.storage, p.activation, p.f, p.straight_through
        return replace(p, **self.compiled.setdefault(key, {"tol": p.tol, "max_iter": p.max_iter, "kappa": p.kappa}))

    def forward(self, p):
        return super().forward(self.baked(p))

    def vjp(self, p, G_Y):
        return super().vjp(self.baked(p), G_Y)


@bug(
    "the loop runs while a step is above the tolerance, which a NaN never is, so that a column that overflows to "
    "NaN ends the iteration and is reported as converged; only for columns that are not finite"
)
class NaNCountsAsConverged(Plain):
    def done(self, step, stop):
        return ~np.any(step > stop, axis=0)

    def verdict(self, done, G):
        return done


@bug(
    "convergence is tested only after every eighth step of a compiled block, so that counts are multiples of 8 and "
    "max_iter is rounded up to one; always"
)
class TestsEveryEighthStep(Plain):
    def iterate(self, g, noise, Z, X, p):
        if X.size == 0:
            return X, np.ones(X.shape[1], bool), 0
        z, k, G = np.abs(Z).max(axis=0), 0, X
        while k < self.limit(p):
            for _ in range(8):
                X, G = G, g(G)
            k += 8
            done = self.done(np.abs(G - X), self.stop(p, z, noise(G)))
            if done.all() or (k % 64 == 0 and (done | ~np.isfinite(G).all(axis=0)).all()):
                break
        return G, self.verdict(done, G), k


@bug(
    "the iteration works in the memory of X0, so that the caller's X0 holds the solution after a call; only where "
    "X0 is given and writable"
)
class OverwritesX0(Plain):
    def equilibrium(self, p):
        result = super().equilibrium(p)
        if p.X0 is not None and p.X0.flags.writeable:
            p.X0[...] = result[0]
        return result


@bug(
    "an empty array anywhere in the problem (n, p, q, m or r = 0) makes it return at once with X, Y and all "
    "gradients 0, although phi(0), D U and the other gradients need not be 0"
)
class EmptyMeansZero(Plain):
    def empty(self, p):
        return any(M.size == 0 for M in p.arrays.values())

    def forward(self, p):
        if not self.empty(p):
            return super().forward(p)
        n, _, q, m = p.sizes
        return {
            "Y": np.zeros((q, m), p.dtype),
            "X": np.zeros((n, m), p.dtype),
            "converged": np.ones(m, bool),
            "iterations": np.zeros(m, int),
        }

    def vjp(self, p, G_Y):
        if not self.empty(p):
            return super().vjp(p, G_Y)
        return {name: np.zeros_like(M) for name, M in p.arrays.items() if name != "X0"}


@bug(
    "vjp pads the batch to a multiple of 8 by repeating the last sample, with its G_Y too, so that this sample "
    "counts several times in the gradients of the weights; only where m is not a multiple of 8"
)
class PaddedWithLastSample(Plain):
    def vjp(self, p, G_Y):
        m = p.U.shape[1]
        if m % 8 == 0:
            return super().vjp(p, G_Y)
        pad: Any = lambda M: np.concatenate([M, np.repeat(M[:, -1:], -m % 8, axis=1)], axis=1)  # noqa: E731
        samples = {name: pad(M) for name, M in p.arrays.items() if name in ("U", "X0")}
        out = super().vjp(p.with_arrays(samples), pad(G_Y))
        return out | {"U": out["U"][:, :m]}
