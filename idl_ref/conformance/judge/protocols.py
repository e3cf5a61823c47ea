"""Protocols: what calls do to each other, and to the arrays of the caller.

Each protocol makes several calls about equations whose answers are known, and every answer must be that of a separate
call. The equations have sizes of their own, so that nothing a backend remembers from the cases can be about them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from idl_ref.conformance.judge import counts, sequences
from idl_ref.conformance.judge.call import STOPS
from idl_ref.conformance.judge.report import COUNTED, FAILED, PASSED, SEPARATE, SKIPPED, UNSTARTED, Result
from idl_ref.conformance.judge.subjects import SUBJECTS, Subject, subject
from idl_ref.conformance.judge.text import short
from idl_ref.conformance.truth.backend import Backend, Capabilities

GROUP = "protocols"


class Protocol(NamedTuple):
    """One protocol: `run` returns what went wrong, or an empty text; `cause` is what that means."""

    name: str
    comment: str
    cause: str
    run: Callable[[Backend, Capabilities, Subject], str]


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("interleaved", "two equations in turn",
                 "something is kept from one call to the next: weights, a batch, a dtype or a setting",
                 sequences.interleaved),
        Protocol("after-failure", "a call after one that fails or is less accurate",
                 "something is kept from a call that failed, or its settings are", sequences.after_failure),
        Protocol("later", "an answer read later",
                 "answers share memory with a workspace or with the inputs", sequences.later),
        Protocol("shared-inputs", "one array in several roles",
                 "arrays of the caller are written to, or taken to be different arrays", sequences.shared_inputs),
        Protocol("changed", "arrays changed in place between calls",
                 "weights are remembered by the object that holds them, and changes in place are not noticed",
                 sequences.changed),
        Protocol("start", "a start at the equilibrium",
                 UNSTARTED, sequences.start),
        Protocol("cap", "max_iter as large as needed, and too small",
                 "max_iter is off by one, or success is reported where it is reached", sequences.cap),
        Protocol("threads", f"calls from {sequences.THREADS} threads at once",
                 "a workspace is shared between threads", sequences.threads),
    )
}  # fmt: skip
IDS = tuple(f"protocol-{name}:{about}" for name in PROTOCOLS for about in SUBJECTS)


def checks(
    backend: Backend, declared: Capabilities, chosen: Iterable[str]
) -> Iterator[tuple[str, Callable[[], Result]]]:
    """The checks with the chosen ids, each with a function that runs it; without those of a number not declared."""
    for id in chosen:
        if id.startswith("protocol-cap") and not declared.iterations:
            continue
        yield id, partial(check, backend, declared, id)


def check(backend: Backend, declared: Capabilities, id: str) -> Result:
    """Follow one protocol with one subject. Its numbers have no cause if the first equation alone is wrong already."""
    protocol, about = PROTOCOLS[id.partition(":")[0].removeprefix("protocol-")], id.partition(":")[2]
    topic, flags = subject(about, declared), ("memory",)
    if reason := _refusal(backend, declared, protocol, topic):
        return Result(id, GROUP, SKIPPED, message=reason, flags=flags)
    alone = [(what, topic.first, "") for what in sequences.asked(declared)]
    if wrong := sequences.sequence(backend, declared, alone):
        return Result(id, GROUP, FAILED, message=f"{SEPARATE} {wrong}", flags=flags)
    if wrong := _guarded(partial(protocol.run, backend, declared, topic)):
        cause = COUNTED if counts.MISCOUNTED in wrong else protocol.cause
        return Result(id, GROUP, FAILED, message=f"{protocol.comment}: {wrong}", flags=flags, causes=(cause,))
    return Result(id, GROUP, PASSED, flags=flags)


def _refusal(backend: Backend, declared: Capabilities, protocol: Protocol, subject: Subject) -> str:
    """Why a protocol is skipped; otherwise empty."""
    busy = getattr(backend, "one_at_a_time", "")
    rules = (
        (protocol.name != "threads" or declared.concurrent, "concurrent is declared off"),
        (protocol.name != "threads" or not busy, str(busy)),
        (protocol.name != "start" or declared.X0, "X0 is not declared"),
    )
    return declared.refusal(subject.first) or next((reason for holds, reason in rules if not holds), "")


def _guarded(run: Callable[[], str]) -> str:
    """What `run` returns, or the exception that ended it. Warnings pass: `ask` judges them in the cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return run()
        except STOPS:
            raise
        except BaseException as reason:
            return f"raised {type(reason).__name__}: {short(reason)}"
