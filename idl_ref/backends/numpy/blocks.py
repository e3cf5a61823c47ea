"""This module solves an equation by blocks of units, of which only cycles are iterated; see `idl_ref.blocks`.

In the adjoint equation, V_b = S_b ∘ (Σ_c (Aᵀ)_bc V_c + (Aᵀ)_bb V_b + G_b) in the order of the blocks of Aᵀ.

The error of a block follows from those of the blocks before it. Let e_b be a bound of ‖x*_b − x̂_b‖, N_bc = ‖A_bc‖,
and let rounding change P_b by at most ρ_b. Then P_b differs by at most δ_b = Σ_c N_bc e_c + ρ_b from that of the exact
solution, and

    e_b = Lip(φ) δ_b + the rounding of φ           for units without a cycle
    e_b = Lip(φ) δ_b / (1 − κ_b) + the bound of the equation of the block, as it was solved      for a cycle

with κ_b = Lip(φ) ‖A_bb‖∞; where κ_b ≥ 1, ‖(I − Lip(φ)|A_bb|)⁻¹‖ takes the place of 1/(1 − κ_b). The norms are ∞-norms,
and the largest e_b bounds the error of X; they are 1-norms in the adjoint equation, with max(S_b) for Lip(φ), and the
sum of the e_b bounds the error of V. A feed-forward net has a bound, however large its weights are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import numpy as np

from idl_ref import certificate
from idl_ref import factors as fac
from idl_ref.activations import Activation, get
from idl_ref.backends.equation import Equation
from idl_ref.blocks import Block, as_range
from idl_ref.certificate import SAFETY, ULPS, asked_step, column_max
from idl_ref.solution import Solution, SolveOptions, Status

LINEAR = get("identity")


class Layer(Protocol):
    """What this module needs of a layer."""

    activation: Activation

    @property
    def memory(self) -> Literal["C", "F"]: ...

    def multiply(self, F: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return F X."""

    def part(self, A: np.ndarray, activation: Activation) -> Layer:
        """Return a layer for the equation of some units, with their A and their φ."""

    def iterate(self, equation: Equation, X0: np.ndarray | None, options: SolveOptions) -> Solution:
        """Solve an equation."""


class Part(NamedTuple):
    """A block with what is computed once for it."""

    block: Block
    norms: np.ndarray  # upper bounds of the norms ‖F_bc‖ for its sources c: ∞-norms, or 1-norms in the adjoint equation
    rounding: certificate.Rounding  # the constants of one product with F, and ‖A_bb‖∞
    layer: Layer | None  # the layer that solves the equation of a cycle
    activation: Activation  # the function f of the equation for its units

    @classmethod
    def of(cls, block: Block, adjoint: bool, layer: Layer) -> Part:
        """Return the part for a block of the forward or of the adjoint equation of a layer."""
        own, norm, phi = None, 0.0, layer.activation.take(block.rows)
        if block.cycle is not None:
            A = block.cycle.T if adjoint else block.cycle
            scaled = (A,) if adjoint else certificate.contracting((A,), phi)
            own, norm = layer.part(A, phi), SAFETY * fac.norm_inf(scaled)
        rounding = certificate.rounding((block.F,), phi, block.F.dtype, norm)
        return cls(block, _norms(block, adjoint), rounding, own, LINEAR if adjoint else phi)


class Columns:
    """What is known of the columns of an equation, block by block.

    Attributes
    ----------
    constants, sizes, errors : (blocks, m) arrays
        The norms of the constant terms, those of the answers, and the bounds of their errors.
    lipschitz : (blocks, m) array
        Lip(φ), in the adjoint equation max(S_b).
    """

    def __init__(self, parts: tuple[Part, ...], equation: Equation, X0: np.ndarray | None, X: np.ndarray) -> None:
        m = equation.Z.shape[1]
        self.parts, self.equation, self.X0, self.X = parts, equation, X0, X
        self.status, self.iterations = np.zeros(m, np.int8), np.ones(m, np.intp)
        self.step = np.zeros(m)
        self.constants, self.sizes, self.errors = np.zeros((3, len(parts), m))
        each = [part.rounding.lipschitz if equation.S is None else np.nan for part in parts]
        self.lipschitz = np.repeat(np.reshape(each, (-1, 1)), m, axis=1)

    def measure(self) -> None:
        """Compute the norms of what is given."""
        (_, _, S, Z) = self.equation
        for number, part in enumerate(self.parts):
            rows = part.block.rows
            self.constants[number] = _size(Z[rows], S is not None)
            if S is not None:
                self.lipschitz[number] = column_max(S[rows])

    @cached_property
    def asked(self) -> np.ndarray:
        """The largest step of each column in units of tol, min(1, ‖z‖∞).   (m,)"""
        return asked_step(
            1.0, column_max(self.equation.Z) if self.equation.S is not None else self.constants.max(axis=0)
        )

    def bound(self, number: int, own: np.ndarray | float | None = None) -> None:
        """Bound the errors of a block by those of earlier blocks, and by `own`, that of its equation as it was solved.

        Without an `own`, the block has no cycle, and its own error is the rounding of φ.
        """
        part, adjoint = self.parts[number], self.equation.S is not None
        if own is None:
            r, entries = part.rounding, len(part.block.F)
            own = ULPS * r.unit * self.sizes[number] + r.underflow * (entries if adjoint else 1)
        self.errors[number] = SAFETY * (own + _passed_on(self, number, part))

    def solution(self) -> Solution:
        """Return the solution; a column is NaN if it, or what it is computed from, is not finite."""
        started = np.isfinite(self.constants).all(axis=0) & np.isfinite(self.lipschitz).all(axis=0)
        if self.X0 is not None:
            started &= np.isfinite(self.X0).all(axis=0)
        lost = ~(started & np.isfinite(self.sizes).all(axis=0))
        bound = self.errors.max(axis=0, initial=0.0) if self.equation.S is None else _sum(self.errors)
        if lost.any():
            self.X[:, lost], self.step[lost], bound[lost] = np.nan, np.nan, np.inf
            self.status[lost], self.iterations[~started] = int(Status.NONFINITE), 0
        return Solution(self.X, self.status, self.iterations, self.step, np.where(np.isfinite(bound), bound, np.inf))


def constant(layer: Layer, parts: tuple[Part, ...], B: np.ndarray, U: np.ndarray) -> np.ndarray:
    """Return Z = B U; the units of a block read only the inputs on which they depend.   U (p, m) -> (n, m)"""
    Z = np.empty((len(B), U.shape[1]), U.dtype, layer.memory)
    for part in parts:
        of_block = B[part.block.rows]
        inputs = as_range(np.flatnonzero(of_block.any(axis=0)))
        Z[part.block.rows] = layer.multiply(of_block[:, inputs], U[inputs])
    Z[:, ~np.isfinite(U).all(axis=0)] = np.nan  # An input that is not finite counts even if no block reads it.
    return Z


def solve(
    layer: Layer, parts: tuple[Part, ...], equation: Equation, X0: np.ndarray | None, options: SolveOptions
) -> Solution:
    """Solve an equation of a layer by its blocks, each of which is computed from those before it.

    A column has taken as many iterations as the block that took most of them; units without a cycle take one. Its step
    is the largest one of its blocks.
    """
    columns = Columns(parts, equation, X0, np.empty_like(equation.Z))
    with np.errstate(over="ignore", invalid="ignore"):  # The status of a column reports overflow, not a warning.
        columns.measure()
        for number, part in enumerate(parts):
            block = part.block
            P = equation.Z[block.rows]
            if block.sources.size:
                P = layer.multiply(block.F, columns.X[block.columns])
                P += equation.Z[block.rows]
            S = None if equation.S is None else equation.S[block.rows]
            own = Equation(() if block.cycle is None else (block.cycle,), part.activation, S, P)
            _settle(columns, number, own, options)
    return columns.solution()


def _settle(columns: Columns, number: int, own: Equation, options: SolveOptions) -> None:
    """Compute the units of a block from their P, which is the constant term of `own`, and bound their errors."""
    part = columns.parts[number]
    if part.layer is None:
        G, bound = own.activation.phi(own.Z), None
        G = G if own.S is None else own.S * G
    else:
        solution = _cycle(columns, part, own, options)
        G, bound = solution.X, solution.error_bound
    columns.X[part.block.rows], columns.sizes[number] = G, _size(G, own.S is not None)
    columns.bound(number, bound)


def _cycle(columns: Columns, part: Part, own: Equation, options: SolveOptions) -> Solution:
    """Solve the equation of a cycle so that its steps are small relative to the ‖z‖ of the whole column.

    A step may be tol·min(1, ‖z‖), but the equation of the block has P for z, which may be larger. Columns are solved
    with a smaller tol where it is, by a power of two, which the other columns have no part in.
    """
    assert part.layer is not None
    rows, m = part.block.rows, own.Z.shape[1]
    start = None if columns.X0 is None else columns.X0[rows]
    asked, theirs = columns.asked, asked_step(1.0, column_max(own.Z))
    with np.errstate(divide="ignore"):
        ratio = np.where(theirs > asked, asked / theirs, 1.0)
        share = np.where(ratio > 0, np.exp2(np.floor(np.log2(ratio))), 0.0)
    share[~np.isfinite(share)] = 1.0
    found = Solution(np.empty_like(own.Z), *(np.empty(m, t) for t in (np.int8, np.intp, np.float64, np.float64)))
    for factor in np.unique(share):
        some = np.flatnonzero(share == factor) if (share != factor).any() else slice(None)
        asks = replace(options, tol=options.tol * float(factor), method="auto", certificate="fast")
        answer = part.layer.iterate(own.take(some), None if start is None else start[:, some], asks)
        found.X[:, some], found.error_bound[some] = answer.X, answer.error_bound
        found.status[some], found.iterations[some], found.step[some] = answer.status, answer.iterations, answer.step
    columns.status = np.maximum(columns.status, found.status)
    columns.iterations = np.maximum(columns.iterations, found.iterations)
    columns.step = np.maximum(columns.step, found.step)
    return found


def _passed_on(columns: Columns, number: int, part: Part) -> np.ndarray:
    """Return what the errors of earlier blocks, and the rounding of P, add to the error of a block.   -> (m,)"""
    block, r, adjoint = part.block, part.rounding, columns.equation.S is not None
    if not block.sources.size:
        return np.zeros(columns.X.shape[1])
    lipschitz = columns.lipschitz[number]
    norms = part.norms[:, None]
    incoming = _sum(norms * columns.errors[block.sources])
    size = _sum(norms * columns.sizes[block.sources]) + columns.constants[number]
    delta = lipschitz * (incoming + r.gamma * size + r.underflow * (len(block.F) if adjoint else 1))
    if block.cycle is None:
        return delta
    forward = (block.cycle.T,) if adjoint else certificate.contracting((block.cycle,), part.activation)
    return certificate.divide(delta, lipschitz * r.norm, lipschitz, forward, adjoint)


def _sum(terms: np.ndarray) -> np.ndarray:
    """Return the sums of the columns, whose order is the same for any number of columns.   (k, m) -> (m,)"""
    return np.cumsum(terms, axis=0)[-1]


def _norms(block: Block, adjoint: bool) -> np.ndarray:
    """Return ‖F_bc‖ for the sources c of a block, rounded up: 1-norms in the adjoint equation, otherwise ∞-norms."""
    sizes = np.abs(block.F[:, block.sorting]).astype(np.float64)
    if not block.sources.size:
        return np.zeros(0)
    if adjoint:
        return SAFETY * np.maximum.reduceat(sizes.sum(axis=0), block.starts)
    return SAFETY * np.add.reduceat(sizes, block.starts, axis=1).max(axis=0)


def _size(M: np.ndarray, adjoint: bool) -> np.ndarray:
    """Return the norm of each column in float64, the 1-norm in the adjoint equation, otherwise the ∞-norm.   -> (m,)"""
    if adjoint:
        return SAFETY * np.abs(M).sum(axis=0, dtype=np.float64)
    return np.maximum(M.max(axis=0, initial=0.0), -M.min(axis=0, initial=0.0)).astype(np.float64)
