"""The iterations that a backend reports, judged against those that X ← φ(A X + Z) needs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from idl_ref import activations
from idl_ref import factors as fac
from idl_ref.conformance.judge.call import Answer
from idl_ref.conformance.judge.counting import Reported
from idl_ref.conformance.truth import bounds as bnd
from idl_ref.conformance.truth.backend import Capabilities
from idl_ref.conformance.truth.majorants import above
from idl_ref.conformance.truth.problem import Case

THROUGH_PHI = "the iteration starts at φ(X0) in place of X0"
MISCOUNTED = "iterations were reported for column"  # what messages say about a number that is wrong, and no status


class Needed(NamedTuple):
    """Numbers of applications of the map, column by column.

    `low` is the first after which the step may be within the tolerance, and `high` the first after which it must be,
    whatever the rounding; one more than max_iter where neither happens.   (m,), (m,)
    """

    low: np.ndarray
    high: np.ndarray


def reported(case: Case, answer: Answer, declared: Capabilities) -> Reported | None:
    """The reported numbers beside those that X ← φ(A X + Z) needs, or None if there are none to judge.

    A column may report its own number or, in a batch that is iterated as a whole, that of its slowest mate.
    """
    counts, cap = answer.iterations, case.problem.max_iter
    if not declared.iterations or case.good.size == 0 or counts is None:
        return None
    due, finite = needed(case, declared.X0), np.isfinite(answer.arrays["Y"]).all(axis=0)
    slack, early = declared.iteration_slack, int(declared.stops == "residual")
    done = case.good if answer.converged is None else answer.converged
    least = np.where(done, due.low - early, cap) - slack
    most = np.where(done, due.high.max(), cap) + slack
    return Reported(counts, least, most, done, np.asarray(finite if answer.converged is not None else done), cap)


def wrong(case: Case, answer: Answer, declared: Capabilities) -> str:
    """A message if the reported iterations are not those of X ← φ(A X + Z); otherwise, or if none are due, empty."""
    given = reported(case, answer, declared)
    if given is None:
        missing = declared.iterations and case.good.size > 0 and answer.iterations is None
        return "iterations are declared, but none were reported" if missing else ""
    outside = np.flatnonzero(given.outside())
    if not outside.size:
        return ""
    j, cap, due = int(outside[0]), given.max_iter, needed(case, declared.X0)
    count = int(given.counts[j])
    if not given.done[j]:
        return f"column {j} gave up after {count} iterations, but max_iter allows {cap}"
    if due.low[j] > cap:
        return f"column {j} was reported as converged after {count} iterations, but max_iter = {cap} is too few"
    exact = f"{due.low[j]}" if due.low[j] == due.high[j] else f"{due.low[j]} to {due.high[j]}"
    return f"{count} {MISCOUNTED} {j}, but X ← φ(A X + Z) needs {exact}"


def reason(case: Case, answer: Answer, declared: Capabilities) -> str:
    """The mistake in the start that wrong numbers of iterations come from; empty if it is not known."""
    problem, counts = case.problem, answer.iterations
    if problem.X0 is None or not declared.X0 or counts is None:
        return ""
    start = activations.get(problem.activation).phi(problem.X0)
    facts = {name: fact for name, fact in case.facts.items() if name != "iterations"}
    due = needed(replace(case, problem=problem.with_arrays({"X0": start}), facts=facts), True)
    explained = ((due.low <= counts) & (counts <= due.high.max()))[case.good].all()
    return THROUGH_PHI if explained else ""


@cache
def needed(case: Case, from_X0: bool) -> Needed:
    """The numbers that the case knows, or else those of X ← φ(A X + Z), run in float64 from X0 or 0."""
    problem, known = case.problem, case.facts.get("iterations")
    if known is not None and (from_X0 or problem.X0 is None):
        known = np.where(case.good, known, problem.max_iter + 1)
        return Needed(known, known)
    eq = bnd.equation(problem)
    phi, cap, (n, m) = activations.get(problem.activation).phi, problem.max_iter, eq.Z.shape
    X = problem.X0.astype(np.float64) if from_X0 and problem.X0 is not None else np.zeros((n, m))
    low, high = np.full(m, cap + 1), np.full(m, cap + 1)
    with np.errstate(all="ignore"):
        loose, tight = _thresholds(case, eq)
        for k in range(1, cap + 1):
            X, last = phi(fac.apply(eq.factors, X) + eq.Z), X
            step = np.abs(X - last)
            low = np.where((low > cap) & (step <= loose).all(axis=0), k, low)
            high = np.where((high > cap) & (step <= tight).all(axis=0), k, high)
            settled = (low <= cap) & ((high <= cap) | ~(tight > 0).all(axis=0))
            if (settled | np.isnan(X).any(axis=0) | (step == 0).all(axis=0)).all():
                break
    return Needed(low, high)


def _thresholds(case: Case, eq: bnd.Equation) -> tuple[np.ndarray, np.ndarray]:
    """The steps with which each entry may be done, and with which it must be, given the rounding of all steps before.

    With M = (I − Lip(φ)|A|)⁻¹ the iterates differ from the exact ones by at most M ρ, and so their steps by 2 M ρ.
    """
    problem, un = case.problem, bnd.unit(case.problem.storage)
    X = np.abs(np.nan_to_num(case.truths[0]["X"])) if case.truths else np.zeros_like(eq.Z)
    size = eq.lipschitz * (eq.size @ X + eq.Z_size)
    stop = problem.tol * np.minimum(1, np.abs(eq.Z).max(axis=0, initial=0.0))
    rounding = 2 * un.gamma(eq.terms + problem.B.shape[1] + 4) * size + un.floor * X + 4 * un.eta
    try:
        moved = 2 * above(eq.lipschitz * eq.size, np.nan_to_num(rounding))
    except ValueError:  # Outside the ball nothing bounds how rounding adds up.
        moved = np.full_like(rounding, np.inf)
    noise = bnd.stalled(un, eq.terms) * size + un.floor * X
    return np.maximum(stop, noise) + moved, stop - moved
