"""Wrong steps by name: what can be wrong with a backend, as changes of the exact computation.

A transformation says what its wrong answer to a case is. It knows no planted bug: the steps of `Steps` are replaced by
others that porting suggests, and the changed equations are solved exactly.
"""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.conformance.judge.features import with_bias as bias
from idl_ref.conformance.judge.steps import Steps, UnsolvedError, product, resolved
from idl_ref.conformance.truth.problem import Arrays, Case

Change = Callable[[Steps], Any]
STEEPEST = 4  # no φ of the library, right or wrong, has a larger Lipschitz constant


def always(case: Case) -> bool:
    """Every case."""
    return True


@dataclass(frozen=True, eq=False)
class Transformation:
    """One thing that may be wrong: a sentence, the steps that it replaces, and the cases in which it can matter.

    `after` changes the finished answer, given the case.
    """

    sentence: str
    changes: Mapping[str, Change] = field(default_factory=dict)
    fits: Callable[[Case], bool] = always
    after: Callable[[Case, Arrays], Arrays] | None = None

    def answer(self, case: Case, check: str) -> Arrays | None:
        """The wrong answer to a case; None if there is none."""
        if not self.fits(case):
            return None
        try:
            answer = Steps(case, self.changes).answer(check)
        except UnsolvedError:
            return None
        return answer if self.after is None else self.after(case, answer)

    def may_give(self, case: Case, X: np.ndarray, apart: np.ndarray) -> bool:
        """Whether the changed equation can have a solution whose entries are at most `apart` from those of X.

        If |X − X̂| ≤ δ and X̂ = φ(F X̂ + Z), then |φ(F X + Z) − X| ≤ Lip(φ) |F| δ + δ. To compute this takes a small part
        of the time that the solution takes. It is true where X is not what the equation gives.
        """
        if not self.fits(case) or self.after is not None or not {"X", "Xf"}.isdisjoint(self.changes):
            return True
        s = Steps(case, self.changes)
        with np.errstate(all="ignore"):
            P, sizes = fac.apply(s.F, X) + s.Z, tuple(map(np.abs, s.F))
            rounding = 1e-12 * (fac.apply(sizes, np.abs(X)) + np.abs(s.Z) + np.abs(X))
            allowed = STEEPEST * (fac.apply(sizes, apart) + rounding) + apart
            return not (np.abs(s.phi[0](P) - X) > allowed).any()


def dense(case: Case) -> bool:
    return case.problem.A is not None


def low_rank(case: Case) -> bool:
    return case.problem.A is None


def has_D(case: Case) -> bool:
    return case.problem.D is not None


def having(**names: str) -> Callable[[Case], bool]:
    """The cases whose problem has settings of these values."""
    return lambda case: all(getattr(case.problem, name) == value for name, value in names.items())


# --- the equation, its adjoint, and products --------------------------------------------------------------------------


def _last(names: tuple[str, ...], change: Change) -> dict[str, Change]:
    return dict.fromkeys(names, change)


def _off_diagonal(F: fac.Factors) -> fac.Factors:
    A = product(F)
    return (A - np.diag(np.diag(A)),)


def equation() -> Iterator[Transformation]:
    """What may be wrong with A X + B U."""
    T = Transformation
    yield T("Aᵀ in place of A in the equation, also for A = L Rᵀ", {"F": lambda s: fac.transpose(s.right("F"))})
    yield T("Aᵀ in place of A in the equation", {"F": lambda s: fac.transpose(s.right("F")),
                                                "Ft": lambda s: s.right("F")}, dense)  # fmt: skip
    yield T("Aᵀ in place of A in the equation, but not in the adjoint", {
        "F": lambda s: fac.transpose(s.right("F")), "Ft": lambda s: fac.transpose(s.right("F"))}, dense)  # fmt: skip
    yield T("L and R swapped in the equation", {"F": lambda s: fac.transpose(s.right("F"))}, low_rank)
    yield T("the diagonal of A left out", {"F": lambda s: _off_diagonal(s.right("F"))}, dense)
    yield T("|A| in place of A", {"F": lambda s: (np.abs(product(s.right("F"))),)}, dense)
    yield T("A with the wrong sign", {"F": lambda s: _times(s, -1)})
    yield T("A X left out: X = φ(B U)", {"F": lambda s: _times(s, 0)})
    yield T("only the upper triangle of A used", {"F": lambda s: (np.triu(product(s.right("F"))),)}, dense)
    yield T("only the lower triangle of A used", {"F": lambda s: (np.tril(product(s.right("F"))),)}, dense)
    yield T("A X added twice", {"F": lambda s: _times(s, 2)})
    yield T("B U added twice", {"Z": lambda s: 2 * s.right("Z")})
    yield T("B U with the wrong sign", {"Z": lambda s: -s.right("Z")})
    yield T("B U averaged over the features", {"Z": lambda s: s.right("Z") / max(len(s.U), 1)})
    yield T("the bias added twice", {"Z": lambda s: s.right("Z") + s.B[:, -1:]}, bias)
    yield T("the bias left out", {"Z": lambda s: s.right("Z") - s.B[:, -1:]}, bias)
    yield T("the bias left out of D U", {"Y": lambda s: s.right("Y") - s.D[:, -1:]}, lambda c: bias(c) and has_D(c))
    for c in (1e6, 1e4, 1e3, 100.0, 10.0, 2.0, 1.5, 1.0):
        yield T(f"B U clipped to ±{c:g}", {"Z": lambda s, c=c: np.clip(s.right("Z"), -c, c)})
        yield T(f"X clipped to ±{c:g}", _last(("Xf", "Xb"), lambda s, c=c: np.clip(s.X, -c, c)))
    for k in range(1, 7):
        for sign, word in ((1, "+"), (-1, "−")):
            c = 1 + sign * 10.0**-k
            yield T(f"A multiplied by 1 {word} 10^-{k}", {"F": lambda s, c=c: _times(s, c)})
            yield T(f"φ′ multiplied by 1 {word} 10^-{k} in the adjoint", {"S": lambda s, c=c: c * s.right("S")})
            yield T(f"the first row of A multiplied by 1 {word} 10^-{k}", {"F": lambda s, c=c: _row(s, c)})
    yield T("A X + B U returned in place of X", _last(("Xf", "Xb"), lambda s: fac.apply(s.F, s.X) + s.Z))
    yield T("A X + B U returned in place of X, from which Y is computed",
            {"Xf": lambda s: fac.apply(s.F, s.X) + s.Z, "Y": lambda s: _readout(s, s.X)})  # fmt: skip
    yield T("zeros returned for all results where one of the arrays is empty",
            after=lambda case, answer: {name: np.zeros_like(M) for name, M in answer.items()},
            fits=lambda case: any(M.size == 0 for M in case.problem.arrays.values()))  # fmt: skip
    yield T("Y computed from A X + B U in place of X", {"Y": lambda s: _readout(s, fac.apply(s.F, s.X) + s.Z)})
    yield T("Y computed with φ applied once more to X", {"Y": lambda s: _readout(s, s.phi[0](s.X))})
    yield T("B U added to X in the readout", {"Y": lambda s: _readout(s, s.X + s.Z)})
    yield T("φ applied to Y", {"Y": lambda s: s.phi[0](s.right("Y"))})
    yield T("A = L Lᵀ in place of L Rᵀ", {"F": lambda s: (s.right("F")[0], s.right("F")[0].T)}, low_rank)
    yield T("L Rᵀ X computed entry by entry, (L ∘ R) ∘ X, where r = 1", {
        "F": lambda s: (np.diag((s.right("F")[0] * s.right("F")[1].T)[:, 0]),)},
            lambda c: low_rank(c) and c.problem.factors[0].shape[1] == 1)  # fmt: skip
    yield T("A = R Rᵀ in place of L Rᵀ", {"F": lambda s: (s.right("F")[1].T, s.right("F")[1])}, low_rank)
    yield T("φ′ left out of the adjoint", {"S": lambda s: np.ones_like(s.P)})
    yield T("X0 taken for the equilibrium after one application of the map",
            _last(("Xf", "Xb"), lambda s: s.phi[0](fac.apply(s.F, s.X0) + s.Z)),
            lambda case: case.problem.X0 is not None)  # fmt: skip
    yield T("X0 added to the equilibrium", _last(("Xf", "Xb"), lambda s: s.X + s.X0),
            lambda case: case.problem.X0 is not None)  # fmt: skip


def _times(s: Steps, c: float, name: str = "F") -> fac.Factors:
    first, *rest = s.right(name)
    return (c * first, *rest)


def _row(s: Steps, c: float) -> fac.Factors:
    first, *rest = s.right("F")
    first = first.copy()
    first[:1] *= c
    return (first, *rest)


def _readout(s: Steps, X: np.ndarray) -> np.ndarray:
    Y: np.ndarray = s.C @ X
    return Y if s.D is None else Y + s.D @ s.U


def solved(M: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The V with V = M V + right, with M for every column.   (m, n, n), (n, m)"""
    try:
        return resolved(M, right)
    except np.linalg.LinAlgError:
        raise UnsolvedError from None


def adjoints() -> Iterator[Transformation]:
    """What may be wrong with V = φ′ ∘ (Aᵀ V + Cᵀ G_Y)."""
    T, W = Transformation, lambda s: fac.apply(s.Ft, s.right("V")) + s.G
    yield T("adjoint not transposed, and L and R not swapped", {"Ft": lambda s: s.F})
    yield T("adjoint not transposed", {"Ft": lambda s: s.F}, dense)
    yield T("L and R swapped in the adjoint", {"Ft": lambda s: s.F}, low_rank)
    yield T(
        "Aᵀ with the wrong sign in the adjoint",
        {"Ft": lambda s: tuple(F * sign for F, sign in zip(s.right("Ft"), (-1, 1), strict=False))},
    )
    yield T("φ′ taken at X in place of A X + Z", {"P": lambda s: s.X})
    yield T("φ′ taken at Z, without A X", {"P": lambda s: s.Z})
    yield T("φ′ taken at A X, without Z", {"P": lambda s: fac.apply(s.F, s.X)})
    yield T("φ′ applied to Aᵀ V but not to G",
            {"V": lambda s: solved(s.S.T[:, :, None] * product(s.Ft), s.G)})  # fmt: skip
    yield T("φ′ applied to G but not to Aᵀ V", {
        "V": lambda s: solved(np.ones_like(s.S).T[:, :, None] * product(s.Ft), s.S * s.G)})  # fmt: skip
    yield T("φ′ applied twice", {"S": lambda s: s.right("S") ** 2})
    yield T("the last multiplication by φ′ left out: Aᵀ V + G in place of V", {"V": W})
    yield T("φ′ applied once more to V", {"V": lambda s: s.S * s.right("V")})
    yield T("adjoint not solved: V = φ′ ∘ Cᵀ G_Y", {"V": lambda s: s.S * s.G})
    yield T("adjoint not solved: V = Cᵀ G_Y", {"V": lambda s: s.G})
    yield T("Cᵀ G_Y doubled in the adjoint", {"G": lambda s: 2 * s.right("G")})
    yield T("Cᵀ G_Y halved in the adjoint", {"G": lambda s: s.right("G") / 2})
    yield T("Cᵀ G_Y with the wrong sign in the adjoint", {"G": lambda s: -s.right("G")})
    yield T("Cᵀ G_Y averaged over the outputs in the adjoint", {"G": lambda s: s.right("G") / len(s.C)})
    yield T("Cᵀ G_Y averaged over the batch in the adjoint", {"G": lambda s: s.right("G") / s.G_Y.shape[1]})
    yield T("G_Y averaged over the batch", {"G_Y": lambda s: s.right("G_Y") / s.right("G_Y").shape[1]})
    yield T("G_Y summed over the batch", {"G_Y": lambda s: s.right("G_Y").sum(1, keepdims=True) + 0 * s.right("G_Y")})
    yield T("φ′ averaged over the batch", {"S": lambda s: s.right("S").mean(1, keepdims=True) + 0 * s.right("S")},
            lambda case: case.problem.sizes[3] > 0)  # fmt: skip


def gradients() -> Iterator[Transformation]:
    """What may be wrong with the products that make the gradients."""
    T = Transformation
    yield T("∂A transposed", {"dF": lambda s: tuple(G.T for G in s.right("dF"))}, dense)
    on_pattern = lambda s: (np.where(s.F[0] != 0, s.right("dF")[0], 0),)  # noqa: E731
    yield T("∂A equal to zero where A has no entry", {"dF": on_pattern}, dense)
    yield T("the gradient of the bias equal to zero", {"dB": lambda s: _without_last(s.right("dB"))}, bias)
    yield T("the gradients of both biases equal to zero", {
        "dB": lambda s: _without_last(s.right("dB")),
        "dD": lambda s: _without_last(s.right("dD"))}, lambda c: bias(c) and has_D(c))  # fmt: skip
    yield T("the gradient of the bias averaged over the batch", {
        "dB": lambda s: _without_last(s.right("dB"), 1 / max(s.U.shape[1], 1))}, bias)  # fmt: skip
    yield T("∂L and ∂R swapped", {"pulled": lambda s: fac.transpose(s.right("pulled"))}, low_rank)
    yield T("∂L and ∂R with V and X exchanged",
            {"dF": lambda s: (s.X @ (s.F[1] @ s.V).T, (s.V @ (s.F[0].T @ s.X).T).T)}, low_rank)  # fmt: skip


def _without_last(M: np.ndarray, factor: float = 0.0) -> np.ndarray:
    M = M.copy()
    M[:, -1] *= factor
    return M
