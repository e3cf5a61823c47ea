"""Other arithmetic: more precision, other orders of summation, padding, loops and fractions."""

from dataclasses import replace
from math import fsum

import numpy as np

from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.truth import exact
from idl_ref.conformance.truth.backend import EVERYTHING
from right_backends.base import right
from right_backends.methods import Newton


class Inside(Plain):
    """Computes in another dtype, and rounds the answers to that of the problem."""

    dtype = np.dtype("float64")

    def inside(self, p):
        return replace(p.with_arrays({name: M.astype(self.dtype) for name, M in p.arrays.items()}), dtype=self.dtype)

    def forward(self, p):
        out = super().forward(self.inside(p))
        return {name: M.astype(p.dtype) if name in "XY" else M for name, M in out.items()}

    def vjp(self, p, G_Y):
        return {name: M.astype(p.dtype) for name, M in super().vjp(self.inside(p), G_Y.astype(self.dtype)).items()}


@right
class Float64Inside(Inside):
    """Solves in float64, also for float32 problems."""


@right
class ExtendedInside(Inside):
    """Solves in the extended precision of x87, where NumPy has it."""

    dtype = np.dtype("longdouble")

    def noise(self, factors, slopes, Z, X):  # Its smallest number is 4e-4951, which takes too long to reach.
        return np.maximum(super().noise(factors, slopes, Z, X), 1e-323)


@right
class Float64Sums(Plain):
    """Keeps everything in the dtype of the problem, but sums in float64."""

    def apply(self, factors, X):
        return super().apply(tuple(F.astype(np.float64) for F in factors), X.astype(np.float64)).astype(X.dtype)


@right
class RandomOrder(Plain):
    """Sums in another order in every application, as atomic additions on a device do."""

    capabilities = EVERYTHING | {"deterministic": False}

    def apply(self, factors, X):
        for F in reversed(factors):
            order = np.random.default_rng().permutation(len(X))
            X = F[:, order] @ X[order]
        return X


@right
class ChunkedEinsum(Plain):
    """Sums chunks of three terms, chunk after chunk."""

    def apply(self, factors, X):
        for F in reversed(factors):
            chunks = [np.einsum("ij,jk->ik", F[:, i : i + 3], X[i : i + 3]) for i in range(0, len(X), 3)]
            X = sum(chunks, np.zeros((len(F), X.shape[1]), X.dtype))
        return X


@right
class SamplesFirst(Plain):
    """Multiplies with samples as rows, as most frameworks do."""

    def apply(self, factors, X):
        rows = np.ascontiguousarray(X.T)
        for F in reversed(factors):
            rows = rows @ F.T
        return rows.T


@right
class Multiplied(Plain):
    """Multiplies L Rᵀ out once, and iterates with the dense matrix."""

    def equilibrium(self, p):
        self.product = {id(F): None for F in self.factors(p)}
        return super().equilibrium(p)

    def apply(self, factors, X):
        return (factors[0] if len(factors) == 1 else factors[0] @ factors[1]) @ X


@right
class Padded(Plain):
    """Pads every size to a multiple of 8 by zeros, computes, and cuts the answers."""

    capabilities = EVERYTHING

    def padded(self, M):
        return np.pad(M, [(0, -length % 8) for length in M.shape])

    def forward(self, p):
        out = super().forward(p.with_arrays({name: self.padded(M) for name, M in p.arrays.items()}))
        (n, _, q, m), cut = p.sizes, {}
        for name, M in out.items():
            cut[name] = {"X": M[:n], "Y": M[:q]}.get(name, M)[..., :m]
        return cut

    def vjp(self, p, G_Y):
        out = super().vjp(p.with_arrays({name: self.padded(M) for name, M in p.arrays.items()}), self.padded(G_Y))
        return {name: M[tuple(map(slice, getattr(p, name).shape))] for name, M in out.items()}


@right
class RowLoop(Newton):
    """Adds the products of each entry in a Python loop, with one rounding per sum, unless there are too many."""

    def apply(self, factors, X):
        if X.size > 200:
            return super().apply(factors, X)
        for F in reversed(factors):
            sums = [[self.total(row * column) for column in X.T] for row in F]
            X = np.array(sums, X.dtype).reshape(len(F), X.shape[1])
        return X

    def total(self, terms):
        return fsum(terms.tolist()) if np.isfinite(terms).all() else terms.sum()


@right
class Permuted(Plain):
    """Renames the hidden units before it solves, as a reordering for sparse matrices does, and names them back."""

    def ordered(self, p):
        order = np.arange(len(p.B))[::-1]
        ways = {"A": np.ix_(order, order), "L": order, "R": order, "B": order, "X0": order, "C": np.s_[:, order]}
        return p.with_arrays({name: M[ways[name]] if name in ways else M for name, M in p.arrays.items()}), ways

    def forward(self, p):
        changed, ways = self.ordered(p if p.f != "triu" else replace(p, A=p.function.effective((p.A,))[0], f="none"))
        out = super().forward(changed)
        return {**out, "X": out["X"][ways["X0"]]}

    def vjp(self, p, G_Y):
        if p.f == "triu":
            return super().vjp(p, G_Y)
        changed, ways = self.ordered(p)
        return {name: M[ways[name]] if name in ways else M for name, M in super().vjp(changed, G_Y).items()}


@right
class Exact(Plain):
    """Solves in rational numbers, and rounds once; it raises where there is no answer."""

    capabilities = EVERYTHING | {"activations": ["identity", "relu", "leaky_relu", "hardtanh"]}

    def solved(self, p, G_Y):
        return {name: M.astype(p.dtype) for name, M in exact.answer(p, G_Y).arrays.items()}

    def forward(self, p):
        out = self.solved(p, np.zeros((len(p.C), p.U.shape[1]), p.dtype))
        return {"X": out["X"], "Y": out["Y"]}

    def vjp(self, p, G_Y):
        return {name: M for name, M in self.solved(p, G_Y).items() if name not in ("X", "Y", "V")}
