"""The verdicts on one case: certificate, status, truth, and the relations between answers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from idl_ref.conformance import bounds as bnd
from idl_ref.conformance import diagnose, relations
from idl_ref.conformance.capabilities import PHI0, Capabilities
from idl_ref.conformance.problem import WEIGHTS, Arrays, Backend, BackendError, Case, Problem, laid_out
from idl_ref.conformance.relations import Relation
from idl_ref.conformance.report import FAILED, PASSED, SKIPPED, Result

# --- one call to a backend --------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What a backend gave, or how it failed to."""

    arrays: Arrays = field(default_factory=dict)
    converged: np.ndarray | None = None
    iterations: np.ndarray | None = None
    error: str = ""  # it raised, or gave something else than arrays of the right shape
    raised: bool = False
    warned: str = ""
    note: str = ""


def ask(backend: Backend, what: str, problem: Problem, G_Y: np.ndarray, layout: str, asked: tuple[str, ...]) -> Answer:
    """One call, with arrays of its own that it must not change, and what it gave as arrays of the right shape."""
    given = problem.with_arrays({name: laid_out(M, layout) for name, M in problem.arrays.items()})
    cotangent = laid_out(G_Y, layout)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            out = backend.forward(given) if what == "forward" else backend.vjp(given, cotangent)
        except Exception as reason:
            died = isinstance(reason, BackendError)
            return Answer(error=f"raised {type(reason).__name__}: {_short(reason)}", raised=not died)
    answer = Answer(warned=_short(caught[0].message) if caught else "")
    for name, before in (*problem.arrays.items(), ("G_Y", G_Y)):
        after = cotangent if name == "G_Y" else getattr(given, name)
        if not np.array_equal(before, after, equal_nan=True):
            answer.error = f"input {name} was modified"
            return answer
    shapes = _shapes(problem)
    for name in asked:
        value = out.get(name) if hasattr(out, "get") else None
        if value is None:
            answer.error = f"gave no {name}"
            return answer
        array = np.asarray(value)
        if array.dtype.kind != "f" or array.shape != shapes[name]:
            answer.error = f"{name} must be {shapes[name]} {problem.dtype}; got {array.shape} {array.dtype}"
            return answer
        if array.dtype != problem.dtype:
            answer.note = f"{name} is {array.dtype}, the problem {problem.dtype}"
        answer.arrays[name] = array.astype(np.float64, copy=True)
    for name in ("converged", "iterations"):
        if what == "forward" and (value := out.get(name)) is not None:
            setattr(answer, name, np.broadcast_to(np.asarray(value), (problem.U.shape[1],)))
    return answer


def _short(reason: Any) -> str:
    text = " ".join(str(reason).split())
    return text if len(text) <= 160 else text[:157] + "…"


def _shapes(problem: Problem) -> dict[str, tuple[int, ...]]:
    _, _, q, m = problem.sizes
    shapes: dict[str, tuple[int, ...]] = {name: M.shape for name, M in problem.arrays.items()}
    return shapes | {"X": (len(problem.B), m), "Y": (q, m)}


def names(problem: Problem) -> tuple[str, ...]:
    """The gradients that are asked for."""
    return tuple(name for name in WEIGHTS if name in problem.arrays)


# --- one case ---------------------------------------------------------------------------------------------------------


@cache
def _bounds(case: Case, index: int) -> Arrays:
    return bnd.bounds(case, case.truths[index])


def _result(case: Case, check: str, outcome: str, **rest: Any) -> Result:
    return Result(f"{case.id}:{check}", case.group, outcome, flags=case.flags, **rest)


def forward(backend: Backend, case: Case, declared: Capabilities) -> Result:
    if reason := declared.refusal(case):
        return _result(case, "forward", SKIPPED, message=reason)
    asked = ("Y", "X") if declared.X else ("Y",)
    answer = ask(backend, "forward", case.problem, case.G_Y, case.layout, asked)
    if case.expect == "reported" and answer.raised:
        return _result(case, "forward", PASSED, message=f"reported: {answer.error}")
    if answer.error:
        return _result(case, "forward", FAILED, message=answer.error)
    if silent := _silent(case, answer):
        return _result(case, "forward", FAILED, message=silent, causes=("failures to converge are silent",))
    if lie := _status(case, answer):
        return _result(case, "forward", FAILED, message=lie, causes=("the status is wrong",))
    return _against_truth(case, "forward", answer, declared, [_residual(case, answer)] if declared.X else [])


def _residual(case: Case, answer: Answer) -> tuple[str, float]:
    """The certificate: what the equation itself says of X."""
    good = case.good
    problem = case.problem.with_arrays({"U": case.problem.U[:, good]})
    residual, allowed = bnd.certificate(problem, answer.arrays["X"][:, good], case.strict)
    worst = np.where(np.isfinite(residual), residual / allowed, np.inf).max(initial=0.0)
    return "the residual |φ(A X + B U) − X|", float(worst)


def _silent(case: Case, answer: Answer) -> str:
    """Columns without an answer that came with one, and with no word."""
    if not case.bad or answer.warned:
        return ""
    X, U = answer.arrays.get("X", answer.arrays["Y"]), case.problem.U
    finite: Any = np.isfinite(X).all(axis=0) & np.isfinite(answer.arrays["Y"]).all(axis=0)
    said: Any = ~finite if answer.converged is None else ~finite | ~answer.converged.astype(bool)
    solved: Any = np.zeros(U.shape[1], bool)
    if "X" in answer.arrays:
        residual, allowed = bnd.certificate(case.problem, answer.arrays["X"])
        solved = (residual <= allowed).all(axis=0)  # it is a solution after all, by another method
    quiet = [j for j in case.bad if not (said[j] or solved[j])]
    return f"columns {quiet} have no answer within max_iter; numbers came for them without a word" if quiet else ""


def _status(case: Case, answer: Answer) -> str:
    """A status that is wrong either way."""
    if answer.iterations is not None and answer.iterations.max(initial=0) > case.problem.max_iter:
        return f"{int(answer.iterations.max())} iterations, max_iter is {case.problem.max_iter}"
    if answer.converged is None or answer.converged[case.good].all():
        return ""
    columns = np.flatnonzero(~answer.converged.astype(bool) & case.good)[:5].tolist()
    return f"columns {columns} are said not to have converged; max_iter suffices for them"


def _against_truth(
    case: Case, check: str, answer: Answer, declared: Capabilities, others: list[tuple[str, float]]
) -> Result:
    """The best of the acceptable truths decides; a declared convention leaves one."""
    if not case.good.any() and case.bad:
        return _result(case, check, PASSED, message="reported" if not answer.warned else f"warned: {answer.warned}")
    indices = list(range(len(case.truths)))
    if case.group == "kinks" and len(case.truths) > 1 and declared.phi0 is not None:
        indices = [PHI0.index(declared.phi0)]
    best: tuple[float, str, int] | None = None
    for index in indices:
        truth, bound = case.truths[index], _bounds(case, index)
        ratios = [(name, bnd.ratio(M, truth[name], bound[name])) for name, M in answer.arrays.items() if name in truth]
        ratios = [(f"the error of {name}", ratio) for name, ratio in ratios] + others
        what, worst = max(ratios, key=lambda row: row[1], default=("nothing", 0.0))
        if best is None or worst < best[0]:
            best = (worst, what, index)
    assert best is not None
    worst, what, index = best
    notes = [answer.note, answer.warned and f"warned: {answer.warned}"]
    if case.expect == "acceptable" and len(case.truths) > 1:
        notes.append(f"acceptable answer {index + 1} of {len(case.truths)}")
    if worst <= 1:
        return _result(case, check, PASSED, ratio=worst, message="; ".join(filter(None, notes)))
    truth, bound = case.truths[index], _bounds(case, index)
    wrong = [n for n, M in answer.arrays.items() if n in truth and bnd.ratio(M, truth[n], bound[n]) > 1]
    message = f"{what} is {worst:.3g} times what is allowed" + (f"; wrong: {', '.join(wrong)}" if wrong else "")
    evidence = diagnose.Evidence(case, check, answer.arrays, truth, bound)
    return _result(
        case, check, FAILED, ratio=worst, message="; ".join(filter(None, [message, *notes])), evidence=evidence
    )


def vjp(backend: Backend, case: Case, declared: Capabilities) -> Result:
    if reason := declared.refusal(case) or (None if declared.vjp else "vjp is declared off"):
        return _result(case, "vjp", SKIPPED, message=reason)
    answer = ask(backend, "vjp", case.problem, case.G_Y, case.layout, names(case.problem))
    if case.expect == "reported" and answer.raised:
        return _result(case, "vjp", PASSED, message=f"reported: {answer.error}")
    if answer.error:
        return _result(case, "vjp", FAILED, message=answer.error)
    return _against_truth(case, "vjp", answer, declared, [])


# --- relations --------------------------------------------------------------------------------------------------------


def _both(backend: Backend, problem: Problem, G_Y: np.ndarray, declared: Capabilities) -> Answer:
    """Everything about one equation: Y, X and the gradients."""
    asked = ("Y", "X") if declared.X else ("Y",)
    answer = ask(backend, "forward", problem, G_Y, "C", asked)
    if not answer.error and declared.vjp:
        backward = ask(backend, "vjp", problem, G_Y, "C", names(problem))
        answer.arrays, answer.error = {**answer.arrays, **backward.arrays}, backward.error
    return answer


def relation(backend: Backend, case: Case, declared: Capabilities, rule: Relation) -> Result:
    reason = declared.refusal(case)
    if rule.name == "warm" and not declared.X0:
        reason = "X0 is not declared"
    if rule.name == "outputs" and not declared.vjp:
        reason = "vjp is declared off"
    if reason:
        return _result(case, rule.name, SKIPPED, message=reason)
    whole = _both(backend, case.problem, case.G_Y, declared)
    parts = [_both(backend, problem, G_Y, declared) for problem, G_Y in rule.ask(case)]
    if error := next((a.error for a in (whole, *parts) if a.error), ""):
        return _result(case, rule.name, FAILED, message=error)
    rebuilt, bound = rule.rebuild(case, [part.arrays for part in parts]), _bounds(case, 0)
    factor = 0.0 if rule.name == "repeat" and declared.deterministic else 2.0
    compared = {name: M for name, M in rebuilt.items() if name in whole.arrays and name in bound}
    ratios = [(bnd.ratio(M, whole.arrays[name], factor * bound[name]), name) for name, M in compared.items()]
    worst, name = max(ratios)
    message = "" if worst <= 1 else f"{rule.comment}: {name} differs by {worst:.3g} times what is allowed"
    outcome = PASSED if worst <= 1 else FAILED
    causes = () if outcome == PASSED else (f"not the same answer for {rule.comment}",)
    return _result(case, rule.name, outcome, ratio=worst, message=message, causes=causes)


def adjoint_identity(backend: Backend, case: Case, declared: Capabilities) -> Result:
    """⟨G_Y, Ẏ⟩ = Σ ⟨∂W, Ẇ⟩ for a direction Ẇ of every weight and of U."""
    reason = declared.refusal(case) or (None if declared.vjp else "vjp is declared off")
    if reason:
        return _result(case, "adjoint", SKIPPED, message=reason)
    answer = ask(backend, "vjp", case.problem, case.G_Y, "C", names(case.problem))
    if answer.error:
        return _result(case, "adjoint", FAILED, message=answer.error)
    way, dY, slack = relations.directions(case)
    bound = _bounds(case, 0)
    left = float((case.G_Y * dY).sum())
    right = sum(float((G * way[name]).sum()) for name, G in answer.arrays.items())
    allowed = sum(float((bound[name] * np.abs(way[name])).sum()) for name in answer.arrays)
    allowed += float((np.abs(case.G_Y) * slack).sum())
    worst = abs(left - right) / allowed
    message = (
        "" if worst <= 1 else f"⟨G_Y, dY⟩ = {left:.9g}, Σ⟨∂W, dW⟩ = {right:.9g}: {worst:.3g} times what is allowed"
    )
    return _result(case, "adjoint", PASSED if worst <= 1 else FAILED, ratio=worst, message=message)
