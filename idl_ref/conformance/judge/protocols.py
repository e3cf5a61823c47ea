"""Protocols: what calls do to each other, and to the arrays of the caller.

Each protocol makes several calls about equations whose answers are known, and every answer must be that of a separate
call. The equations have sizes of their own, so that nothing a backend remembers from the cases can be about them.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from idl_ref.conformance.judge.call import ask
from idl_ref.conformance.judge.report import FAILED, PASSED, SKIPPED, Result
from idl_ref.conformance.judge.subjects import SUBJECTS, Subject, bounds, subject
from idl_ref.conformance.truth import bounds as bnd
from idl_ref.conformance.truth.backend import Backend, Capabilities
from idl_ref.conformance.truth.problem import Arrays, Case, Problem, laid_out

GROUP = "protocols"
THREADS, ROUNDS = 4, 6
PATIENCE = 60  # seconds that calls from several threads have
CAP = 4  # applications that are allowed where the iteration starts at the equilibrium: one or two are needed


class Protocol(NamedTuple):
    """One protocol: `run` returns what went wrong, or an empty text; `cause` is what that means."""

    name: str
    comment: str
    cause: str
    run: Callable[[Backend, Capabilities, Subject], str]


def checks(
    backend: Backend, declared: Capabilities, chosen: Iterable[str]
) -> Iterator[tuple[str, Callable[[], Result]]]:
    """Every check of the chosen protocols, for a dense A and for A = L Rᵀ: its id, and a function that runs it."""
    for name in chosen:
        for about in SUBJECTS:
            yield f"protocol-{name}:{about}", partial(check, backend, declared, PROTOCOLS[name], about)


def check(backend: Backend, declared: Capabilities, protocol: Protocol, about: str) -> Result:
    """Follow one protocol with the subject of one name."""
    id, flags, topic = f"protocol-{protocol.name}:{about}", ("memory",), subject(about, declared)
    if reason := _refusal(backend, declared, protocol, topic):
        return Result(id, GROUP, SKIPPED, message=reason, flags=flags)
    if alone := _sequence(backend, declared, [(what, topic.first, "") for what in _asked(declared)]):
        return Result(id, GROUP, FAILED, message=f"already in a separate call {alone}", flags=flags)
    wrong = _guarded(partial(protocol.run, backend, declared, topic))
    if not wrong:
        return Result(id, GROUP, PASSED, flags=flags)
    return Result(id, GROUP, FAILED, message=f"{protocol.comment}: {wrong}", flags=flags, causes=(protocol.cause,))


def _refusal(backend: Backend, declared: Capabilities, protocol: Protocol, subject: Subject) -> str:
    """Why a protocol is skipped; otherwise empty."""
    if protocol.name == "threads" and not declared.concurrent:
        return "concurrent is declared off"
    if protocol.name == "threads" and (reason := getattr(backend, "one_at_a_time", "")):
        return str(reason)
    if protocol.name == "start" and not declared.X0:
        return "X0 is not declared"
    return declared.refusal(subject.first) or ""


def _asked(declared: Capabilities) -> tuple[str, ...]:
    return ("forward", "vjp") if declared.vjp else ("forward",)


# --- answers and their errors -----------------------------------------------------------------------------------------


def _call(backend: Backend, what: str, problem: Problem, G_Y: np.ndarray) -> Any:
    return backend.forward(problem) if what == "forward" else backend.vjp(problem, G_Y)


def _arrays(out: Any, case: Case) -> Arrays:
    """The arrays of an answer as they are now, without a copy."""
    return {name: np.asarray(out[name]) for name in case.truths[0] if out.get(name) is not None}


def _off(case: Case, what: str, arrays: Arrays) -> str:
    """How far an answer is from the truth, if that is beyond the bound; otherwise empty."""
    ratios = {
        name: bnd.ratio(M, case.truths[0][name], bounds(case)[name]) if M.shape == case.truths[0][name].shape else np.inf
        for name, M in arrays.items()
    }  # fmt: skip
    name = max(ratios, key=ratios.__getitem__, default="")
    shown = name if what == "forward" else f"∂{name}"
    return f"the error of {shown} is {ratios[name]:.3g} times its bound" if name and not ratios[name] <= 1 else ""


def _sequence(backend: Backend, declared: Capabilities, calls: Iterable[tuple[str, Case, str]]) -> str:
    """Make calls one after the other, each with its own arrays; describe the first answer that is wrong.

    A call is "forward" or "vjp", a case, and what was called before.
    """
    for what, case, before in calls:
        if what in _asked(declared) and not declared.refusal(case):
            answer = ask(backend, what, case.problem, case.G_Y, declared)
            if wrong := answer.error or _off(case, what, answer.arrays):
                return f"{before}, {wrong}" if before else wrong
    return ""


def _raised(reason: BaseException) -> str:
    return f"raised {type(reason).__name__}: {' '.join(str(reason).split())[:160]}"


def _guarded(run: Callable[[], str]) -> str:
    """What `run` returns, or the exception that ended it. Warnings pass: `ask` judges them in the cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return run()
        except (Exception, SystemExit) as reason:
            return _raised(reason)


# --- the protocols ----------------------------------------------------------------------------------------------------


def _interleaved(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """Two equations in turn, which differ in the weights, the batch, φ or the dtype; forward and vjp in turn as well."""
    P = subject.first
    for other, difference in subject.others:
        after, calls = f"after a call with {difference}", []
        for what in ("forward", "vjp"):
            calls += [(what, other, f"in a call with {difference}"), (what, other, "in the same call once more")]
            calls += [(what, P, after)]
        calls += [("forward", P, after), ("forward", other, after), ("vjp", P, after), ("vjp", other, after)]
        if wrong := _sequence(backend, declared, calls):
            return wrong
    return ""


def _after_failure(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """An equation that has no answer, or that needs no accurate one, before another."""
    P = subject.first
    nowhere = P.problem.with_arrays({"U": np.full_like(P.problem.U, np.nan)})
    for before, problem in (
        ("NaN in every column", nowhere),
        ("max_iter = 1", replace(P.problem, max_iter=1)),
        ("tol = 0.25", replace(P.problem, tol=0.25)),
    ):
        for what in _asked(declared):
            ask(backend, what, problem, P.G_Y, declared)  # whatever the answer is
            if wrong := _sequence(backend, declared, [(what, P, f"after a call with {before}")]):
                return wrong
    return ""


def _later(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """Answers read once more after the arrays that were given are overwritten, and after the next call."""
    kept: list[tuple[str, Any, Arrays, Case]] = []
    for case in (subject.first, subject.others[0][0]):
        for what in _asked(declared):
            given = {name: M.copy() for name, M in {**case.problem.arrays, "G_Y": case.G_Y}.items()}
            problem = case.problem.with_arrays({name: given[name] for name in case.problem.arrays})
            out = _call(backend, what, problem, given["G_Y"])
            kept.append((what, out, {name: M.copy() for name, M in _arrays(out, case).items()}, case))
            for M in given.values():
                M[...] = np.nan
            for which, answer, then, of in kept:
                now = _arrays(answer, of)
                names = [name for name in then if not np.array_equal(now[name], then[name], equal_nan=True)]
                if names:
                    since = "its inputs were overwritten" if answer is out else f"the next call of {what}"
                    return f"{', '.join(names)} of the answer to {which} changed after {since}"
    return ""


def _shared_inputs(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """One array given in several roles, first writeable, then not."""
    case, truth = subject.square, {**subject.square.problem.arrays, "G_Y": subject.square.G_Y}
    for layout in ("C", "readonly"):
        shared = {names: laid_out(truth[names[0]], layout) for names in subject.roles}
        given = {name: M for names, M in shared.items() for name in names}
        problem = case.problem.with_arrays({name: given[name] for name in case.problem.arrays})
        for what in _asked(declared):
            wrong = _off(case, what, _arrays(_call(backend, what, problem, given["G_Y"]), case))
            for names, M in shared.items():
                if not np.array_equal(M, truth[names[0]]):
                    wrong = f"the array given for {' and '.join(names)} was modified"
            if wrong:
                roles = ", ".join(" = ".join(names) for names in subject.roles)
                return f"{roles}{' that cannot be written' * (layout != 'C')}: {wrong}"
    return ""


def _changed(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """The arrays of one problem changed in place between calls, one after the other."""
    held = {name: M.copy() for name, M in subject.first.problem.arrays.items()}
    problem, G_Y = subject.first.problem.with_arrays(held), subject.first.G_Y.copy()
    for name, case in (("", subject.first), *subject.changes):
        if name:
            held[name][...] = case.problem.arrays[name]
        for what in _asked(declared):
            if wrong := _off(case, what, _arrays(_call(backend, what, problem, G_Y), case)):
                return f"after {name} was changed, {wrong}" if name else wrong
    return ""


def _start(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """An iteration that starts at the equilibrium, in any layout of X0, and needs no more than a step or two."""
    X0 = subject.slow.truths[0]["X"].astype(subject.slow.problem.dtype)
    problem = replace(subject.slow.problem, X0=X0, max_iter=CAP)
    for layout in ("C", "fortran", "strided", "reversed", "readonly"):
        answer = ask(backend, "forward", problem, subject.slow.G_Y, declared, layout)
        wrong = answer.error or _off(subject.slow, "forward", answer.arrays)
        if not wrong and answer.converged is not None and not answer.converged.all():
            wrong = "columns are reported as not converged"
        if wrong:
            return f"X0 = X*, layout {layout}, max_iter = {CAP}: {wrong}"
    return ""


def _threads(backend: Backend, declared: Capabilities, subject: Subject) -> str:
    """Calls from several threads at once, about two equations with the same sizes."""
    cases, found = (subject.first, subject.others[0][0]), [""] * THREADS
    ready = threading.Barrier(THREADS)

    def work(i: int) -> str:
        case, wrong = cases[i % len(cases)], ""
        for _ in range(ROUNDS):
            ready.wait(PATIENCE)
            for what in _asked(declared):
                out = _call(backend, what, case.problem, case.G_Y)
                wrong = wrong or _off(case, what, {name: M.copy() for name, M in _arrays(out, case).items()})
        return wrong

    def thread(i: int) -> None:
        try:
            found[i] = work(i)
        except threading.BrokenBarrierError:
            found[i] = ""  # another thread ended early, and says why
        except (Exception, SystemExit) as reason:
            found[i] = _raised(reason)
            ready.abort()

    interval, workers = sys.getswitchinterval(), [threading.Thread(target=thread, args=(i,), daemon=True)
                                                  for i in range(THREADS)]  # fmt: skip
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


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("interleaved", "two equations in turn",
                 "something is kept from one call to the next: weights, a batch, a dtype or a setting", _interleaved),
        Protocol("after-failure", "a call after one that fails or is less accurate",
                 "something is kept from a call that failed, or its settings are", _after_failure),
        Protocol("later", "an answer read later",
                 "answers share memory with a workspace or with the inputs", _later),
        Protocol("shared-inputs", "one array in several roles",
                 "arrays of the caller are written to, or taken to be different arrays", _shared_inputs),
        Protocol("changed", "arrays changed in place between calls",
                 "weights are remembered by the object that holds them, and changes in place are not noticed", _changed),
        Protocol("start", "a start at the equilibrium",
                 "X0 is not used, or not read with its strides", _start),
        Protocol("threads", f"calls from {THREADS} threads at once",
                 "a workspace is shared between threads", _threads),
    )
}  # fmt: skip
