"""This module says why X = φ(A X + Z) has one solution for every Z, and how much follows, the strongest reason first.

no cycles    no unit depends on itself, directly or through others: the solution after as many steps as levels
norm         Lip(φ)‖A‖∞ < 1: Picard's iteration shrinks errors by this factor
Perron root  Lip(φ) λ(|A|) < 1: the same in a weighted ∞-norm
monotone     Lip(φ)(A + Aᵀ)/2 ⪯ (1 − m) I with m > 0: an error bound in the 2-norm; Picard's iteration may diverge
cycles       each cycle of units is well posed by one of the other reasons: the same for one cycle after the other
P-matrix     all principal minors of I − Lip(φ) A are positive: one solution, and no more

Every number is bounded with its own rounding, so that a reason that is given is a proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from idl_ref import activations, minors, wellposed
from idl_ref import factors as fac
from idl_ref import monotone as mono
from idl_ref.activations import Activation
from idl_ref.certificate import contracting
from idl_ref.cycles import cyclic, levels
from idl_ref.sparse import dense

Name = Literal["no cycles", "norm", "Perron root", "monotone", "cycles", "P-matrix"]
EPS = float(np.finfo(np.float64).eps)
LARGE = 4096  # Larger matrices are not decomposed, which would take minutes. A larger sparse A remains sparse.
MINORS = 12  # Up to this size, minors take less than a tenth of a second.


class Reason(NamedTuple):
    """Why there is one solution.

    Attributes
    ----------
    name : str
        "no cycles", "norm", "Perron root", "monotone", "cycles" or "P-matrix".
    constant : float
        What is below 1: 0 for no cycles; Lip(φ)‖A‖∞; Lip(φ) times the Perron root; 1 − m; for cycles, the largest of
        these numbers of all cycles, without those that only minors show. For a P-matrix, 1 − the smallest minor.
    text : str
        A sentence for people.
    """

    name: Name
    constant: float
    text: str


def strongest(factors: fac.Factors, activation: Activation) -> Reason | None:
    """Return the first reason that holds, or None if none could be shown."""
    return next(reasons(factors, activation), None)


def reasons(factors: fac.Factors, activation: Activation) -> Iterator[Reason]:
    """Yield every reason that holds for A = F₁ F₂ …, the strongest first."""
    if not all(fac.is_finite(F) for F in factors):
        return
    if len(factors[0]) <= LARGE:
        factors = tuple(dense(F) for F in factors)
    c, is_array = activation.lipschitz, len(factors) == 1 and not fac.is_sparse(factors)
    factors = tuple(F.astype(np.float64, copy=False) for F in factors)
    cycles = cyclic(factors[0] != 0) if is_array else []
    if is_array and not cycles:
        yield _no_cycles(factors[0])
    terms = sum(F.shape[1] for F in factors) + 4
    scaled = contracting(factors, activation)
    norm = c * fac.norm_inf(scaled) * (1 + terms * EPS)
    if norm < 1:
        sign = "=" if len(factors) == 1 else "≤"
        text = f"Lip(φ)‖A‖∞ {sign} {norm:.6g}, so that Picard's iteration contracts in the ∞-norm"
        yield Reason("norm", norm, text)
    root = _root(scaled, c)
    if root < 1:
        text = f"Lip(φ) times the Perron root of |A| is {root:.6g}, so that Picard's iteration contracts in some ∞-norm"
        yield Reason("Perron root", root, text)
    # An activation of a user's may decrease.
    rises = all(activations.TABLE.get(row.name) is row for row, _ in activation.segments)
    if not rises:
        return
    m = mono.margin(factors, c) if len(factors) > 1 or len(factors[0]) <= LARGE else -np.inf
    if m > 0:
        text = (
            f"I − Lip(φ)(A + Aᵀ)/2 ⪰ m I with m = {m:.6g}, so that the equation is monotone, though Picard's iteration "
            "may diverge"
        )
        yield Reason("monotone", 1 - m, text)
    if is_array:
        yield from _by_cycles(factors[0], cycles, c)


def _no_cycles(A: np.ndarray) -> Reason:
    """Return the reason for an A in which no unit depends on itself."""
    depth = int(levels(A != 0, len(A)).max(initial=-1)) + 1
    return Reason("no cycles", 0.0, f"no unit depends on itself, so that {depth} steps give the states")


def _root(factors: fac.Factors, c: float) -> float:
    """Return an upper bound of Lip(φ) λ(|A|), for A = L Rᵀ of Lip(φ) λ(|L||R|ᵀ)."""
    A = factors[0] if len(factors) == 1 else (factors[0], factors[1].T)
    return c * wellposed.perron_root(A).upper * (1 + 4 * EPS)


def _by_cycles(A: np.ndarray, cycles: list[np.ndarray], c: float) -> Iterator[Reason]:
    """Yield the reason by cycles if A has several of them or units without one, and by minors if A is small.

    In an order in which units come after those on which they depend, A is block triangular. Units without a cycle are
    functions of earlier ones, so that the equation has one solution if that of each cycle has one for every Z.
    """
    kinds = [_of_cycle(A[np.ix_(cycle, cycle)], c) for cycle in cycles]
    whole = len(cycles) == 1 and len(cycles[0]) == len(A)
    if not whole and cycles and all(kinds):
        names = [kind.name for kind in kinds if kind]
        constant = max((kind.constant for kind in kinds if kind and kind.name != "P-matrix"), default=0.0)
        counts = ", ".join(f"{names.count(name)} by {_words(name)}" for name in dict.fromkeys(names))
        text = f"each of its {len(cycles)} cycles of units has one state, {counts}, so that it has one, cycle by cycle"
        yield Reason("cycles", constant, text)
    if len(A) <= MINORS and (reason := _by_minors(A, c)):
        yield reason


def _of_cycle(A: np.ndarray, c: float) -> Reason | None:
    """Return the first of three reasons that holds for the units of one cycle."""
    if (root := _root((A,), c)) < 1:
        return Reason("Perron root", root, "")
    if len(A) <= LARGE and (m := mono.margin((A,), c)) > 0:
        return Reason("monotone", 1 - m, "")
    return _by_minors(A, c) if len(A) <= MINORS else None


def _by_minors(A: np.ndarray, c: float) -> Reason | None:
    """Return the reason by principal minors, if all are positive."""
    found = minors.unique_relu(A, c)
    if not found:
        return None
    text = (
        f"all principal minors of I − Lip(φ) A are positive, the smallest is {float(found.least):.3g}, so that there "
        "is one state, without a bound of its error"
    )
    return Reason("P-matrix", 1 - float(found.least), text)


def _words(name: Name) -> str:
    """Return the reason of a cycle in words."""
    return {"Perron root": "the Perron root", "monotone": "monotonicity"}.get(name, "principal minors")
