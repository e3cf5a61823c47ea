"""Experiments with a backend: from which size on it is wrong, by fresh problems, and what a second call adds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from idl_ref.conformance.judge import features, verdicts
from idl_ref.conformance.judge.call import ask
from idl_ref.conformance.judge.diagnosis import Probe
from idl_ref.conformance.judge.evidence import Evidence, columns, worst
from idl_ref.conformance.judge.patterns import Again
from idl_ref.conformance.judge.report import FAILED
from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.truth.backend import Backend, Capabilities
from idl_ref.conformance.truth.problem import Case


def probe(backend: Backend, declared: Capabilities) -> Probe:
    """A function that tells whether a backend fails the check of some evidence at another value of n, p, q, m or r."""

    def fails(e: Evidence, size: str, value: int) -> bool:
        case = fresh(e.case, {**features.sizes(e.case), size: value})
        judge = verdicts.forward if e.check == "forward" else verdicts.vjp
        return judge(backend, case, declared).outcome == FAILED

    return fails


def again(backend: Backend, declared: Capabilities) -> Again:
    """A function that calls vjp twice, and tells in which gradients the second answer is the first and the truth."""

    def added(e: Evidence) -> list[str]:
        one, two = (ask(backend, "vjp", e.case.problem, e.case.G_Y, declared) for _ in range(2))
        names = []
        for name in [] if one.error or two.error else e.truth.keys() & one.arrays.keys() & two.arrays.keys():
            arrays = one.arrays[name], two.arrays[name], e.truth[name], e.bounds[name]
            first, second, truth, bound = (columns(e.case, name, M) for M in arrays)
            bound = 4 * bound + 4 * np.finfo(second.dtype).eps * np.abs(second)
            if truth.any() and worst(second - first - truth, bound) <= 1 < worst(second - truth, bound):
                names.append(name)
        return sorted(names)

    return added


def fresh(like: Case, sizes: dict[str, int]) -> Case:
    """A case of given sizes with the settings of another one, and its answer computed in float64.

    Rows of |A| sum to at most a half, so that every method solves it fast; f is the identity.
    """
    n, p, q, m, r = (sizes[name] for name in "npqmr")
    rng, dtype = np.random.default_rng([n, p, q, m, r]), like.problem.dtype

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape).astype(dtype)

    def halved(M: np.ndarray) -> np.ndarray:
        return (M / (2 * np.maximum(np.abs(M).sum(axis=1, keepdims=True), 1))).astype(dtype)

    arrays: dict[str, Any] = {"B": draw(n, p), "C": draw(q, n), "D": draw(q, p), "U": draw(p, m), "X0": None}
    if like.problem.A is not None:
        arrays["A"] = halved(draw(n, n))
    else:
        arrays |= {"L": halved(draw(n, r)), "R": np.ascontiguousarray(2 * halved(draw(r, n)).T)}
    problem = replace(like.problem, f="none", tol=1e-12 if dtype == np.float64 else 1e-6, max_iter=1000, **arrays)
    case = Case(f"fresh-{n}-{p}-{q}-{m}-{r}", "fresh", "", (), problem, draw(q, m))
    start = replace(case, truths=({"X": np.zeros((n, m))},))
    s = Steps(start, {"Z": lambda s: s.right("Z")})  # a step that is replaced by itself, so that the equation is solved
    truth = {**s.answer("forward"), **s.answer("vjp"), "V": s.V}
    return replace(case, truths=(truth,))
