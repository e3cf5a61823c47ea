"""Wrong steps by name: what can be wrong with a backend, as changes of the exact computation.

A transformation says what its wrong answer to a case is. It knows no planted bug: the steps of `Steps` are replaced by
others that porting suggests, and the changed equations are solved exactly.
"""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref import factors as fac
from idl_ref.conformance.judge.steps import Steps, UnsolvedError, product, resolved
from idl_ref.conformance.truth.problem import Arrays, Case
from idl_ref.functions import FUNCTIONS

Change = Callable[[Steps], Any]


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


def _dense(case: Case) -> bool:
    return case.problem.A is not None


def _low_rank(case: Case) -> bool:
    return case.problem.A is None


def _has_D(case: Case) -> bool:
    return case.problem.D is not None


def _bias(case: Case) -> bool:
    U = case.problem.U
    return U.size > 0 and bool((U[-1] == 1).all())


def _with(**names: str) -> Callable[[Case], bool]:
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
                                                "Ft": lambda s: s.right("F")}, _dense)  # fmt: skip
    yield T("Aᵀ in place of A in the equation, but not in the adjoint", {
        "F": lambda s: fac.transpose(s.right("F")), "Ft": lambda s: fac.transpose(s.right("F"))}, _dense)  # fmt: skip
    yield T("L and R swapped in the equation", {"F": lambda s: fac.transpose(s.right("F"))}, _low_rank)
    yield T("the diagonal of A left out", {"F": lambda s: _off_diagonal(s.right("F"))}, _dense)
    yield T("|A| in place of A", {"F": lambda s: (np.abs(product(s.right("F"))),)}, _dense)
    yield T("A with the wrong sign", {"F": lambda s: _times(s, -1)})
    yield T("A X left out: X = φ(B U)", {"F": lambda s: _times(s, 0)})
    yield T("only the upper triangle of A used", {"F": lambda s: (np.triu(product(s.right("F"))),)}, _dense)
    yield T("only the lower triangle of A used", {"F": lambda s: (np.tril(product(s.right("F"))),)}, _dense)
    yield T("A X added twice", {"F": lambda s: _times(s, 2)})
    yield T("B U added twice", {"Z": lambda s: 2 * s.right("Z")})
    yield T("B U with the wrong sign", {"Z": lambda s: -s.right("Z")})
    yield T("B U averaged over the features", {"Z": lambda s: s.right("Z") / max(len(s.U), 1)})
    yield T("the bias added twice", {"Z": lambda s: s.right("Z") + s.B[:, -1:]}, _bias)
    yield T("the bias left out", {"Z": lambda s: s.right("Z") - s.B[:, -1:]}, _bias)
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
    yield T("Y computed from A X + B U in place of X", {"Y": lambda s: _readout(s, fac.apply(s.F, s.X) + s.Z)})
    yield T("Y computed with φ applied once more to X", {"Y": lambda s: _readout(s, s.phi[0](s.X))})
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


def _solved(s: Steps, M: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The V with V = M V + right, with M for every column.   (m, n, n), (n, m)"""
    try:
        return resolved(M, right)
    except np.linalg.LinAlgError:
        raise UnsolvedError from None


def adjoints() -> Iterator[Transformation]:
    """What may be wrong with V = φ′ ∘ (Aᵀ V + Cᵀ G_Y)."""
    T, W = Transformation, lambda s: fac.apply(s.Ft, s.right("V")) + s.G
    yield T("adjoint not transposed, and L and R not swapped", {"Ft": lambda s: s.F})
    yield T("adjoint not transposed", {"Ft": lambda s: s.F}, _dense)
    yield T("L and R swapped in the adjoint", {"Ft": lambda s: s.F}, _low_rank)
    yield T(
        "Aᵀ with the wrong sign in the adjoint",
        {"Ft": lambda s: tuple(F * sign for F, sign in zip(s.right("Ft"), (-1, 1), strict=False))},
    )
    yield T("φ′ taken at X in place of A X + Z", {"P": lambda s: s.X})
    yield T("φ′ taken at Z, without A X", {"P": lambda s: s.Z})
    yield T("φ′ taken at A X, without Z", {"P": lambda s: fac.apply(s.F, s.X)})
    yield T("φ′ applied to Aᵀ V but not to G",
            {"V": lambda s: _solved(s, s.S.T[:, :, None] * product(s.Ft), s.G)})  # fmt: skip
    yield T("φ′ applied to G but not to Aᵀ V", {
        "V": lambda s: _solved(s, np.ones_like(s.S).T[:, :, None] * product(s.Ft), s.S * s.G)})  # fmt: skip
    yield T("φ′ applied twice", {"S": lambda s: s.right("S") ** 2})
    yield T("the last multiplication by φ′ left out: Aᵀ V + G in place of V", {"V": W})
    yield T("φ′ applied once more to V", {"V": lambda s: s.S * s.right("V")})
    yield T("adjoint not solved: V = φ′ ∘ Cᵀ G_Y", {"V": lambda s: s.S * s.G})
    yield T("adjoint not solved: V = Cᵀ G_Y", {"V": lambda s: s.G})
    yield T("Cᵀ G_Y doubled in the adjoint", {"G": lambda s: 2 * s.right("G")})
    yield T("Cᵀ G_Y halved in the adjoint", {"G": lambda s: s.right("G") / 2})
    yield T("Cᵀ G_Y with the wrong sign in the adjoint", {"G": lambda s: -s.right("G")})
    yield T("Cᵀ G_Y averaged over the batch in the adjoint", {"G": lambda s: s.right("G") / s.G_Y.shape[1]})
    yield T("G_Y averaged over the batch", {"G_Y": lambda s: s.right("G_Y") / s.right("G_Y").shape[1]})
    yield T("G_Y summed over the batch", {"G_Y": lambda s: s.right("G_Y").sum(1, keepdims=True) + 0 * s.right("G_Y")})
    yield T("φ′ averaged over the batch", {"S": lambda s: s.right("S").mean(1, keepdims=True) + 0 * s.right("S")})
    yield T("φ′ of the first sample used for all samples", {"S": lambda s: s.right("S")[:, :1] + 0 * s.right("S")})


def gradients() -> Iterator[Transformation]:
    """What may be wrong with the products that make the gradients."""
    T, P = Transformation, lambda s: fac.apply(s.F, s.X) + s.Z
    W = lambda s: fac.apply(s.Ft, s.V) + s.G  # noqa: E731
    yield T("∂A transposed", {"dF": lambda s: tuple(G.T for G in s.right("dF"))}, _dense)
    on_pattern = lambda s: (np.where(s.F[0] != 0, s.right("dF")[0], 0),)  # noqa: E731
    yield T("∂A equal to zero where A has no entry", {"dF": on_pattern}, _dense)
    yield T("∂A computed with A X + Z in place of X", {"dF": lambda s: fac.gradients(s.F, P(s), s.V)})
    yield T("∂C computed with A X + Z in place of X", {"dC": lambda s: s.G_Y @ P(s).T})
    yield T("∂A computed with Aᵀ V + G in place of V", {"dF": lambda s: fac.gradients(s.F, s.X, W(s))})
    yield T("∂B computed with Aᵀ V + G in place of V", {"dB": lambda s: W(s) @ s.U.T})
    yield T("∂U computed with Aᵀ V + G in place of V", {"dU": lambda s: s.right("dU") + s.B.T @ (W(s) - s.V)})
    yield T("∂B computed with G in place of V", {"dB": lambda s: s.G @ s.U.T})
    yield T("∂A computed with G in place of V", {"dF": lambda s: fac.gradients(s.F, s.X, s.G)})
    yield T("the gradient of the bias equal to zero", {"dB": lambda s: _without_last(s.right("dB"))}, _bias)
    yield T("the gradients of both biases equal to zero", {
        "dB": lambda s: _without_last(s.right("dB")),
        "dD": lambda s: _without_last(s.right("dD"))}, lambda c: _bias(c) and _has_D(c))  # fmt: skip
    yield T("the gradient of the bias averaged over the batch", {
        "dB": lambda s: _without_last(s.right("dB"), 1 / max(s.U.shape[1], 1))}, _bias)  # fmt: skip
    yield T("∂L and ∂R swapped", {"pulled": lambda s: fac.transpose(s.right("pulled"))}, _low_rank)
    yield T("∂L = V (Lᵀ X)ᵀ in place of V (Rᵀ X)ᵀ",
            {"dF": lambda s: (s.V @ (s.F[0].T @ s.X).T, s.right("dF")[1])}, _low_rank)  # fmt: skip
    yield T("∂R = X (Rᵀ V)ᵀ in place of X (Lᵀ V)ᵀ",
            {"dF": lambda s: (s.right("dF")[0], s.F[1] @ s.V @ s.X.T)}, _low_rank)  # fmt: skip
    yield T("∂L and ∂R with V and X exchanged",
            {"dF": lambda s: (s.X @ (s.F[1] @ s.V).T, (s.V @ (s.F[0].T @ s.X).T).T)}, _low_rank)  # fmt: skip


def _without_last(M: np.ndarray, factor: float = 0.0) -> np.ndarray:
    M = M.copy()
    M[:, -1] *= factor
    return M


# --- φ ----------------------------------------------------------------------------------------------------------------

_relu_like = lambda slope: (lambda P: np.where(P > 0, P, slope * P), lambda P: np.where(P > 0, 1.0, slope))  # noqa: E731
_VARIANTS: dict[str, list[tuple[str, Any]]] = {
    "leaky_relu": [(f"leaky_relu with slope {a:g} in place of 0.01", _relu_like(a))
                   for a in (0.1, 0.2, 0.3, 0.05, 0.001)],
    "elu": [(f"elu with α = {a:g} in place of 1", (lambda P, a=a: np.where(P > 0, P, a * np.expm1(np.minimum(P, 0))),
             lambda P, a=a: np.where(P > 0, 1, a * np.exp(np.minimum(P, 0))))) for a in (0.1, 0.5, 1.6732632423543772)],
    "hardtanh": [("relu6 in place of hardtanh", (lambda P: np.clip(P, 0, 6), lambda P: 1.0 * ((P > 0) & (P < 6)))),
                 ("hardtanh clipped to [0, 1]", (lambda P: np.clip(P, 0, 1), lambda P: 1.0 * ((P > 0) & (P < 1))))],
    "relu": [("relu6 in place of relu", (lambda P: np.clip(P, 0, 6), lambda P: 1.0 * ((P > 0) & (P < 6))))],
    "sigmoid": [("a piecewise linear sigmoid", (lambda P: np.clip(P / 6 + 0.5, 0, 1), lambda P: 1 / 6 * (abs(P) < 3))),
                ("sigmoid with half its argument", (lambda P: 1 / (1 + np.exp(-P / 2)),
                                                    lambda P: 0.125 / np.cosh(P / 4) ** 2))],
    "softplus": [("softplus computed as log(1 + exp p), which overflows",
                  (lambda P: np.log(1 + np.exp(P)), activations.get("softplus").slope))],
}  # fmt: skip
_SLOPES: dict[str, list[tuple[str, Callable[[Steps], np.ndarray]]]] = {
    "tanh": [("φ′ of tanh computed as 1 − tanh", lambda s: 1 - np.tanh(s.P)),
             ("φ′ of tanh computed as 1 − p²", lambda s: 1 - s.P**2),
             ("φ′ of tanh computed as tanh (1 − tanh)", lambda s: np.tanh(s.P) * (1 - np.tanh(s.P)))],
    "sigmoid": [("φ′ of sigmoid computed as 1 − φ²", lambda s: 1 - s.X**2),
                ("φ′ of sigmoid computed as 1 − φ", lambda s: 1 - s.X),
                ("φ′ of sigmoid computed as p (1 − p)", lambda s: s.P * (1 - s.P))],
    "softplus": [("φ′ of softplus computed as sigmoid(−p)", lambda s: 1 / (1 + np.exp(s.P))),
                 ("φ′ of softplus computed as sigmoid(φ(p))", lambda s: 1 / (1 + np.exp(-s.X)))],
    "elu": [("φ′ of elu computed as φ", lambda s: np.where(s.P > 0, 1, s.X)),
            ("φ′ of elu equal to exp(p) everywhere", lambda s: np.exp(s.P))],
    "softsign": [("φ′ of softsign computed as 1/(1 + |p|)", lambda s: 1 / (1 + np.abs(s.P))),
                 ("φ′ of softsign computed as 1/(1 + p)²", lambda s: 1 / (1 + s.P) ** 2),
                 ("φ′ of softsign computed as 1/(1 + p²)", lambda s: 1 / (1 + s.P**2))],
}  # fmt: skip


def functions_of_activation() -> Iterator[Transformation]:
    """Another φ, another φ′, or both, for one activation at a time."""
    T = Transformation
    for name in activations.TABLE:
        fits, slope = _with(activation=name), activations.get(name).slope
        pairs = [(f"{other} in place of {name}", (activations.get(other).phi, activations.get(other).slope))
                 for other in activations.TABLE if other != name] + _VARIANTS.get(name, [])  # fmt: skip
        for sentence, pair in pairs:
            yield T(sentence, {"phi": lambda s, pair=pair: pair}, fits)
            yield T(f"{sentence}, but not in φ′", {"phi": lambda s, pair=pair, slope=slope: (pair[0], slope)}, fits)
            yield T(f"{sentence} in φ′ alone", {"S": lambda s, pair=pair: pair[1](s.P)}, fits)
        yield T(f"φ′ of {name} equal to 1 everywhere", {"S": lambda s: np.ones_like(s.P)}, fits)
        for sentence, S in _SLOPES.get(name, []):
            yield T(sentence, {"S": S}, fits)
        if activations.get(name).kinks:
            for weight in (0.0, 0.5, 1.0):
                yield T(f"{name} with φ′ at a kink taken {weight:g} of the way from the smaller slope to the larger",
                        {"S": lambda s, w=weight: _at_kinks(s, w)}, fits)  # fmt: skip


def _at_kinks(s: Steps, weight: float) -> np.ndarray:
    """φ′ with another convention at a kink."""
    P, S, phi = s.P, s.right("S"), s.activation
    for kink in phi.kinks:
        near = np.abs(P - kink) <= 1e-15 * abs(kink)
        left, right = (float(phi.slope(np.array([kink + side]))[0]) for side in (-1e-3, 1e-3))
        S = np.where(near, min(left, right) + weight * abs(right - left), S)
    return S


# --- f ----------------------------------------------------------------------------------------------------------------


class _Map:
    """A map f in place of the right one, with the right pullback at its values."""

    def __init__(self, s: Steps, effective: Callable[[np.ndarray], np.ndarray], kappa: float | None = None) -> None:
        self.right = replace(s.problem, kappa=kappa).function if kappa is not None else s.problem.function
        self.map = effective

    def effective(self, factors: fac.Factors) -> fac.Factors:
        return tuple(self.map(F) for F in factors)

    def pullback(self, raw: fac.Factors, G: fac.Factors) -> fac.Factors:
        pulled: fac.Factors = self.right.pullback(raw, G)
        return pulled


def _scaled(norm: Callable[[np.ndarray], float], always: bool = False) -> Change:
    def change(s: Steps) -> _Map:
        k = s.problem.kappa
        return _Map(s, lambda F: F * (k / (norm(F) if always else max(k, norm(F)))) if F.size else F)

    return change


def _inf(F: np.ndarray) -> float:
    return float(np.abs(F).sum(axis=1).max())


def _one(F: np.ndarray) -> float:
    return float(np.abs(F).sum(axis=0).max())


def _held(s: Steps) -> fac.Factors:
    """The pullback of a scaling whose norm is held fixed."""
    k = s.problem.kappa
    return tuple(G * min(1.0, k / max(_inf(F), 1e-300)) if F.size else G for F, G in zip(s.raw, s.dF, strict=True))


def _rows_scaled(s: Steps) -> _Map:
    k = s.problem.kappa
    return _Map(s, lambda F: F * (k / np.maximum(k, np.abs(F).sum(axis=1, keepdims=True))))


def maps() -> Iterator[Transformation]:
    """What may be wrong with f and its pullback."""
    T, mapped = Transformation, lambda case: case.problem.f != "none"
    inf, rows, triu = (_with(f=name) for name in ("inf", "rows", "triu"))
    straight = (
        "straight-through where exact was declared: ∂A of the effective weights returned as that of the raw weights"
    )
    yield T(straight, {"pulled": lambda s: s.dF}, lambda c: mapped(c) and c.problem.f != "triu")
    exact = lambda s: replace(s.problem, straight_through=False).function.pullback(s.raw, s.dF)  # noqa: E731
    yield T("the exact derivative of f where straight-through was declared", {"pulled": exact}, mapped)
    yield T("the derivative of the norm left out of the derivative of the scaling", {"pulled": _held}, inf)
    yield T("the weights of the model used as they are, without f",
            {"F": lambda s: s.raw, "pulled": lambda s: s.dF}, mapped)  # fmt: skip
    yield T("f left out of the equation, but not of its derivative", {"F": lambda s: s.raw}, mapped)
    yield T("weights inside the ball scaled up to its boundary", {"f": _scaled(_inf, always=True)}, inf)
    yield T("the largest column sum in place of ‖A‖∞", {"f": _scaled(_one)}, inf)
    yield T("the Frobenius norm in place of ‖A‖∞", {"f": _scaled(lambda F: float(np.linalg.norm(F)))}, inf)
    yield T("the spectral norm in place of ‖A‖∞", {"f": _scaled(lambda F: float(np.linalg.norm(F, 2)))}, inf)
    yield T("the largest entry in place of ‖A‖∞", {"f": _scaled(lambda F: float(np.abs(F).max()))}, inf)
    yield T("rows scaled to the ball, not projected on it", {"f": _rows_scaled}, rows)
    yield T("every row scaled on its own in place of the whole matrix", {"f": _rows_scaled}, inf)
    yield T("the whole matrix scaled in place of projected rows", {"f": _scaled(_inf)}, rows)
    yield T("the diagonal kept where f = triu sets it to zero", {"F": lambda s: tuple(map(np.triu, s.raw))}, triu)
    yield T("the lower triangle in place of the upper one",
            {"F": lambda s: tuple(np.tril(F, -1) for F in s.raw)}, triu)  # fmt: skip
    yield T("the gradients of entries kept that f = triu sets to zero", {"pulled": lambda s: s.dF}, triu)
    for k in (0.5, 0.9, 0.95, 0.99, 0.999, 1.0):
        yield T(
            f"κ ignored: {k:g} in its place",
            {"f": lambda s, k=k: FUNCTIONS[s.problem.f](k)},
            lambda c: inf(c) or rows(c),
        )
    yield T("f applied to L Rᵀ as a whole, not to L and Rᵀ", {"F": _whole}, lambda c: _low_rank(c) and inf(c))
    yield T(
        "f applied to L alone",
        {"F": lambda s: (s.f.effective(s.raw[:1])[0], s.raw[1])},
        lambda c: _low_rank(c) and mapped(c),
    )
    yield T(
        "f applied to Rᵀ alone",
        {"F": lambda s: (s.raw[0], s.f.effective(s.raw[1:])[0])},
        lambda c: _low_rank(c) and mapped(c),
    )
    yield T(
        "f applied to R in place of Rᵀ",
        {"F": lambda s: (s.f.effective(s.raw[:1])[0], s.f.effective((s.raw[1].T,))[0].T)},
        lambda c: _low_rank(c) and mapped(c),
    )


def _whole(s: Steps) -> fac.Factors:
    A = product(s.raw)
    return s.raw[0] * (s.problem.kappa / max(s.problem.kappa, _inf(A))) if A.size else s.raw[0], s.raw[1]
