"""What is right and what is wrong with each array of an answer: factors, signs, transposes, permutations, terms.

These findings come from the numbers alone. As transformations they compete with those of the libraries, and where
nothing explains a failure they say what is right.
"""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from idl_ref.conformance.judge.evidence import CLOSE, Evidence, Known, compared, worst
from idl_ref.conformance.judge.features import sizes
from idl_ref.conformance.judge.places import REARRANGEMENTS, mean
from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.judge.transformations import Transformation
from idl_ref.conformance.truth.problem import Case

SNAP = 0.02  # a factor this near to one with a name is taken for it; whether it explains the numbers is then seen


def shown(names: list[str]) -> str:
    """Names of arrays as sentences have them: ∂ before those of gradients."""
    parts = [name if name in ("X", "Y") else f"∂{name}" for name in sorted(names)]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


Op = Callable[[Case, np.ndarray], np.ndarray]


class Found(NamedTuple):
    """What was done to an array: the end of a sentence that begins with its name, and the operation."""

    text: str
    apply: Op
    named: bool = True  # False: a factor that is only a number, which describes an error and is no cause


def _near(k: Known, M: np.ndarray) -> bool:
    return M.shape == k.got.shape and worst(k.got - M, k.bound) <= max(1.0, CLOSE * k.ratio)


def _symbols(case: Case) -> dict[str, float]:
    """Factors that a bug may put before an array, by name."""
    s = {name: float(v) for name, v in sizes(case).items() if v > 1}
    out = {"twice": 2.0, "half": 0.5, "minus": -1.0}
    for name, v in s.items():
        out |= {name: v, f"1/{name}": 1 / v}
    if {"q", "m"} <= s.keys():
        out |= {"q m": s["q"] * s["m"], "1/(q m)": 1 / (s["q"] * s["m"])}
    for k in (2, 3, 8, 10, 12, 16):  # a scale of the loss that is not taken back
        out |= {f"2^{k}": 2.0**k, f"2^−{k}": 2.0**-k}
    if "m" in s:
        out |= {"2/m": 2 / s["m"], "−1/m": -1 / s["m"]}
    return out


def _times(symbol: str) -> Op:
    return lambda case, M: M * _symbols(case).get(symbol, 1.0)


def _factor(k: Known, case: Case) -> Iterator[Found]:
    size = float((k.truth * k.truth).sum())
    if not size or not np.isfinite(size):
        return
    c = float((k.got * k.truth).sum()) / size
    if not _near(k, c * k.truth):
        return
    if not k.got.any():
        yield Found("equal to zero", lambda case, M: 0 * M)
        return
    for symbol, value in _symbols(case).items():
        if abs(c - value) <= SNAP * abs(value):
            text = {"twice": "doubled", "half": "halved", "minus": "with the wrong sign",
                    "1/m": "averaged over the batch: 1/m times the right value"}.get(symbol)  # fmt: skip
            yield Found(text or f"{symbol} times the right value", _times(symbol))
    yield Found(f"{c:.6g} times the right value", lambda case, M, c=c: c * M, False)


def _reordered(k: Known, case: Case) -> Iterator[Found]:
    orders: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        **REARRANGEMENTS,
        "transposed, with the wrong sign": lambda M: -M.T if M.shape[0] == M.shape[1] else M,
        "the same for all columns: the first one": lambda M: M[:, :1] + 0 * M,
        "the same for all columns: their mean": lambda M: mean(M, 1) + 0 * M,
        "the same for all columns: their sum": lambda M: M.sum(axis=1, keepdims=True) + 0 * M,
        "with zeros on the diagonal": lambda M: M - np.diag(np.diag(M)) if M.shape[0] == M.shape[1] else M,
        "with zeros below the diagonal": np.triu,
        "with zeros above the diagonal": np.tril,
    }
    for c in (1e-3, 1e-2, 0.1, 1.0, 5.0, 10.0, 100.0):
        orders[f"clipped to ±{c:g}"] = lambda M, c=c: np.clip(M, -c, c)
    for text, op in orders.items():
        if _near(k, op(k.truth)) and not np.array_equal(op(k.truth), k.truth):
            yield Found(text, lambda case, M, op=op: op(M))


def _terms(name: str, s: Steps) -> tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]] | None:
    """The two terms whose sum an array is."""
    if s.D is None or name not in ("Y", "U"):
        return None
    if name == "Y":
        return ("C X", s.C @ s.Xf), ("D U", s.D @ s.U)
    return ("Bᵀ V", s.B.T @ s.V), ("Dᵀ G_Y", s.D.T @ s.G_Y)


def _combined(k: Known, name: str, case: Case) -> Iterator[Found]:
    """A sum of two terms with wrong factors before them."""
    terms = _terms(name, Steps(case))
    if terms is None or k.got.size < 3:
        return
    (one, M), (two, N) = terms
    basis = np.stack([M.ravel(), N.ravel()], axis=1)
    weights = np.linalg.lstsq(basis, k.got.ravel(), rcond=None)[0]
    if not _near(k, (basis @ weights).reshape(k.got.shape)):
        return
    factors = [_named(w, case) for w in weights]
    texts = [f"{term} {text}" for term, (_, text) in zip((one, two), factors, strict=True) if text]
    if texts:
        symbols = [symbol for symbol, _ in factors]
        named = all(isinstance(s, str) or s in (0.0, 1.0) for s in symbols)
        yield Found("with " + " and ".join(texts), lambda case, _, n=name, s=symbols: _sum(case, n, s), named)


def _named(weight: float, case: Case) -> tuple[str | float, str]:
    """A symbol or number for a weight, and what it means before a term: empty for 1."""
    if abs(weight - 1) < SNAP:
        return 1.0, ""
    if abs(weight) < SNAP:
        return 0.0, "left out"
    words = {"twice": "added twice", "minus": "subtracted", "half": "halved", "1/m": "averaged over the batch"}
    for symbol, value in _symbols(case).items():
        if abs(weight - value) <= SNAP * abs(value):
            return symbol, words.get(symbol, f"multiplied by {symbol}")
    return float(weight), f"multiplied by {weight:.4g}"


def _sum(case: Case, name: str, weights: list[str | float]) -> np.ndarray:
    s = Steps(case)
    terms, known = _terms(name, s), _symbols(case)
    if terms is None:
        M: np.ndarray = s.Y if name == "Y" else s.dU
        return M
    factors = [known.get(w, 1.0) if isinstance(w, str) else w for w in weights]
    return factors[0] * terms[0][1] + factors[1] * terms[1][1]


def findings(e: Evidence) -> dict[str, list[Found]]:
    """For every wrong array the simple operations that turn the right one into it."""
    result: dict[str, list[Found]] = {}
    for name, k in compared(e).items():
        if k.ratio > 1:
            with np.errstate(all="ignore"):
                finite = bool(np.isfinite(k.got).all())
                sources = (_factor(k, e.case), _reordered(k, e.case), _combined(k, name, e.case))
                result[name] = [found for source in sources for found in source] if finite else []
    return result


def operations(e: Evidence) -> Iterator[Transformation]:
    """What turns the right answer into this one, array by array; nothing if some wrong array is not explained so."""
    found = {name: [f for f in fs if f.named] for name, fs in findings(e).items()}
    if not found or not all(found.values()):
        return
    shared = [f for f in next(iter(found.values())) if all(f.text in {g.text for g in fs} for fs in found.values())]
    choices = [{name: next(g for g in fs if g.text == f.text) for name, fs in found.items()} for f in shared]
    choices.append({name: fs[0] for name, fs in found.items()})
    for choice in choices:
        groups: dict[str, list[str]] = {}
        for name, f in choice.items():
            groups.setdefault(f.text, []).append(name)
        for names in groups.values():
            if {"L", "R"} <= {*names}:
                names[names.index("L")] = "A"
                names.remove("R")
                names.sort()
        by_name = choice | (dict.fromkeys("LR", choice["A"]) if "A" in choice else {})
        if "L" in choice and "R" in choice and choice["L"].text == choice["R"].text:
            by_name["A"] = choice["L"]
        yield Transformation(_sentence(groups), after=lambda case, answer, c=by_name: {
            name: c[name].apply(case, M) if name in c else M for name, M in answer.items()})  # fmt: skip


def _sentence(groups: dict[str, list[str]]) -> str:
    return "; ".join(_phrase(text, names) for text, names in groups.items())


def _phrase(text: str, names: list[str]) -> str:
    """«∂A transposed»; one term of a sum by its own name: «D U left out of Y»."""
    if text.startswith("with ") and len(names) == 1 and text.endswith("left out"):
        return f"{text[5:-9]} left out of {shown(names)}"
    if text.startswith("with ") and len(names) == 1 and text.endswith("subtracted"):
        return f"{text[5:-11]} subtracted in {shown(names)}"
    return f"{shown(names)} {text}"


def summary(e: Evidence) -> str:
    """What is right and what is wrong, in a sentence: «Y is right; ∂A is transposed»."""
    known = compared(e)
    found, wrong = findings(e), {name: k for name, k in known.items() if k.ratio > 1}
    right = sorted(name for name in known if name not in wrong)
    parts = [f"{shown(right)} {'is' if len(right) == 1 else 'are'} right"] if right else []
    for name, k in wrong.items():
        what = found[name][0].text if found[name] else _size(k)
        parts.append(f"{shown([name])} {what}")
    return "; ".join(parts)


def _size(k: Known) -> str:
    """The size of the errors, and the rows or columns that have them."""
    if not np.isfinite(k.got).all():
        return "not finite"
    error = np.abs(k.got - k.truth)
    bad = error > k.bound
    relative = float(error.max() / max(np.abs(k.truth).max(initial=0.0), 1e-300))
    where = ""
    for axis, word in ((1, "row"), (0, "column")):
        hit = np.flatnonzero(bad.any(axis=axis))
        if len(hit) < bad.shape[1 - axis] and not where:
            more = " …" * (len(hit) > 3)
            where = f" in {word}{'s' * (len(hit) > 1)} {', '.join(map(str, hit[:3]))}{more} alone"
    return f"wrong by {relative:.1g} of its largest entry{where}"
