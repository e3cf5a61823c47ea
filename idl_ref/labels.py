"""This module has what lies between outputs and labels: which samples have a class, and words about them."""

from __future__ import annotations

import numpy as np

from idl_ref.solution import Status
from idl_ref.weights import ForwardPass


def has_class(forward: ForwardPass) -> np.ndarray:
    """Return which samples have a class: those that converged, and whose outputs are finite.   -> (m,)"""
    return forward.solution.succeeded & np.isfinite(forward.Y).all(axis=0)


def hits(forward: ForwardPass, labels: np.ndarray) -> int:
    """Return the number of samples whose class is that of their label."""
    return int(((forward.Y.argmax(axis=0) == labels) & has_class(forward)).sum())


def reason(status: int) -> str:
    """Return why a sample has no class: its status, or outputs that overflow although it converged."""
    outcome = Status(int(status))
    return "its outputs are not finite" if outcome.success else outcome.sentence


def accuracy(share: float, failed: int, m: int) -> str:
    """Return an accuracy in words, with the number of samples that failed and thus count as wrong."""
    words = f"accuracy: {100 * share:.2f} %"
    return f"{words}; {failed} of {m} samples failed and count as wrong" if failed else words
