"""This module orders the hidden units of A by what they depend on, so that blocks of them are solved one by one.

Unit i depends on unit j if A_ij ≠ 0. Units that depend on each other, directly or through other units, form a cycle. If
all units of a cycle are taken for one, no cycle is left, and the equation X = φ(A X + Z) falls apart into blocks:

    X_b = φ(A_bb X_b + P_b)      P_b = Σ_c A_bc X_c + Z_b, over the blocks c before b

Only a cycle needs an iteration. Units without a cycle have A_bb = 0 and X_b = φ(P_b), as in a layer of a feed-forward
net; those of one level, which depend on units of earlier levels only, are one block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from idl_ref.cycles import as_range, components, levels

# "auto" solves by blocks from this n on, if a block has at least LARGE units in the mean, and if the entries of A that
# blocks read are at most this part of all entries: a block costs a few calls, whatever its size is.
FROM = 128
LARGE = 16
PART = 0.5


class Block(NamedTuple):
    """Units that are solved together.

    Attributes
    ----------
    rows : slice or array of int
        The units of the block.
    columns : slice or array of int
        The units of earlier blocks on which they depend.
    F : (rows, columns) array
        Those entries of A by which they do.
    cycle : (rows, rows) array or None
        The entries of A among the units themselves; None if these do not depend on each other.
    sources : array of int
        The numbers of the earlier blocks on which this one depends.
    starts : array of int
        Where the units of each of these blocks begin in `columns`, if `sorting` sorts them.
    sorting : array of int
        What sorts `columns` by their blocks.
    """

    rows: slice | np.ndarray
    columns: slice | np.ndarray
    F: np.ndarray
    cycle: np.ndarray | None
    sources: np.ndarray
    starts: np.ndarray
    sorting: np.ndarray


def order(A: np.ndarray, cycles: np.ndarray | None = None) -> tuple[Block, ...]:
    """Return the blocks of a matrix in the order in which they can be solved.

    Parameters
    ----------
    A : (n, n) array
    cycles : (n,) array, optional
        What `components` returns for A, where it is known.

    Notes
    -----
    Cost: that of `cycles.components`, O(n²) operations for most matrices. Cycles are the strongly connected components
    of the graph with an edge for each nonzero entry of A.

    Examples
    --------
    Unit 2 depends on the cycle of units 0 and 1, on which unit 3 depends as well:

    >>> A = np.array([[0.0, 0.5, 0, 0], [0.5, 0, 0, 0], [0.1, 0.2, 0, 0], [0, 0.3, 0, 0]])
    >>> for block in order(A):
    ...     print(block.rows, block.cycle is None, block.columns)
    slice(0, 2, None) False slice(0, 0, None)
    slice(2, 4, None) True slice(0, 2, None)
    """
    edges = A != 0
    level = levels(edges, len(A))
    if (level >= 0).all():
        return _blocks(A, [np.flatnonzero(level == i) for i in range(level.max(initial=-1) + 1)])
    cycles = components(edges) if cycles is None else cycles
    member = np.zeros((cycles.max() + 1, len(A)), bool)
    member[cycles, np.arange(len(A))] = True
    among = (member.astype(np.float32) @ edges @ member.T.astype(np.float32)) > 0  # which cycles depend on which
    alone = (member.sum(axis=1) == 1) & ~among.diagonal()
    np.fill_diagonal(among, False)
    groups: list[np.ndarray] = []
    level = levels(among, len(among))
    for i in range(level.max() + 1):
        here = level == i
        groups += [np.flatnonzero((here & alone)[cycles])] if (here & alone).any() else []
        groups += [np.flatnonzero(member[c]) for c in np.flatnonzero(here & ~alone)]
    return _blocks(A, groups)


def pays(A: np.ndarray) -> tuple[Block, ...]:
    """Return the blocks of A if it is cheaper to solve by them than by products with all of A; otherwise none."""
    n = len(A)
    if n < FROM:
        return ()
    count = 0
    for first in range(0, n, 64):  # Most matrices have so many entries that not all of them need to be counted.
        count += int(np.count_nonzero(A[first : first + 64] != 0))
        if count > PART * n * n:
            return ()
    edges = A != 0
    if levels(edges, n // LARGE).max() == n // LARGE:
        return ()
    cycles = components(edges)
    if np.count_nonzero(np.bincount(cycles) > 1) * LARGE > n:  # Each of these cycles would be a block.
        return ()
    blocks = order(A, cycles)
    read = sum(block.F.size + (0 if block.cycle is None else block.cycle.size) for block in blocks)
    return blocks if read <= PART * n * n and len(blocks) * LARGE <= n else ()


def _blocks(A: np.ndarray, groups: list[np.ndarray]) -> tuple[Block, ...]:
    """Return blocks of the given units, each of which depends on earlier ones only."""
    number, blocks = np.full(len(A), -1), []
    for b, units in enumerate(groups):
        before = np.flatnonzero((A[units] != 0).any(axis=0) & (number >= 0))
        number[units] = b
        sorting = np.argsort(number[before], kind="stable")
        sources, starts = np.unique(number[before][sorting], return_index=True)
        F, own = A[np.ix_(units, before)], A[np.ix_(units, units)]
        blocks.append(Block(as_range(units), as_range(before), F, own if own.any() else None, sources, starts, sorting))
    return tuple(blocks)
