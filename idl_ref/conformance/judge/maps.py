"""What may be wrong with f, the map from raw to effective weights, and with its pullback."""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref import perron
from idl_ref.conformance.judge.steps import Steps, product
from idl_ref.conformance.judge.transformations import Change, Transformation, having, low_rank
from idl_ref.conformance.truth.problem import Case
from idl_ref.functions import FUNCTIONS


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


def exactly(fits: Callable[[Case], bool]) -> Callable[[Case], bool]:
    """Of these cases those in which f is differentiated."""
    return lambda case: fits(case) and not case.problem.straight_through


def _top(F: np.ndarray) -> np.ndarray:
    """1 in the first row that attains ‖F‖∞.   (n, 1)"""
    row: np.ndarray = np.eye(len(F))[:, [int(np.abs(F).sum(axis=1).argmax())]]
    return row


def _scaling(direction: Callable[[np.ndarray], np.ndarray]) -> Callable[[Steps], fac.Factors]:
    """The pullback of the scaling to the ball with another derivative of its norm."""

    def pull(s: Steps) -> fac.Factors:
        pulled, k = [], s.problem.kappa
        for G, F in zip(s.dF, s.raw, strict=True):
            nu = _inf(F) if F.size else 0.0
            pulled.append(k / nu * (G - (G * F).sum() / nu * direction(F)) if nu > k else G)
        return tuple(pulled)

    return pull


_PULLBACKS = {
    "taken without the signs of the entries": _scaling(lambda F: _top(F) + 0 * F),
    "spread over every row, not the one that attains it": _scaling(np.sign),
    "with the wrong sign": _scaling(lambda F: -_top(F) * np.sign(F)),
}


def _within_row(s: Steps) -> fac.Factors:
    """The pullback of the scaling with the inner product of the largest row in place of that of the whole matrix."""
    pulled, k = [], s.problem.kappa
    for G, F in zip(s.dF, s.raw, strict=True):
        nu, top = _inf(F) if F.size else 0.0, _top(F) if F.size else F
        pulled.append(k / nu * (G - (top * G * F).sum() / nu * top * np.sign(F)) if nu > k else G)
    return tuple(pulled)


def _projected(s: Steps, kept: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> fac.Factors:
    """The pullback of the projection of rows, where they are outside the ball, by another rule."""
    pulled = []
    for G, F, E in zip(s.dF, s.raw, s.F, strict=True):
        beyond = np.abs(F).sum(axis=1, keepdims=True) > s.problem.kappa
        pulled.append(np.where(beyond, kept(G, F, E), G))
    return tuple(pulled)


def _all_entries(s: Steps) -> fac.Factors:
    return _projected(s, lambda G, F, E: G - np.sign(F) * (np.sign(F) * G).sum(axis=1, keepdims=True)
                      / np.maximum(np.abs(np.sign(F)).sum(axis=1, keepdims=True), 1))  # fmt: skip


def _mean_of_row(s: Steps) -> fac.Factors:
    return _projected(s, lambda G, F, E: np.where(
        E != 0, G - np.sign(F) * (np.sign(E) * G).sum(axis=1, keepdims=True) / max(F.shape[1], 1), 0))  # fmt: skip


def _support_only(s: Steps) -> fac.Factors:
    return _projected(s, lambda G, F, E: np.where(E != 0, G, 0))


def _support_off_by(s: Steps, more: int) -> _Map:
    """The projection of rows with a threshold from a support of more entries, or of fewer."""

    def project(F: np.ndarray) -> np.ndarray:
        k, a = s.problem.kappa, np.abs(F)
        sums, counts = np.cumsum(-np.sort(-a, axis=1), axis=1) - k, np.arange(1, F.shape[1] + 1)
        support = (-np.sort(-a, axis=1) * counts > sums).sum(axis=1, keepdims=True)
        taken = np.clip(support + more, 1, F.shape[1])
        theta = np.take_along_axis(sums, taken - 1, axis=1) / taken
        projected: np.ndarray = np.where(a.sum(axis=1, keepdims=True) > k, np.sign(F) * np.maximum(a - theta, 0), F)
        return projected

    return _Map(s, lambda F: project(F) if F.size else F)


def _threshold_of_signed(s: Steps) -> _Map:
    """The projection of rows with a threshold from the entries sorted by value."""

    def project(F: np.ndarray) -> np.ndarray:
        k, descending, counts = s.problem.kappa, -np.sort(-F, axis=1), np.arange(1, F.shape[1] + 1)
        sums = np.cumsum(descending, axis=1) - k
        last = np.where(descending * counts > sums, counts, 1).max(axis=1, keepdims=True)
        theta = np.maximum(np.take_along_axis(sums, last - 1, axis=1) / last, 0)
        outside = np.abs(F).sum(axis=1, keepdims=True) > k
        projected: np.ndarray = np.where(outside, np.sign(F) * np.maximum(np.abs(F) - theta, 0), F)
        return projected

    return _Map(s, lambda F: project(F) if F.size else F)


def _largest(v: np.ndarray) -> float:
    return float(v.max())


def _by_powers(s: Steps, count: int, norm: Callable[[np.ndarray], Any]) -> fac.Factors:
    """The weights scaled by the norm of the last of `count` products of |A|, or |L||Rᵀ|, with a vector of norm 1."""
    sizes, root = tuple(map(np.abs, s.raw)), 0.0
    v = np.ones((len(s.B), 1)) / norm(np.ones((len(s.B), 1)))
    for _ in range(count):
        v = fac.apply(sizes, v)
        root = float(norm(v))
        if not root > 0:
            return s.raw
        v = v / root
    return tuple(F * min(1.0, s.problem.kappa / root ** (1 / len(s.raw))) for F in s.raw)


def _rows_scaled(s: Steps) -> _Map:
    k = s.problem.kappa
    return _Map(s, lambda F: F * (k / np.maximum(k, np.abs(F).sum(axis=1, keepdims=True))))


def _by_whole_root(s: Steps) -> fac.Factors:
    """L and Rᵀ scaled by the Perron root of |L||Rᵀ| in place of its square root."""
    return tuple(F * min(1.0, s.problem.kappa / perron.root(s.raw).value) for F in s.raw)


def _root_held(s: Steps) -> fac.Factors:
    """The pullback of the scaling to a Perron root that is held fixed."""
    scale = min(1.0, s.problem.kappa / perron.root(s.raw).value ** (1 / len(s.raw)))
    return tuple(G * scale for G in s.dF)


def _by_slope(s: Steps, change: Callable[[np.ndarray], np.ndarray]) -> fac.Factors:
    """The pullback of the scaling of A to a Perron root with a changed derivative u vᵀ/uᵀv of the root."""
    (A,), (G,), root = s.raw, s.dF, perron.root(s.raw)
    if root.value <= s.problem.kappa:
        return (G,)
    slope = change(perron.slopes((A,), root.block)[0])
    return ((G - (G * A).sum() / root.value * np.sign(A) * slope) * (s.problem.kappa / root.value),)


def _of_one_vector(slope: np.ndarray, axis: int) -> np.ndarray:
    """The derivative of the root as if u were v, or v were u."""
    v = slope.sum(axis=axis)
    return np.outer(v, v) / (v @ v)


def _threshold_of_all(s: Steps) -> _Map:
    """The projection of rows with a threshold from all entries, as if all remained."""
    k = s.problem.kappa

    def project(F: np.ndarray) -> np.ndarray:
        excess = np.abs(F).sum(axis=1, keepdims=True) - k
        theta = np.maximum(excess, 0) / max(F.shape[1], 1)
        projected: np.ndarray = np.sign(F) * np.maximum(np.abs(F) - theta, 0)
        return projected

    return _Map(s, project)


def _onto_sphere(s: Steps) -> _Map:
    """The projection of rows on the sphere: entries of a row inside the ball grow."""

    def project(F: np.ndarray) -> np.ndarray:
        room = s.problem.kappa - np.abs(F).sum(axis=1, keepdims=True)
        grown: np.ndarray = F + np.sign(F) * room / max(F.shape[1], 1)
        return np.where(room > 0, grown, s.problem.function.effective((F,))[0])

    return _Map(s, project)


def _signs_of_all(s: Steps) -> fac.Factors:
    """The pullback of the projection of rows with the inner product of all signs, not of those that remain."""
    return _projected(s, lambda G, F, E: np.where(E != 0, G - np.sign(F) * (np.sign(F) * G).sum(axis=1, keepdims=True)
                      / np.maximum((E != 0).sum(axis=1, keepdims=True), 1), 0))  # fmt: skip


def mapped(case: Case) -> bool:
    """Whether the problem has a map f."""
    return case.problem.f != "none"


def pullbacks() -> Iterator[Transformation]:
    """What may be wrong with the derivative of f."""
    T, (inf, rows) = Transformation, (having(f=name) for name in ("inf", "rows"))
    straight = (
        "straight-through where exact was declared: ∂A of the effective weights returned as that of the raw weights"
    )
    yield T(straight, {"pulled": lambda s: s.dF}, lambda c: mapped(c) and c.problem.f != "triu")
    exact = lambda s: replace(s.problem, straight_through=False).function.pullback(s.raw, s.dF)  # noqa: E731
    yield T("the exact derivative of f where straight-through was declared", {"pulled": exact}, mapped)
    yield T("the derivative of the norm left out of the derivative of the scaling", {"pulled": _held}, exactly(inf))
    yield T("the gradient scaled as the weights are where straight-through was declared",
            {"pulled": lambda s: (_root_held if s.problem.f == "perron" else _held)(s)},
            lambda c: c.problem.f in ("inf", "perron") and c.problem.straight_through)  # fmt: skip
    for sentence, pull in _PULLBACKS.items():
        yield T(f"the derivative of ‖A‖∞ {sentence}", {"pulled": lambda s, pull=pull: pull(s)}, exactly(inf))
    yield T("the inner product with ∂A taken over the largest row alone", {"pulled": _within_row}, exactly(inf))
    yield T("the gradient of a projected row averaged over its length, not over its nonzero entries",
            {"pulled": _mean_of_row}, exactly(rows))  # fmt: skip
    yield T("the gradient of a projected row not restricted to its nonzero entries", {"pulled": _all_entries},
            exactly(rows))  # fmt: skip
    yield T("the gradient of a projected row restricted to its nonzero entries, but not to the sphere",
            {"pulled": _support_only}, exactly(rows))  # fmt: skip
    yield T("the inner product with the signs of a projected row taken over entries that became 0, too",
            {"pulled": _signs_of_all}, exactly(rows))  # fmt: skip
    root = exactly(having(f="perron"))
    yield T("the derivative of the Perron root left out of the derivative of the scaling",
            {"pulled": _root_held}, root)  # fmt: skip
    yield T("the left and the right vector of the Perron root exchanged in its derivative",
            {"pulled": lambda s: _by_slope(s, np.transpose)}, lambda c: root(c) and not low_rank(c))  # fmt: skip
    for axis, which, other in ((0, "right", "left"), (1, "left", "right")):
        yield T(f"the {which} vector of the Perron root in place of the {other} one in its derivative",
                {"pulled": lambda s, axis=axis: _by_slope(s, lambda slope: _of_one_vector(slope, axis))},
                lambda c: root(c) and not low_rank(c))  # fmt: skip
    yield T("the gradients of entries kept that f = triu sets to zero", {"pulled": lambda s: s.dF}, having(f="triu"))


def _of_rows_and_roots() -> Iterator[Transformation]:
    """What may be wrong with projected rows, and with the Perron root."""
    T, (rows, triu, root) = Transformation, (having(f=name) for name in ("rows", "triu", "perron"))
    for more, word in ((-1, "few"), (1, "many")):
        yield T(f"the threshold of a projected row taken from one entry too {word}",
                {"f": lambda s, more=more: _support_off_by(s, more)}, rows)  # fmt: skip
    yield T("the threshold of a projected row taken from its signed entries, not from their sizes",
            {"f": _threshold_of_signed}, rows)  # fmt: skip
    yield T("the threshold of a projected row taken from all of its entries, as if none became 0",
            {"f": _threshold_of_all}, rows)  # fmt: skip
    yield T("rows inside the ball moved to its sphere, by a negative threshold", {"f": _onto_sphere}, rows)
    yield T("f = triu applied to Aᵀ in the adjoint, in place of the transposed result of f",
            {"Ft": lambda s: tuple(np.triu(F.T, 1) for F in s.raw)}, triu)  # fmt: skip
    for precision in (np.float32, np.float16):
        coarse = lambda s, of=precision: FUNCTIONS[s.problem.f](float(of(s.problem.kappa)))  # noqa: E731
        yield T(f"κ rounded to {precision.__name__}", {"f": coarse}, exactly(mapped))
    for count in (1, 2, 3, 5, 10, 20, 30, 50, 100):
        for words, norm in {"": _largest, ", by Euclidean norms": np.linalg.norm}.items():
            yield T(f"the Perron root taken from {count} power iterations{words}, which have not converged",
                    {"F": lambda s, k=count, norm=norm: _by_powers(s, k, norm)}, root)  # fmt: skip


def maps() -> Iterator[Transformation]:
    """What may be wrong with f."""
    T, (inf, rows, triu, root) = Transformation, (having(f=name) for name in ("inf", "rows", "triu", "perron"))
    yield from _of_rows_and_roots()
    for digits in (1, 2, 3):
        kappa = lambda s, d=digits: FUNCTIONS[s.problem.f](round(s.problem.kappa, d))  # noqa: E731
        yield T(f"κ rounded to {digits} decimal{'s' * (digits > 1)}", {"f": kappa}, exactly(mapped))
    for text, of in {"√κ": lambda k: k**0.5, "κ²": lambda k: k * k, "κ/2": lambda k: k / 2}.items():
        yield T(f"{text} in place of κ in f",
                {"f": lambda s, of=of: replace(s.problem, kappa=of(s.problem.kappa)).function}, mapped)  # fmt: skip
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
    yield T("‖A‖∞ in place of the Perron root of |A|",
            {"f": lambda s: FUNCTIONS["inf"](s.problem.kappa, s.problem.straight_through)}, root)  # fmt: skip
    yield T("L and Rᵀ scaled by the Perron root of |L||Rᵀ| in place of its square root", {"F": _by_whole_root},
            lambda c: root(c) and low_rank(c))  # fmt: skip
    yield T("the diagonal kept where f = triu sets it to zero", {"F": lambda s: tuple(map(np.triu, s.raw))}, triu)
    yield T("the lower triangle in place of the upper one",
            {"F": lambda s: tuple(np.tril(F, -1) for F in s.raw)}, triu)  # fmt: skip
    for k in (0.5, 0.9, 0.95, 0.99, 0.999, 1.0):
        yield T(
            f"κ ignored: {k:g} in its place",
            {"f": lambda s, k=k: FUNCTIONS[s.problem.f](k)},
            lambda c: inf(c) or rows(c) or root(c),
        )
    yield T("f applied to L Rᵀ as a whole, not to L and Rᵀ", {"F": _whole}, lambda c: low_rank(c) and inf(c))
    yield T(
        "f applied to L alone",
        {"F": lambda s: (s.f.effective(s.raw[:1])[0], s.raw[1])},
        lambda c: low_rank(c) and mapped(c) and not root(c),
    )
    yield T(
        "f applied to Rᵀ alone",
        {"F": lambda s: (s.raw[0], s.f.effective(s.raw[1:])[0])},
        lambda c: low_rank(c) and mapped(c) and not root(c),
    )
    yield T(
        "f applied to R in place of Rᵀ",
        {"F": lambda s: (s.f.effective(s.raw[:1])[0], s.f.effective((s.raw[1].T,))[0].T)},
        lambda c: low_rank(c) and mapped(c) and not root(c),
    )


def _whole(s: Steps) -> fac.Factors:
    A = product(s.raw)
    return s.raw[0] * (s.problem.kappa / max(s.problem.kappa, _inf(A))) if A.size else s.raw[0], s.raw[1]
