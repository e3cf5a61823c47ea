"""Another φ or φ′ by name: other functions, other constants, formulas that overflow or lose digits, other kinks."""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.judge.transformations import Transformation, having
from idl_ref.conformance.truth.problem import Case

_relu_like = lambda slope: (lambda P: np.where(P > 0, P, slope * P), lambda P: np.where(P > 0, 1.0, slope))  # noqa: E731


def _rational(P: np.ndarray) -> np.ndarray:
    Q = np.clip(P, -3, 3)
    result: np.ndarray = Q * (27 + Q * Q) / (27 + 9 * Q * Q)
    return result


_VARIANTS: dict[str, list[tuple[str, Any]]] = {
    "leaky_relu": [(f"leaky_relu with slope {a:g} in place of 0.01", _relu_like(a))
                   for a in (0.1, 0.2, 0.3, 0.05, 0.001)]
    + [("leaky_relu with its slope 0.01 rounded to float32", _relu_like(float(np.float32(0.01))))],
    "elu": [(f"elu with α = {a:g} in place of 1", (lambda P, a=a: np.where(P > 0, P, a * np.expm1(np.minimum(P, 0))),
             lambda P, a=a: np.where(P > 0, 1, a * np.exp(np.minimum(P, 0)))))
            for a in (0.1, 0.5, 0.9, 1.1, 2.0, 1.6732632423543772)],
    "hardtanh": [("relu6 in place of hardtanh", (lambda P: np.clip(P, 0, 6), lambda P: 1.0 * ((P > 0) & (P < 6)))),
                 ("hardtanh clipped to [0, 1]", (lambda P: np.clip(P, 0, 1), lambda P: 1.0 * ((P > 0) & (P < 1))))],
    "relu": [("relu6 in place of relu", (lambda P: np.clip(P, 0, 6), lambda P: 1.0 * ((P > 0) & (P < 6))))],
    "sigmoid": [("sigmoid computed from exp p, which overflows",
                 (lambda P: np.exp(P) / (1 + np.exp(P)), activations.get("sigmoid").slope)),
                ("a piecewise linear sigmoid", (lambda P: np.clip(P / 6 + 0.5, 0, 1), lambda P: 1 / 6 * (abs(P) < 3)))],
    "softplus": [("softplus computed as log(1 + exp p), which overflows",
                  (lambda P: np.log(1 + np.exp(P)), activations.get("softplus").slope)),
                 ("softplus less log 2", (lambda P: np.logaddexp(0, P) - np.log(2), activations.get("softplus").slope)),
                 *((f"softplus replaced by the identity above {c}",
                    (lambda P, c=c: np.where(c < P, P, np.logaddexp(0, P)), activations.get("softplus").slope))
                   for c in (30, 20, 15, 10, 8, 5))],
    "softsign": [("p/√(1 + p²) in place of softsign",
                  (lambda P: P / np.sqrt(1 + P * P), lambda P: (1 + P * P) ** -1.5)),
                 ("2/π arctan(π p/2) in place of softsign", (lambda P: 2 / np.pi * np.arctan(np.pi / 2 * P),
                                                            lambda P: 1 / (1 + (np.pi / 2 * P) ** 2)))],
    "tanh": [("tanh computed from exp(2 p), which overflows",
              (lambda P: (np.exp(2 * P) - 1) / (np.exp(2 * P) + 1), activations.get("tanh").slope)),
             ("the rational function p (27 + p²)/(27 + 9 p²) in place of tanh",
              (_rational, activations.get("tanh").slope))],
}  # fmt: skip
_SLOPES: dict[str, list[tuple[str, Callable[[Steps], np.ndarray]]]] = {
    "tanh": [("φ′ of tanh computed as 1 − tanh", lambda s: 1 - np.tanh(s.P)),
             ("φ′ of tanh computed as 1 − p²", lambda s: 1 - s.P**2),
             ("φ′ of tanh computed as tanh (1 − tanh)", lambda s: np.tanh(s.P) * (1 - np.tanh(s.P)))],
    "sigmoid": [("φ′ of sigmoid computed as 1 − φ²", lambda s: 1 - s.X**2),
                ("φ′ of sigmoid computed as 1 − φ", lambda s: 1 - s.X),
                ("φ′ of sigmoid computed as p (1 − p)", lambda s: s.P * (1 - s.P))],
    "softplus": [("φ′ of softplus computed as sigmoid(−p)", lambda s: 1 / (1 + np.exp(s.P))),
                 ("φ′ of softplus computed as 1 − exp(−|p|)", lambda s: 1 - np.exp(-np.abs(s.P))),
                 ("φ′ of softplus computed as 1 − exp(−p)", lambda s: 1 - np.exp(-s.P)),
                 ("φ′ of softplus computed as sigmoid(φ(p))", lambda s: 1 / (1 + np.exp(-s.X)))],
    "relu": [(f"φ′ of relu as a step at {c:g}", lambda s, c=c: 1.0 * (c < s.P)) for c in (1e-12, 1e-8, 1e-6, 1e-4, 1)],
    "elu": [("φ′ of elu computed as φ", lambda s: np.where(s.P > 0, 1, s.X)),
            ("φ′ of elu computed as p + 1", lambda s: np.where(s.P > 0, 1, s.P + 1)),
            ("φ′ of elu equal to exp(p) everywhere", lambda s: np.exp(s.P))],
    "softsign": [("φ′ of softsign computed as 1/(1 + |p|)", lambda s: 1 / (1 + np.abs(s.P))),
                 ("φ′ of softsign computed as (1 − |p|)²", lambda s: (1 - np.abs(s.P)) ** 2),
                 ("φ′ of softsign computed as 1/(1 + p)²", lambda s: 1 / (1 + s.P) ** 2),
                 ("φ′ of softsign computed as 1/(1 + p²)", lambda s: 1 / (1 + s.P**2))],
}  # fmt: skip


def functions_of_activation() -> Iterator[Transformation]:
    """Another φ, another φ′, or both, for one activation at a time."""
    T = Transformation
    for name in activations.TABLE:
        fits, slope = having(activation=name), activations.get(name).slope
        pairs = [(f"{other} in place of {name}", (activations.get(other).phi, activations.get(other).slope))
                 for other in activations.TABLE if other != name]  # fmt: skip
        pairs += [*_VARIANTS.get(name, []), *_scaled(name), *_composed(name)]
        for sentence, pair in pairs:
            if sentence.endswith("overflows"):
                yield T(sentence, {"phi": lambda s, pair=pair: (_narrow(pair[0], s.problem.dtype), pair[1])}, fits)
                continue
            yield T(sentence, {"phi": lambda s, pair=pair: pair}, fits)
            yield T(f"{sentence}, but not in φ′", {"phi": lambda s, pair=pair, slope=slope: (pair[0], slope)}, fits)
            yield T(f"{sentence} in φ′ alone", {"S": lambda s, pair=pair: pair[1](s.P)}, fits)
        yield T(f"φ′ of {name} equal to 1 everywhere", {"S": lambda s: np.ones_like(s.P)}, fits)
        for sentence, S in _SLOPES.get(name, []):
            yield T(sentence, {"S": S}, fits)
        for text, c in {"exp(p)": 1, "exp(−p)": -1, "exp(2 p)": 2, "exp(−2 p)": -2}.items() if name in _BY_EXP else ():
            trap = lambda s, c=c: np.where(_overflows(c * s.P, s.problem.dtype), np.nan, s.right("S"))  # noqa: E731
            yield T(f"φ′ of {name} not a number where {text} overflows", {"S": trap}, fits)
        yield T(
            f"{name} computed in float32",
            {"phi": lambda s: (lambda P: _single(s.activation.phi, P), s.activation.slope)},
            lambda case, name=name: fits_in(case, name),
        )
        yield T(
            f"φ′ of {name} computed in float32",
            {"S": lambda s: _single(s.activation.slope, s.P)},
            lambda case, name=name: fits_in(case, name),
        )
        if activations.get(name).kinks:
            for weight in (0.0, 0.5, 1.0):
                yield T(f"{name} with φ′ at a kink taken {weight:g} of the way from the smaller slope to the larger",
                        {"S": lambda s, w=weight: _at_kinks(s, w)}, fits)  # fmt: skip


def _scaled(name: str) -> list[tuple[str, Any]]:
    """φ of twice, and of half its argument."""
    of = activations.get(name)
    return [(f"{name} with {word} its argument", (lambda P, c=c: of.phi(c * P), lambda P, c=c: c * of.slope(c * P)))
            for word, c in (("half", 0.5), ("twice", 2.0)) if name != "identity"]  # fmt: skip


def _composed(name: str) -> list[tuple[str, Any]]:
    """Another φ, or this one once more, applied to the result of φ, as where one case of a switch falls through."""
    of = activations.get(name)

    def after(other: activations.Activation) -> Any:
        return (
            lambda P: other.phi(of.phi(P)),
            lambda P: other.slope(of.phi(P)) * of.slope(P),
        )

    return [
        (f"{other} applied to the result of {name}", after(activations.get(other)))
        for other in activations.TABLE
        if other != "identity" and name != "identity"
    ]


_BY_EXP = "elu", "sigmoid", "softplus", "tanh"


def _overflows(P: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Where exp p is larger than every number of a dtype."""
    too_large: np.ndarray = np.log(float(np.finfo(dtype).max)) < P
    return too_large


def fits_in(case: Case, name: str) -> bool:
    """Whether a case is in float64 and has this activation."""
    return case.problem.dtype == np.float64 and case.problem.activation == name


def _single(function: Callable[[np.ndarray], np.ndarray], P: np.ndarray) -> np.ndarray:
    return function(P.astype(np.float32)).astype(np.float64)


def _narrow(function: Callable[[np.ndarray], np.ndarray], dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
    """A function with the arithmetic, and so the largest number, of a dtype."""
    return lambda P: function(P.astype(dtype)).astype(np.float64)


def _at_kinks(s: Steps, weight: float) -> np.ndarray:
    """φ′ with another convention at a kink."""
    P, S, phi = s.P, s.right("S"), s.activation
    for kink in phi.kinks:
        near = kink == P  # in the cases that are about it, A X + Z is computed without rounding
        left, right = (float(phi.slope(np.array([kink + side]))[0]) for side in (-1e-3, 1e-3))
        S = np.where(near, min(left, right) + weight * abs(right - left), S)
    return S
