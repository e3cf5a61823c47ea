"""Wrong numbers by name: rounded, clipped, dropped or misread entries, tails of chunks, iterations stopped too early.

These transformations have a parameter each: a dtype, a size, a rule; `transformations` has those of the mathematics.
"""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.conformance.judge import iterates
from idl_ref.conformance.judge.iterates import RULES, Rule
from idl_ref.conformance.judge.places import REARRANGEMENTS
from idl_ref.conformance.judge.steps import INPUTS, Steps, UnsolvedError
from idl_ref.conformance.judge.transformations import Change, Transformation
from idl_ref.conformance.truth.bounds import equation
from idl_ref.conformance.truth.problem import Case, laid_out, rounded

# --- rounding ---------------------------------------------------------------------------------------------------------


def _away(M: np.ndarray) -> np.ndarray:
    return np.trunc(M + np.copysign(0.5, M))


def _cast(M: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return M.astype(dtype).astype(np.float64)


PRECISIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float16": partial(_cast, dtype="float16"),
    "bfloat16": partial(rounded, bits=8),
    "bfloat16, cut off": lambda M: rounded(M, 8, np.trunc),
    "bfloat16, halves away from zero": lambda M: rounded(M, 8, _away),
    "TF32, halves away from zero": lambda M: rounded(M, 11, _away),
    "TF32": partial(rounded, bits=11),
    "float32": partial(_cast, dtype="float32"),
    "8 bits": lambda M: np.round(M * 127 / max(np.abs(M).max(initial=0.0), 1e-300)) * np.abs(M).max(initial=0.0) / 127,
}


def _of(names: tuple[str, ...], change: Callable[..., np.ndarray]) -> dict[str, Change]:
    """The same change of several steps, where they are not None; a change by `_pruned` alone depends on the dtype."""

    def at(name: str) -> Change:
        def changed(s: Steps) -> Any:
            M, of = s.right(name), change
            if change is _pruned:
                of = partial(_pruned, small=float(np.finfo(s.problem.dtype).tiny))
            if isinstance(M, tuple):
                return tuple(map(of, M))
            return None if M is None else of(M)

        return changed

    return {name: at(name) for name in names}


WEIGHTS = ("A", "L", "R", "B", "C", "D")
PLACES: dict[str, tuple[str, ...]] = (
    {"A, or L and R,": ("A", "L", "R")}
    | {name: (name,) for name in INPUTS if name != "A"}
    | {
        "all weights": WEIGHTS,
        "B, C and D": ("B", "C", "D"),
        "B and U": ("B", "U"),
        "A, B and U": ("A", "L", "R", "B", "U"),
        "all inputs": (*WEIGHTS, "U", "G_Y"),
        "B U": ("Z",),
        "X": ("Xf", "Xb"),
        "X, but for the gradients,": ("Xf",),
        "X for the gradients alone": ("Xb",),
        "V": ("V",),
        "φ′": ("S",),
        "Cᵀ G_Y": ("G",),
        "Y": ("Y",),
        "the gradients": ("dF", "dB", "dC", "dD", "dU"),
    }
)


def roundings() -> Iterator[Transformation]:
    """Numbers rounded, clipped, flushed or pruned, at each place."""
    for dtype, change in PRECISIONS.items():
        yield Transformation(f"X for Y alone rounded to {dtype}", {"Y": lambda s, r=change: _readout(s, r(s.Xf))})
    for place, names in PLACES.items():
        for dtype, change in PRECISIONS.items():
            yield Transformation(f"{place} rounded to {dtype}", _of(names, change))
        yield Transformation(f"subnormal numbers flushed to zero in {place}", _of(names, _pruned))
        for c in (1e6, 1e3, 100.0, 10.0, 5.0, 4.0, 2.0, 1.5, 1.0):
            yield Transformation(f"{place} clipped to ±{c:g}", _of(names, partial(_clipped, c=c)))
        for small in (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
            sentence = f"entries of {place} below {small:g} set to zero"
            yield Transformation(sentence, _of(names, partial(_pruned, small=small)))


def _to_decimals(M: np.ndarray, d: int) -> np.ndarray:
    rounded: np.ndarray = np.round(M, d)
    return rounded


def multiples() -> Iterator[Transformation]:
    """Inputs rounded to a number of decimals."""
    for place in ("U", "B U", "X", "Y", "G_Y", "all weights", "A, or L and R,", "B", "C", "D"):
        for d in (2, 3, 4, 5, 6, 7, 8):
            yield Transformation(f"{place} rounded to multiples of {10.0**-d:g}",
                                 _of(PLACES[place], partial(_to_decimals, d=d)))  # fmt: skip


def _clipped(M: np.ndarray, c: float) -> np.ndarray:
    return np.clip(M, -c, c)


def _pruned(M: np.ndarray, small: float) -> np.ndarray:
    return np.where(np.abs(M) < small, 0, M)


# --- memory and sizes -------------------------------------------------------------------------------------------------


def _as_it_lies(s: Steps, name: str) -> Any:
    M = s.right(name)
    return None if M is None else laid_out(M, s.case.layout).ravel(order="K").reshape(M.shape)


def _with_gaps(M: np.ndarray, to: int) -> np.ndarray:
    """M read with rows whose length is rounded up to a multiple of `to`, though its memory has none of these gaps."""
    apart = -(-M.shape[1] // to) * to
    memory = np.zeros(M.shape[0] * apart)
    memory[: M.size] = M.ravel()
    return memory.reshape(M.shape[0], apart)[:, : M.shape[1]]


def _padded(name: str) -> Iterator[Transformation]:
    """Rows, or columns, of one input read as if they were filled up to whole vectors."""
    for to in (4, 8, 16):
        by_rows = partial(_with_gaps, to=to)
        readings: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "rows": by_rows, "columns": lambda M, f=by_rows: f(M.T).T}  # fmt: skip
        for what, read in readings.items():
            text = f"{what} of {name} read as if their length were a multiple of {to}"
            yield Transformation(text, _of((name,), read))
            if name == "B":
                yield Transformation(f"{text}, in B U alone", {"Z": lambda s, r=read: r(s.B) @ s.U})


def misread() -> Iterator[Transformation]:
    """Arrays read in another order than that of their indices, or by another stride."""
    for name in INPUTS:
        lies = lambda s, name=name: _as_it_lies(s, name)  # noqa: E731
        yield Transformation(
            f"strides ignored: the entries of {name} read in the order in which they lie in memory", {name: lies}
        )
        Z = lambda s, name=name: _as_it_lies(s, name) @ s.U if name == "B" else s.B @ _as_it_lies(s, name)  # noqa: E731
        if name in ("B", "U"):
            yield Transformation(f"strides of {name} ignored in B U, but nowhere else", {"Z": Z})
        column = lambda M: np.ravel(M, order="F").reshape(M.shape)  # noqa: E731
        yield Transformation(f"{name} read column by column in place of row by row", _of((name,), column))
        yield Transformation(f"{name} read in reversed order", _of((name,), lambda M: M[::-1, ::-1]))
        square = lambda M: M.T if M.shape[0] == M.shape[1] else M  # noqa: E731
        yield Transformation(f"{name} transposed", _of((name,), square))
        yield from _padded(name)
    backwards = lambda M: M[::-1, ::-1]  # noqa: E731
    yield Transformation("the sign of negative strides ignored: reversed arrays read back to front",
                         _of(INPUTS, backwards), lambda case: case.layout == "reversed")  # fmt: skip
    every = {name: (lambda s, name=name: _as_it_lies(s, name)) for name in INPUTS}
    yield Transformation("strides ignored: all arrays read in the order in which they lie in memory", every)


# --- iterations stopped too early -------------------------------------------------------------------------------------

STALE = "the iterate before the last application of the map returned"


UNJUDGED = "g(x̂) returned where only x̂ was judged and g is no contraction"


def _expands(case: Case) -> bool:
    eq = equation(case.problem)
    return bool((eq.lipschitz * eq.size).sum(axis=1).max(initial=0.0) >= 1)


def _stopped(what: str, rule: Rule, together: bool, back: int, names: tuple[str, ...]) -> dict[str, Change]:
    def change(s: Steps) -> np.ndarray:
        X = iterates.stopped(iterates.path(s.case, what), rule, together, back)
        if X is None:
            raise UnsolvedError
        return X

    return dict.fromkeys(names, change)


def after(k: int, what: str) -> Transformation:
    """The iteration stopped after k iterations."""
    subject = {"equation": "", "adjoint": "adjoint ", "both": "equation and adjoint "}[what]
    sentence = f"{subject}stopped after {k} iteration{'s' * (k > 1)} whatever max_iter allows"
    return Transformation(sentence, _cut_off(lambda case: k, what), lambda case: case.problem.max_iter > k)


def _cut_off(limit: Callable[[Case], int], what: str) -> dict[str, Change]:
    X: Change = lambda s: iterates.at(iterates.path(s.case, "equation"), limit(s.case))  # noqa: E731
    changes = {"equation": {"Xf": X, "Xb": X}, "adjoint": {"V": lambda s: _adjoint_after(s, limit(s.case))}}
    return changes["equation"] | changes["adjoint"] if what == "both" else changes[what]


def _adjoint_after(s: Steps, k: int) -> np.ndarray:
    """V after so many iterations from 0, with the φ′ of these steps."""
    V: np.ndarray = np.zeros_like(s.G)
    for _ in range(k):
        V, last = s.S * (fac.apply(s.Ft, V) + s.G), V
        if (last == V).all():
            break
    return V


def _from(start: Callable[[np.ndarray], np.ndarray]) -> dict[str, Change]:
    """The last iterate that max_iter allows from a start that is made from X0."""

    def change(s: Steps) -> np.ndarray:
        X: np.ndarray = start(s.X0)
        for _ in range(s.problem.max_iter):
            X = s.phi[0](fac.apply(s.F, X) + s.Z)
        return X

    return dict.fromkeys(("Xf", "Xb"), change)


def _with_nan(case: Case) -> bool:
    return not np.isfinite(case.problem.U).all()


def _from_ones(s: Steps) -> np.ndarray:
    """V by an iteration that starts from 1 and stops by an absolute tolerance."""
    V: np.ndarray = np.ones_like(s.G)
    for _ in range(s.problem.max_iter):
        V, last = s.S * (fac.apply(s.Ft, V) + s.G), V
        if np.abs(V - last).max(initial=0.0) <= s.problem.tol:
            break
    return V


def limits() -> Iterator[Transformation]:
    """Limits of the iterations that depend on the problem."""
    starts: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "X0 ignored: the iteration starts from 0": np.zeros_like,
        "all columns started from the first column of X0": lambda X: X[:, :1] + 0 * X,
        "all columns started from the last column of X0": lambda X: X[:, -1:] + 0 * X,
        **{f"X0 {text}": operation for text, operation in REARRANGEMENTS.items()},
    }
    for text, start in starts.items():
        yield Transformation(text, _from(start),
                             lambda case: case.problem.X0 is not None and case.problem.max_iter <= 1000)  # fmt: skip
    for what, subject in (("both", "iteration"), ("adjoint", "adjoint iteration")):
        yield Transformation(f"a column of NaN ends the {subject} of the whole batch at once",
                             _cut_off(lambda case: 1, what), _with_nan)  # fmt: skip
    rules: dict[str, Callable[[Case], int]] = {
        "n iterations": lambda c: c.problem.sizes[0], "n + 1 iterations": lambda c: c.problem.sizes[0] + 1,
        "half of max_iter": lambda c: max(c.problem.max_iter // 2, 1),
        "max_iter − 1 iterations": lambda c: max(c.problem.max_iter - 1, 1),
    }  # fmt: skip
    for text, limit in rules.items():
        for what, subject in (("both", ""), ("adjoint", "adjoint "), ("equation", "equation ")):
            yield Transformation(f"{subject}stopped after {text}, converged or not", _cut_off(limit, what),
                                 lambda case, limit=limit: case.problem.max_iter > limit(case))  # fmt: skip


def _averaged(names: tuple[str, ...], what: str, backs: tuple[int, int]) -> dict[str, Change]:
    last, before = (_stopped(what, iterates.right, True, back, names)[names[0]] for back in backs)
    return dict.fromkeys(names, lambda s: (last(s) + before(s)) / 2)


def averages() -> Iterator[Transformation]:
    """The mean of the last two iterates, as a damped iteration leaves it."""
    for backs, which in (((0, 1), "the last two iterates"), ((0, 2), "the last iterate and that before the last two")):
        text = f"the mean of {which} returned in place of the last application of the map"
        X, V = _averaged(("Xf", "Xb"), "equation", backs), _averaged(("V",), "adjoint", backs)
        yield from (Transformation(text, X | V), Transformation(f"{text} (not in the adjoint)", X))
        yield Transformation(f"{text} (in the adjoint)", V)


def _by_rule(sentence: str, rule: Rule, back: int) -> Iterator[Transformation]:
    """The equation, the adjoint, and both, stopped by a rule: the columns together, or each on its own."""
    text = f"{sentence}, and {STALE}" if sentence and back else sentence or STALE
    for together in (True, False):
        X = _stopped("equation", rule, together, back, ("Xf", "Xb"))
        V = _stopped("adjoint", rule, together, back, ("V",))
        yield Transformation(text, X)
        yield Transformation(f"{text} (in the adjoint)", V)
        yield Transformation(f"{text} (also in the adjoint)", X | V)


@cache
def stale() -> tuple[Transformation, ...]:
    """What follows from the iterate before the last, or before that, in place of the last application of the map."""
    return tuple(wrong for back in (1, 2) for wrong in _stale(back))


def _stale(back: int) -> Iterator[Transformation]:
    X = _stopped("equation", iterates.right, True, back, ("Xb",))["Xb"]
    steps: dict[str, dict[str, Change]] = {
        "φ′ taken at the previous iterate": {"P": lambda s: fac.apply(s.F, X(s)) + s.Z},
        "Y computed from the iterate before the last": {"Y": lambda s: _readout(s, X(s))},
        "∂A and ∂C computed with the iterate before the last": {
            "Xb": X, "P": lambda s: fac.apply(s.F, s.X) + s.Z},
        "∂A computed with the iterate before the last": {"dF": lambda s: fac.gradients(s.F, X(s), s.V)},
        "∂C computed with the iterate before the last": {"dC": lambda s: s.G_Y @ X(s).T},
    }  # fmt: skip
    yield from _by_rule("", iterates.right, back)
    yield from (Transformation(text, changes) for text, changes in steps.items())


def stops() -> Iterator[Transformation]:
    """The equation, the adjoint equation, or both stopped by another rule, or at the iterate before the last."""
    for together in (True, False):
        yield Transformation(UNJUDGED, _stopped("equation", iterates.right, together, 0, ("Xf", "Xb")), _expands)
    yield from (*stale(), *averages(), *limits())
    yield Transformation("the adjoint started from 1 and stopped by an absolute tolerance", {"V": _from_ones})
    for sentence, rule in RULES.items():
        for back in (0, 1, 2):
            yield from _by_rule(sentence, rule, back)


def _readout(s: Steps, X: np.ndarray) -> np.ndarray:
    Y: np.ndarray = s.C @ X
    return Y if s.D is None else Y + s.D @ s.U
