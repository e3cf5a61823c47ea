"""Which hidden units reach which others through A, for the planted bugs about blocks of units."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref.factors import Factors

LARGEST = 64  # with more units, and with A = L Rᵀ, these bugs change nothing


class Blocks(NamedTuple):
    """What an A says about its blocks.

    Attributes
    ----------
    across : (n, n) bool array
        Whether unit i is fed by unit j, both on cycles of two units or more, but not on the same one.
    order : (n,) int array
        The smallest unit of the block of each unit.
    over : (n, n) bool array
        Whether j also reaches i over a third cycle.
    """

    across: np.ndarray
    order: np.ndarray
    over: np.ndarray


def blocks(A: np.ndarray) -> Blocks:
    """The blocks of A, by paths of any length between its units."""
    paths = A != 0
    for _ in range(len(A).bit_length()):
        paths = paths | (paths @ paths)
    same = paths & paths.T
    cycles = same.sum(axis=1) > 1
    between = paths & cycles[:, None] & cycles & ~same
    own = np.where(same, np.arange(len(A)), len(A)).min(axis=1, initial=len(A))
    return Blocks((A != 0) & between, own, between @ between)


def without(factors: Factors, left_out: str) -> Factors:
    """The factors without some couplings between cycles: "all", those that are "later" in the order, or "far" ones."""
    if len(factors) > 1 or len(factors[0]) > LARGEST:
        return factors
    (A,) = factors
    found = blocks(A)
    chosen = {"all": True, "later": found.order > found.order[:, None], "far": found.over}[left_out]
    return (np.where(found.across & chosen, A.dtype.type(0), A),)
