"""The score of a backend: what `run --score` adds to a report."""

from __future__ import annotations

from typing import Any

from idl_ref.conformance.judge.report import Report
from idl_ref.conformance.score import words
from idl_ref.conformance.score.accuracy import Noted, accuracy
from idl_ref.conformance.score.iterations import iterations
from idl_ref.conformance.score.speed import memory, speed
from idl_ref.conformance.truth.backend import Capabilities

Score = dict[str, Any]


def scored(noted: Noted, report: Report) -> Score:
    """Everything that is measured: "accuracy", "iterations", "speed", "memory"; and all of it in "words".

    A process is ended by this, because its memory is known only then.
    """
    declared = Capabilities.declared(getattr(noted.backend, "capabilities", None))
    score = {
        "accuracy": accuracy(noted, report),
        "iterations": iterations(noted, report),
        "speed": speed(noted.backend, declared),
        "memory": memory(noted.backend, declared),
    }
    return score | {"words": words.lines(score)}
