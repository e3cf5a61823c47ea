"""This module finds which units of a model depend on each other in cycles: the strongly connected components of A.

Unit i depends on unit j if A_ij is not zero. NumPy is enough.
"""

from __future__ import annotations

import numpy as np

FEW = 64  # Units with more edges than this, in the mean, have few components, which are found one by one.


def components(edges: np.ndarray) -> np.ndarray:
    """Return a number for each unit, which is the same for two units if and only if each depends on the other.

    Parameters
    ----------
    edges : (n, n) bool array
        Which unit depends directly on which.

    Returns
    -------
    (n,) array of int
        The numbers of the components, in no particular order.

    Notes
    -----
    Units to or from which no cycle leads are components of one unit each. What is left falls apart into parts without
    an edge between them. In each, the units that one of them reaches, and that reach it, are its component; each other
    component lies among the units that it reaches, among those that reach it, or among the rest.
    Cost: O(n²) operations for a few components, and O(n² log n) for most graphs with many of them.
    Source: Fleischer, Hendrickson and Pinar, On identifying strongly connected components in parallel, IPDPS 2000.

    Examples
    --------
    >>> A = np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    >>> number = components(A != 0)
    >>> bool(number[0] == number[1] != number[2])
    True
    """
    number, count, pending = np.full(len(edges), -1), 0, [np.arange(len(edges))]
    while pending:
        units = pending.pop()
        E = edges[np.ix_(units, units)]
        np.fill_diagonal(E, False)
        alone = (levels(E, len(E)) >= 0) | (levels(E.T, len(E)) >= 0)
        number[units[alone]] = count + np.arange(alone.sum())
        count += int(alone.sum())
        core = np.flatnonzero(~alone)
        if not core.size:
            continue
        left = E[np.ix_(core, core)]
        separate = _parts(left) if np.count_nonzero(left) <= FEW * len(core) else []
        if len(separate) > 1:
            pending += [units[core[part]] for part in separate]
            continue
        pivot = core[len(core) // 2]  # In the middle, because many matrices have their blocks in order.
        reached, reaching = _reached(E, pivot) & ~alone, _reached(E.T, pivot) & ~alone
        number[units[reached & reaching]] = count
        count += 1
        for part in (reached & ~reaching, reaching & ~reached, ~(reached | reaching | alone)):
            if part.any():
                pending.append(units[part])
    return number


def cyclic(edges: np.ndarray) -> list[np.ndarray]:
    """Return the units of each component that has a cycle, in increasing order.   edges (n, n) bool

    Examples
    --------
    >>> cyclic(np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 4.0], [0.0, 0.0, 0.0]]) != 0)
    [array([0, 1])]
    """
    if edges.size and edges.all():
        return [np.arange(len(edges))]
    number = components(edges)
    order = np.argsort(number, kind="stable")
    _, firsts = np.unique(number[order], return_index=True)
    groups = [units for units in np.split(order, firsts[1:]) if len(units) > 1 or (units.size and edges[units, units])]
    return sorted(groups, key=lambda units: int(units[0]))


def levels(edges: np.ndarray, most: int) -> np.ndarray:
    """Return for each unit the length of the longest chain of units on which it depends; −1 if a cycle is among them.

    Units of a level above `most` have −1, too.   edges (n, n) bool -> (n,)
    """
    level, pending = np.full(len(edges), -1), edges.sum(axis=1)
    ready, number = np.flatnonzero(pending == 0), 0
    while ready.size and number <= most:
        level[ready] = number
        pending -= edges[:, ready].sum(axis=1)
        ready, number = np.flatnonzero((pending == 0) & (level < 0)), number + 1
    return level


def as_range(units: np.ndarray) -> slice | np.ndarray:
    """Return a slice for units that follow each other, which selects them without a copy."""
    first = int(units[0]) if units.size else 0
    return slice(first, first + len(units)) if np.array_equal(units, np.arange(first, first + len(units))) else units


def _parts(edges: np.ndarray) -> list[np.ndarray]:
    """Return groups of units between which there is no edge in either direction.   edges (n, n) bool"""
    one, other = np.nonzero(edges)
    least = np.arange(len(edges))
    while True:  # Each unit takes the smallest number of its neighbours, and then of the unit with that number.
        smaller, both = least.copy(), np.minimum(least[one], least[other])
        np.minimum.at(smaller, one, both)
        np.minimum.at(smaller, other, both)
        smaller = smaller[smaller]
        if np.array_equal(smaller, least):
            order = np.argsort(least, kind="stable")
            return np.split(order, np.unique(least[order], return_index=True)[1][1:])
        least = smaller


def _reached(edges: np.ndarray, unit: int) -> np.ndarray:
    """Tell which units `unit` depends on, directly or through others, or is.   edges (n, n) bool -> (n,) bool"""
    seen = np.zeros(len(edges), bool)
    seen[unit] = True
    front = np.array([unit])
    while front.size:
        new = edges[front].any(axis=0) & ~seen
        seen |= new
        front = np.flatnonzero(new)
    return seen
