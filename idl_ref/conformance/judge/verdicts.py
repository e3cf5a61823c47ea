"""The verdicts on one case: on the residual of X, the reported status, the error of every array, and relations."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from idl_ref.conformance.judge import counts, relations
from idl_ref.conformance.judge.call import Answer, ask
from idl_ref.conformance.judge.evidence import CLOSE, Evidence, compared, explains
from idl_ref.conformance.judge.iterates import path
from idl_ref.conformance.judge.numbers import stale
from idl_ref.conformance.judge.relations import Relation
from idl_ref.conformance.judge.report import COUNTED, EXCESSIVE, FAILED, LIE, PASSED, SKIPPED, UNFINISHED, Result
from idl_ref.conformance.truth import bounds as bnd
from idl_ref.conformance.truth import exact
from idl_ref.conformance.truth.backend import Backend, Capabilities
from idl_ref.conformance.truth.bounds import Style
from idl_ref.conformance.truth.problem import PHI0, Arrays, Case, Problem

# --- one case ---------------------------------------------------------------------------------------------------------


@cache
def _bounds(case: Case, index: int, style: Style) -> Arrays:
    return bnd.bounds(case, case.truths[index], style)


def _style(declared: Capabilities) -> Style:
    return Style(declared.flushes, declared.stops == "residual")


@cache
def _conventional(case: Case, convention: float) -> Case:
    """A case about kinks with the one truth of a convention: the weight of the larger one-sided slope."""
    if convention in PHI0:
        return replace(case, truths=(case.truths[PHI0.index(convention)],))
    answer = exact.answer(case.problem, case.G_Y, convention)
    return replace(case, truths=(answer.arrays,))


def _result(case: Case, check: str, outcome: str, message: str = "", **rest: Any) -> Result:
    return Result(f"{case.id}:{check}", case.group, outcome, message=message, flags=case.flags, **rest)


def _judged(case: Case, check: str, ratio: float, message: str, **rest: Any) -> Result:
    """Passed if the ratio of error to bound is at most 1; otherwise failed, with the message and `rest`."""
    if ratio <= 1:
        return _result(case, check, PASSED, ratio=ratio)
    return _result(case, check, FAILED, message, ratio=ratio, **rest)


def _unanswered(case: Case, check: str, answer: Answer) -> Result | None:
    """The result for a call without an answer, or None if there is one.

    An exception passes in a case where a failure must be reported; any other error fails.
    """
    if case.expect == "reported" and answer.raised:
        return _result(case, check, PASSED, f"reported: {answer.error}")
    if not answer.error:
        return None
    kind = answer.error.partition(":")[0] if answer.raised else re.sub(r"\d+", "…", answer.error)
    return _failed(case, check, answer.error, f"no answer: {kind}")


def _failed(case: Case, check: str, message: str, cause: str) -> Result:
    """A failure without numbers, whose cause the message says."""
    return _result(case, check, FAILED, message, causes=(cause,), evidence=Evidence(case, check, None, {}, {}))


def forward(backend: Backend, case: Case, declared: Capabilities) -> Result:
    """Check the outputs, the hidden states and the status."""
    if reason := declared.refusal(case):
        return _result(case, "forward", SKIPPED, reason)
    answer = ask(backend, "forward", case.problem, case.G_Y, declared, case.layout)
    if result := _unanswered(case, "forward", answer):
        return result
    if silent := _silent(case, answer):
        return _failed(case, "forward", silent, f"failures to converge are not reported{_instead(case, answer)}")
    result, lie = _against_truth(case, "forward", answer, declared), _lie(case, answer)
    if lie and lie.honest and result.outcome == FAILED:
        return replace(result, message=f"{result.message}; {lie.message}", causes=(lie.cause,))
    lied = lie and _failed(case, "forward", lie.message, LIE + lie.cause)
    if result.outcome != PASSED or (lie and lie.cause != EXCESSIVE):
        return lied or result
    if lied:
        result = lied
    elif wrong := counts.wrong(case, answer, declared):
        result = _failed(case, "forward", wrong, counts.reason(case, answer, declared) or COUNTED)
    if result.evidence is None:
        return result
    return replace(result, evidence=result.evidence._replace(reported=counts.reported(case, answer, declared)))


def vjp(backend: Backend, case: Case, declared: Capabilities) -> Result:
    """Check the gradients."""
    if reason := declared.refusal(case, vjp=True):
        return _result(case, "vjp", SKIPPED, reason)
    answer = ask(backend, "vjp", case.problem, case.G_Y, declared, case.layout)
    return _unanswered(case, "vjp", answer) or _against_truth(case, "vjp", answer, declared)


def _residual(case: Case, X: np.ndarray, style: Style) -> float:
    """The largest ratio of the residual of X to its bound, over the columns that have an answer."""
    good = case.good
    problem = case.problem.with_arrays({"U": case.problem.U[:, good]})
    residual, allowed = bnd.certificate(problem, X[:, good], case.strict, style)
    return float(np.where(np.isfinite(residual), residual / allowed, np.inf).max(initial=0.0))


def _silent(case: Case, answer: Answer) -> str:
    """A message if columns that have no answer were returned without a report of failure; otherwise empty."""
    if not case.bad or answer.warned:
        return ""
    said: Any = ~np.all([np.isfinite(M).all(axis=0) for M in answer.arrays.values()], axis=0)
    if answer.converged is not None:
        said |= ~answer.converged
    if "X" in answer.arrays:
        residual, allowed = bnd.certificate(case.problem, answer.arrays["X"])
        # X may solve the equation all the same: other methods find solutions that Picard's cannot.
        said |= (residual <= allowed).all(axis=0)
    quiet = [j for j in case.bad if not said[j]]
    return f"columns {quiet} have no answer within max_iter, and no failure was reported for them" if quiet else ""


def _instead(case: Case, answer: Answer) -> str:
    """What is there in place of a report of failure."""
    bad, X = list(case.bad), answer.arrays.get("X", np.ones((1, len(case.good))))[:, list(case.bad)]
    given = np.isfinite(case.problem.U[:, bad]).all()
    if not X.any():
        return ": zeros are returned" if given else ": zeros are returned, also for NaN and inf in U"
    if not given:
        return ": NaN and inf in U are replaced by numbers"
    said = answer.converged is not None and answer.converged[bad].all()
    return ": every column is reported as converged" if said else ""


class Lie(NamedTuple):
    """A wrong report: a message, what kind of lie it is, and whether it is the truth about numbers that are wrong."""

    message: str
    cause: str
    honest: bool = False


DIVERGED = "the iteration diverged, or was given up, where max_iter suffices: X is not finite, and was reported so"


def _lie(case: Case, answer: Answer) -> Lie | None:
    """What is wrong with the reported iterations or convergence."""
    counts, converged, cap = answer.iterations, answer.converged, case.problem.max_iter
    if counts is not None and counts.max(initial=0) > cap:
        message = f"{int(counts.max())} iterations were reported, but max_iter is {cap}"
        return Lie(message, EXCESSIVE)
    if converged is None:
        return None
    lost = ~np.all([np.isfinite(M).all(axis=0) for M in answer.arrays.values()], axis=0)
    if (untrue := np.flatnonzero(converged & lost)).size:
        message = f"columns {untrue[:5].tolist()} were reported as converged, but they are not finite"
        X = answer.arrays.get("X")
        given = np.isfinite(case.problem.U[:, untrue]).all(axis=0)
        if X is not None and np.isfinite(X[:, untrue]).all() and not given.any():
            return Lie(message, "NaN and inf in U are replaced by numbers in X, which is reported as converged")
        return Lie(message, "columns that are not finite are reported as converged")
    if not (denied := np.flatnonzero(~converged & case.good)).size:
        return None
    message = f"columns {denied[:5].tolist()} were reported as not converged, but max_iter suffices for them"
    if case.bad and not converged.any():
        return Lie(message, "all columns are reported as failed when one fails", not lost[denied].any())
    if lost[denied].all():
        return Lie(message, DIVERGED, True)
    return Lie(message, UNFINISHED, True)


def _against_truth(case: Case, check: str, answer: Answer, declared: Capabilities) -> Result:
    """Compare the answer with the acceptable truths; the closest one decides.

    A backend is judged by the stopping rule and the convention at a kink that it declares. If it declares none, an
    answer that is right under some rule or convention passes.
    """
    if case.bad and not case.good.any():
        return _result(case, check, PASSED, f"warned: {answer.warned}" if answer.warned else "reported")
    if case.strict and declared.stops == "residual":
        case = _relaxed(case)
    convention, kinks = declared.kink(case.problem.activation), case.group == "kinks" and len(case.truths) > 1
    if kinks and convention is not None:
        case = _conventional(case, convention)
    result = _closest(case, check, answer, _style(declared))
    if result.outcome == PASSED:
        return result
    style = ""
    if case.strict and not declared.iterations and not _stale(result.evidence):
        style, case = "stopped by its residual", _relaxed(case)
    elif kinks and convention is None and check == "vjp":
        convention = _convention(case, answer)
        style, case = f"φ′ at a kink {convention:.3g} of the way to its larger slope", _conventional(case, convention)
    again = _closest(case, check, answer, _style(declared)) if style else result
    return (
        replace(again, message="; ".join(filter(None, [again.message, style]))) if again.outcome == PASSED else result
    )


def _closest(case: Case, check: str, answer: Answer, style: Style) -> Result:
    """The verdict by the acceptable truth that is closest to the answer."""
    X = answer.arrays.get("X")
    residual = {} if X is None else {"the residual |φ(A X + B U) − X|": _residual(case, X, style)}
    candidates = []
    for index, truth in enumerate(case.truths):
        bound = _bounds(case, index, style)
        errors = {name: bnd.ratio(M, truth[name], bound[name]) for name, M in answer.arrays.items() if name in truth}
        ratios = {f"the error of {name}": ratio for name, ratio in errors.items()} | residual
        what = max(ratios, key=ratios.__getitem__)
        candidates.append((ratios[what], what, index, errors))
    worst, what, index, errors = min(candidates, key=lambda candidate: candidate[0])
    choice = f"acceptable answer {index + 1} of {len(case.truths)}"
    warned = f"warned: {answer.warned}" if answer.warned else ""
    notes = [answer.note, warned, choice if case.expect == "acceptable" and len(case.truths) > 1 else ""]
    evidence = Evidence(_only(case, index), check, answer.arrays, case.truths[index], _bounds(case, index, style))
    if worst <= 1:
        text = "; ".join(filter(None, notes))
        return _result(case, check, PASSED, text, ratio=worst, evidence=evidence._replace(got=None))
    wrong = ", ".join(name for name, ratio in errors.items() if ratio > 1)
    found = [f"{what} is {worst:.3g} times its bound", wrong and f"wrong: {wrong}", *notes]
    return _result(case, check, FAILED, "; ".join(filter(None, found)), ratio=worst, evidence=evidence)


@cache
def _only(case: Case, index: int) -> Case:
    """The case with one of its acceptable answers alone."""
    return replace(case, truths=(case.truths[index],)) if len(case.truths) > 1 else case


def _convention(case: Case, answer: Answer) -> float:
    """The weight of the larger slope at a kink whose truth is nearest to the gradients, by secant steps from 0."""
    names = [name for name in answer.arrays if name in case.truths[0]]
    flat = lambda arrays: np.concatenate([arrays[name].ravel() for name in names])  # noqa: E731
    got, before, last, weight = flat(answer.arrays), 0.0, flat(case.truths[0]), 1.0
    for _ in range(10):
        there = flat(_conventional(case, weight).truths[0])
        across = (there - last) / (weight - before)
        step = float(across @ (got - there)) / max(float(across @ across), 1e-300)
        before, last = weight, there
        weight = min(1.0, max(0.0, weight + step)) if np.isfinite(step) else before
        if weight == before:
            break
    return weight


@cache
def _relaxed(case: Case) -> Case:
    """The case for a backend that stops by the residual, so that no application of the map follows its last iterate."""
    return replace(case, strict=False)


def _stale(e: Evidence) -> bool:
    """Whether an answer is computed from the iterate before the last of plain iteration; no root finder meets those."""
    known = compared(e)
    if "X" in known and (X := known["X"]).ratio > 1:
        near = np.abs(path(e.case, "equation").X - X.got).max(axis=1) <= CLOSE * np.abs(X.got - X.truth).max(axis=0)
        return bool(near[1:].any())
    return any(explains(answer, known) for wrong in stale() if (answer := wrong.answer(e.case, e.check)) is not None)


# --- relations --------------------------------------------------------------------------------------------------------


def _both(backend: Backend, problem: Problem, G_Y: np.ndarray, declared: Capabilities) -> Answer:
    """Y, X and the gradients for one problem, in one answer."""
    answer = ask(backend, "forward", problem, G_Y, declared)
    if not answer.error and declared.vjp:
        backward = ask(backend, "vjp", problem, G_Y, declared)
        answer.arrays, answer.error = {**answer.arrays, **backward.arrays}, backward.error
    return answer


def relation(backend: Backend, case: Case, declared: Capabilities, rule: Relation) -> Result:
    """Check one relation between answers."""
    reason = declared.refusal(case)
    if rule.name == "warm" and not declared.X0:
        reason = "X0 is not declared"
    if rule.name == "outputs" and not declared.vjp:
        reason = "vjp is declared off"
    if reason:
        return _result(case, rule.name, SKIPPED, reason)
    whole = _both(backend, case.problem, case.G_Y, declared)
    parts = [_both(backend, problem, G_Y, declared) for problem, G_Y in rule.ask(case)]
    if error := next((a.error for a in (whole, *parts) if a.error), ""):
        return _result(case, rule.name, FAILED, error)
    bound, factor = _bounds(case, 0, _style(declared)), 0.0 if rule.name == "repeat" and declared.deterministic else 2.0
    worst, name = max(
        (bnd.ratio(M, whole.arrays[name], factor * bound[name]), name)
        for name, M in rule.rebuild(case, [part.arrays for part in parts]).items()
        if name in whole.arrays and name in bound
    )
    message = f"{rule.comment}: {name} differs by {worst:.3g} times its bound"
    return _judged(case, rule.name, worst, message, causes=(f"a different answer for {rule.comment}",))


def adjoint_identity(backend: Backend, case: Case, declared: Capabilities) -> Result:
    """Check ⟨G_Y, Ẏ⟩ = Σ ⟨∂W, Ẇ⟩ for a direction Ẇ of every weight and of U."""
    if reason := declared.refusal(case, vjp=True):
        return _result(case, "adjoint", SKIPPED, reason)
    answer = ask(backend, "vjp", case.problem, case.G_Y, declared)
    if result := _unanswered(case, "adjoint", answer):
        return result
    way, dY, slack = relations.directions(case)
    bound = _bounds(case, 0, _style(declared))
    left = float((case.G_Y * dY).sum())
    right = sum(float((G * way[name]).sum()) for name, G in answer.arrays.items())
    allowed = sum(float((bound[name] * np.abs(way[name])).sum()) for name in answer.arrays)
    worst = abs(left - right) / (allowed + float((np.abs(case.G_Y) * slack).sum()))
    message = f"⟨G_Y, dY⟩ = {left:.9g}, Σ⟨∂W, dW⟩ = {right:.9g}: they differ by {worst:.3g} times the bound"
    return _judged(case, "adjoint", worst, message)
