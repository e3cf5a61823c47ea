"""Sequences of calls: one function per protocol, which says what went wrong."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from time import monotonic
from typing import Any

import numpy as np

from idl_ref.conformance.judge import counts
from idl_ref.conformance.judge.call import ask
from idl_ref.conformance.judge.subjects import Subject, bounds
from idl_ref.conformance.judge.text import short
from idl_ref.conformance.truth import bounds as bnd
from idl_ref.conformance.truth.backend import Backend, Capabilities
from idl_ref.conformance.truth.problem import Arrays, Case, Problem, laid_out

THREADS, ROUNDS = 4, 40
SECONDS = 1.0  # after which no further round of calls from several threads begins
PATIENCE = 60  # seconds that calls from several threads have
STEPS = 4  # that are allowed where the iteration starts at the equilibrium, and one or two are needed


def asked(declared: Capabilities) -> tuple[str, ...]:
    """The calls that a backend answers."""
    return ("forward", "vjp") if declared.vjp else ("forward",)


# --- answers and their errors -----------------------------------------------------------------------------------------


def _call(backend: Backend, what: str, problem: Problem, G_Y: np.ndarray) -> Any:
    return backend.forward(problem) if what == "forward" else backend.vjp(problem, G_Y)


def _arrays(out: Any, case: Case) -> Arrays:
    """The arrays of an answer as they are now, without a copy."""
    return {name: np.asarray(out[name]) for name in case.truths[0] if out.get(name) is not None}


def _copied(case: Case) -> tuple[Problem, np.ndarray]:
    """The problem of a case and its G_Y, with copies of all arrays."""
    copies = {name: M.copy() for name, M in case.problem.arrays.items()}
    return case.problem.with_arrays(copies), case.G_Y.copy()


def _off(case: Case, what: str, arrays: Arrays) -> str:
    """How far an answer is from the truth, if that is beyond the bound; otherwise empty."""
    truth, ratios = case.truths[0], {}
    for name, M in arrays.items():
        fits = M.shape == truth[name].shape
        ratios[name] = bnd.ratio(M, truth[name], bounds(case)[name]) if fits else np.inf
    name = max(ratios, key=ratios.__getitem__, default="")
    shown = name if what == "forward" else f"∂{name}"
    return f"the error of {shown} is {ratios[name]:.3g} times its bound" if name and not ratios[name] <= 1 else ""


def sequence(backend: Backend, declared: Capabilities, calls: Iterable[tuple[str, Case, str]]) -> str:
    """Make calls one after the other, each with its own arrays; describe the first answer that is wrong.

    A call is "forward" or "vjp", a case, and what was called before.
    """
    for what, case, before in calls:
        if what in asked(declared) and not declared.refusal(case):
            answer = ask(backend, what, case.problem, case.G_Y, declared)
            if wrong := answer.error or _off(case, what, answer.arrays):
                return f"{before}, {wrong}" if before else wrong
    return ""


# --- the sequences ---------------------------------------------------------------------------------------------------


def interleaved(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """Two equations in turn that differ in weights, batch, φ or dtype, and forward and vjp in turn."""
    P = subject.first
    for other, difference in subject.others:
        after, calls = f"after a call with {difference}", []
        for what in ("forward", "vjp"):
            calls += [(what, other, f"in a call with {difference}"), (what, other, "in the same call once more")]
            calls += [(what, P, after)]
        calls += [("forward", P, after), ("forward", other, after), ("vjp", P, after), ("vjp", other, after)]
        if wrong := sequence(backend, declared, calls):
            return wrong
    return ""


def after_failure(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """An equation that has no answer, or that needs no accurate one, before another."""
    P = subject.first
    nowhere = P.problem.with_arrays({"U": np.full_like(P.problem.U, np.nan)})
    for before, problem in (
        ("NaN in every column", nowhere),
        ("max_iter = 1", replace(P.problem, max_iter=1)),
        ("tol = 0.25", replace(P.problem, tol=0.25)),
    ):
        for what in asked(declared):
            ask(backend, what, problem, P.G_Y, declared)  # whatever the answer is
            if wrong := sequence(backend, declared, [(what, P, f"after a call with {before}")]):
                return wrong
    return ""


def later(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """Answers read once more after the arrays that were given are overwritten, and after the next call."""
    kept: list[tuple[str, Any, Arrays, Case]] = []
    cases = [subject.first, subject.others[0][0]]
    if declared.X0:
        X0 = subject.slow.truths[0]["X"].astype(subject.slow.problem.dtype)
        cases.append(replace(subject.slow, problem=replace(subject.slow.problem, X0=X0)))
    for case in cases:
        for what in asked(declared):
            problem, G_Y = _copied(case)
            out = _call(backend, what, problem, G_Y)
            kept.append((what, out, {name: M.copy() for name, M in _arrays(out, case).items()}, case))
            for M in (*problem.arrays.values(), G_Y):
                M[...] = np.nan
            for which, answer, then, of in kept:
                now = _arrays(answer, of)
                names = [name for name in then if not np.array_equal(now[name], then[name], equal_nan=True)]
                if names:
                    since = "its inputs were overwritten" if answer is out else f"the next call of {what}"
                    return f"{', '.join(names)} of the answer to {which} changed after {since}"
    return ""


def shared_inputs(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """One array given in several roles, first writeable, then not."""
    case, truth = subject.square, {**subject.square.problem.arrays, "G_Y": subject.square.G_Y}
    for layout in ("C", "readonly"):
        shared = {names: laid_out(truth[names[0]], layout) for names in subject.roles}
        given = {name: M for names, M in shared.items() for name in names}
        problem = case.problem.with_arrays({name: given[name] for name in case.problem.arrays})
        for what in asked(declared):
            wrong = _off(case, what, _arrays(_call(backend, what, problem, given["G_Y"]), case))
            for names, M in shared.items():
                if not np.array_equal(M, truth[names[0]]):
                    wrong = f"the array given for {' and '.join(names)} was modified"
            if wrong:
                roles = ", ".join(" = ".join(names) for names in subject.roles)
                return f"{roles}{' that cannot be written' * (layout != 'C')}: {wrong}"
    return ""


def changed(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """The arrays of one problem changed in place between calls, one after the other."""
    problem, G_Y = _copied(subject.first)
    held = problem.arrays
    for name, case in (("", subject.first), *subject.changes):
        if name:
            held[name][...] = case.problem.arrays[name]
        for what in asked(declared):
            if wrong := _off(case, what, _arrays(_call(backend, what, problem, G_Y), case)):
                return f"after {name} was changed, {wrong}" if name else wrong
    return ""


def start(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """An iteration that starts at the equilibrium, in any layout of X0, and needs no more than a step or two."""
    X0 = subject.slow.truths[0]["X"].astype(subject.slow.problem.dtype)
    problem = replace(subject.slow.problem, X0=X0, max_iter=STEPS)
    for layout in ("C", "fortran", "strided", "reversed", "readonly"):
        answer = ask(backend, "forward", problem, subject.slow.G_Y, declared, layout)
        wrong = answer.error or _off(subject.slow, "forward", answer.arrays)
        if not wrong and answer.converged is not None and not answer.converged.all():
            wrong = "columns are reported as not converged"
        if wrong:
            return f"X0 = X*, layout {layout}, max_iter = {STEPS}: {wrong}"
    return ""


def threads(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """Calls from several threads at once, about two equations with the same sizes."""
    found, rounds, end = [""] * THREADS, count(), monotonic() + SECONDS
    given = [_copied(case) for case in subject.quick]  # A backend that writes to its inputs must not spoil the subject.

    def wait() -> None:
        if next(rounds) > 1 and (monotonic() > end or any(found)):
            raise TimeoutError  # which ends the waiting of all threads

    ready = threading.Barrier(THREADS, wait)

    def work(i: int) -> None:
        case, (problem, G_Y) = subject.quick[i % 2], given[i % 2]
        for _ in range(ROUNDS):
            ready.wait(PATIENCE)
            for what in asked(declared):
                out = _call(backend, what, problem, G_Y)
                found[i] = found[i] or _off(case, what, {name: M.copy() for name, M in _arrays(out, case).items()})

    def thread(i: int) -> None:
        with suppress(threading.BrokenBarrierError, TimeoutError):
            try:
                work(i)
            except (threading.BrokenBarrierError, TimeoutError):
                raise
            except BaseException as reason:  # whatever it is, it must not end the thread in silence
                found[i] = f"raised {type(reason).__name__}: {short(reason)}"
                ready.abort()

    workers = [threading.Thread(target=thread, args=(i,), daemon=True) for i in range(THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads of Python change places as often as they can
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE)
    finally:
        sys.setswitchinterval(interval)
    if any(worker.is_alive() for worker in workers):
        return f"no answer within {PATIENCE} s"
    return next(filter(None, found), "")


def cap(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """As many iterations allowed as are needed, and then too few."""
    loose, slack = subject.loose, declared.iteration_slack
    needed = counts.needed(loose, declared.X0)
    for limit in (int(needed.high.max()) + slack, int(needed.low.max()) - slack - 1):
        case = replace(loose, problem=replace(loose.problem, max_iter=limit))
        answer = ask(backend, "forward", case.problem, case.G_Y, declared)
        enough = limit >= needed.high.max()
        if answer.error and (enough or not answer.raised):
            return f"max_iter = {limit}: {answer.error}"
        if enough and answer.converged is not None and not answer.converged.all():
            return f"max_iter = {limit} suffices, but columns are reported as not converged"
        if not answer.error and not answer.warned and (wrong := counts.wrong(case, answer, declared)):
            return f"max_iter = {limit}: {wrong}"
    return ""
