"""Large problems made of copies of a small one, whose exact answers follow from those of the small one.

Unit i of the large problem is a copy of unit u(i) of the small one, and column j a copy of column v(j). With scales d
and e and weights c and g, all of them powers of two or their negatives,

    A[i, j] = T[i, j] (d[i]/d[j]) a[u(i), u(j)]      B[i] = d[i] b[u(i)]         U[:, j] = e[j] u₀[:, v(j)]
    C[:, i] = (c[i]/d[i]) c₀[:, u(i)]                D = d₀                      G_Y[:, j] = g[j] g₀[:, v(j)]

where small letters are the arrays of the small problem, and T is the coupling of the copies. The claim is that

    X[i, j] = d[i] e[j] x[u(i), v(j)]                V[i, j] = (c[i]/d[i]) g[j] v[u(i), v(j)]

wherever φ(d e p) = d e φ(p): for all positive d and e if φ is relu, leaky_relu or the identity, for signs d if φ is
odd, and for d = e = 1 in any case. Row i of A X + B U is

    d[i] e[j] (Σₖ a[u(i), k] x[k, v(j)] Σ_{l: u(l) = k} T[i, l] + (b u₀)[u(i), v(j)]),

which is d e p if the inner sums Σ T[i, l] are 1 wherever a[u(i), k] ≠ 0. In the same way V solves the adjoint equation
if Σ_{i: u(i) = k} c[i] T[i, j] = c[j] wherever a[k, u(j)] ≠ 0. `verified` checks both by sums of short dyadic numbers,
which are exact in float64. The answer is unique because Σⱼ |T[i, j] a[u(i), u(j)]| < 1 in each row i, which is the
∞-norm of A after rescaling by d.

Every gradient is then a product of such a scale and of a small sum, weighted by w[k] = Σ_{j: v(j) = k} e[j] g[j] over
the columns or by s[k] = Σ_{i: u(i) = k} c[i] over the units. The small sums are computed exactly and rounded once; a
power of two changes no digit. So the truth of the large problem is correctly rounded, and no equation larger than the
small one is solved. With T[i, j] = c[j] the large A is L Rᵀ with L[i] = d[i] l[u(i)] and R[i] = (c[i]/d[i]) r[u(i)].
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activations
from idl_ref.conformance.truth import exact
from idl_ref.conformance.truth.exact import Unrounded
from idl_ref.conformance.truth.problem import Arrays, Problem

HOMOGENEOUS = ("relu", "leaky_relu", "identity")
ODD = ("tanh", "hardtanh", "softsign")


class Copies(NamedTuple):
    """How the units and columns of a large problem are made from those of a small one; see the module for the formulas.

    `unit`, `scale` and `weight` are u, d and c, of length n; `column`, `size` and `cotangent` are v, e and g, of length
    m; `coupling` is T, (n, n), or None for T[i, j] = c[j].
    """

    unit: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    column: np.ndarray
    size: np.ndarray
    cotangent: np.ndarray
    coupling: np.ndarray | None = None

    @property
    def matrix(self) -> np.ndarray:
        """T as a matrix.   (n, n)"""
        n = len(self.unit)
        return np.broadcast_to(self.weight, (n, n)) if self.coupling is None else self.coupling


def enlarged(small: Problem, G_Y: np.ndarray, how: Copies) -> tuple[Problem, np.ndarray]:
    """The large problem and its G_Y."""
    u, d, back = how.unit, how.scale, how.weight / how.scale
    arrays: Arrays = {"B": d[:, None] * small.B[u], "C": back * small.C[:, u], "U": how.size * small.U[:, how.column]}
    if small.A is not None:
        arrays["A"] = how.matrix * small.A[np.ix_(u, u)] * (d[:, None] / d)
    else:
        L, Rt = small.factors
        arrays |= {"L": d[:, None] * L[u], "R": back[:, None] * Rt.T[u]}
    arrays["G_Y"] = how.cotangent * G_Y[:, how.column]
    stored = {name: np.ascontiguousarray(M, small.dtype) for name, M in arrays.items()}
    if not all(np.array_equal(stored[name], M) for name, M in arrays.items()):
        raise ArithmeticError(f"the products of couplings and entries have too many digits for {small.dtype}")
    G_Y = stored.pop("G_Y")
    return small.with_arrays(stored), G_Y


def verified(small: Problem, how: Copies) -> None:
    """Raise ArithmeticError unless the conditions hold under which the answer of the small problem carries over."""
    n0, a = len(small.B), np.abs(_matrix(small))
    which = np.eye(n0)[how.unit]
    T = how.matrix
    rows, columns = T @ which, which.T @ (how.weight[:, None] * T)
    if ((rows != 1) & (a[how.unit] > 0)).any() or ((columns != how.weight) & (a[:, how.unit] > 0)).any():
        raise ArithmeticError("the copies are not coupled so that each equation stays as it is")
    lipschitz = activations.get(small.activation).lipschitz
    if not lipschitz * ((np.abs(T) @ which) * a[how.unit]).sum(axis=1).max() < 1:
        raise ArithmeticError("the large map does not contract: its equilibrium need not be the only one")
    d, e = how.scale, how.size
    powers = all((np.frexp(s)[0] % 0.5 == 0).all() for s in (d, e, how.weight, how.cotangent))
    positive = small.activation in HOMOGENEOUS and (d > 0).all() and (e > 0).all()
    signs = small.activation in ODD and (np.abs(d) == 1).all() and (e == 1).all()
    if not (powers and (positive or signs or ((d == 1).all() and (e == 1).all()))):
        raise ArithmeticError(f"{small.activation} does not commute with the scales of units and columns")


def truth(small: Problem, G_Y: np.ndarray, how: Copies) -> tuple[Arrays, Unrounded]:
    """The answer to the large problem, correctly rounded, and that to the small one."""
    verified(small, how)
    with exact.digits():
        of = exact.unrounded(small, G_Y)
        sums = _small_sums(of, exact.numbers(G_Y, of.kind), how)
        total = 1 + sum(np.abs(w).sum() for w in (how.weight, how.size * how.cotangent))
        radius = None if of.radius is None else of.radius * Decimal(float(total))
        small_truth = exact.rounded(sums, radius)
    return _spread_out(small_truth, how), of


def facts(small: Problem, how: Copies, of: Unrounded) -> dict[str, Any]:
    """The facts of the large case; its eigenvalues are products of those of the couplings and of the small A."""
    a = _matrix(small)
    T, d = np.abs(how.matrix), np.abs(how.scale)[:, None]
    shares = T @ np.eye(len(a))[how.unit]  # (n, n0)
    spans = d * (T @ (np.eye(len(a))[how.unit] / d))
    norm = float((spans * np.abs(a)[how.unit]).sum(axis=1).max())
    lipschitz = activations.get(small.activation).lipschitz
    perron, radius = (round(float(np.abs(np.linalg.eigvals(M)).max()), 6) for M in (np.abs(a), a))
    return {
        "norm": norm,
        "perron": round(perron * float(shares.max()), 6),
        "spectral_radius": radius,
        "condition": round(1 / (1 - lipschitz * norm), 6) if lipschitz * norm < 1 else None,
        "kink_margin": of.kink_margin * float(d.min() * how.size.min()) if np.isfinite(of.kink_margin) else None,
        "provenance": f"copies of an equation in {len(a)} units: {of.provenance}",
    }


def _matrix(small: Problem) -> np.ndarray:
    """The effective A of the small problem in float64."""
    return reduce(np.matmul, (F.astype(np.float64) for F in small.factors))


def _small_sums(of: Unrounded, G_Y: np.ndarray, how: Copies) -> dict[str, np.ndarray]:
    """The sums of the small problem of which the results of the large one are multiples, exactly.

    Over the columns, each counts w[k] times; in Y and in ∂U each unit counts s[k] times.
    """
    P, X, V, exactly = of.P, of.out["X"], of.out["V"], lambda M: exact.numbers(M, of.kind)
    m0, n0 = X.shape[1], X.shape[0]
    w = exactly(np.bincount(how.column, how.size * how.cotangent, m0))
    s = exactly(np.bincount(how.unit, how.weight, n0))[:, None]
    Vw, Gw, times = V * w, G_Y * w, exact.product
    out = {"X": X, "V": V, "Y": times(P["C"], s * X), "U": times(P["B"].T, s * V)}
    out |= {"B": times(Vw, P["U"].T), "C": times(Gw, X.T)}
    if "D" in P:
        out |= {"Y": out["Y"] + times(P["D"], P["U"]), "U": out["U"] + times(P["D"].T, G_Y)}
        out["D"] = times(*(exact.numbers(M, Fraction) for M in (Gw, P["U"].T)))
    if "L" in P:
        return out | {"L": times(Vw, times(P["R"].T, X).T), "R": times(X * w, times(P["L"].T, V).T)}
    return out | {"A": times(Vw, X.T)}


def _spread_out(small: Arrays, how: Copies) -> Arrays:
    """The results of the large problem from the sums of the small one."""
    u, v, d, back = how.unit, how.column, how.scale[:, None], (how.weight / how.scale)[:, None]
    at = np.ix_(u, v)
    out = {
        "X": d * how.size * small["X"][at],
        "V": back * how.cotangent * small["V"][at],
        "Y": how.size * small["Y"][:, v],
        "U": how.cotangent * small["U"][:, v],
        "B": back * small["B"][u],
        "C": small["C"][:, u] * d.T,
    }
    if "A" in small:
        out["A"] = back * small["A"][np.ix_(u, u)] * d.T
    else:
        out |= {"L": back * small["L"][u], "R": d * small["R"][u]}
    return out | ({"D": small["D"]} if "D" in small else {})
