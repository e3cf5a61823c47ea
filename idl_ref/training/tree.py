"""This module adds up the parts of a batch in an order that depends on their number alone.

The parts are leaves of a binary tree. A node over the leaves first … last − 1 is the sum of two nodes: the first has as
many leaves as the largest power of two that leaves some for the second. Whoever has consecutive leaves computes the
largest nodes that lie among them, and hands these on. The additions are the same, whoever makes them, so that the sum
has the same bits on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")
Node = tuple[int, int]  # the first leaf, and the one after the last


def share(leaves: int, rank: int, size: int) -> Node:
    """Return the leaves that belong to one of `size` processes.

    Examples
    --------
    >>> [share(5, rank, 3) for rank in range(3)]
    [(0, 1), (1, 3), (3, 5)]
    """
    return leaves * rank // size, leaves * (rank + 1) // size


def whole_nodes(leaves: int, own: Node) -> list[Node]:
    """Return the largest nodes of the tree that lie among some leaves.

    Examples
    --------
    >>> whole_nodes(5, (1, 5))
    [(1, 2), (2, 4), (4, 5)]
    """

    def within(node: Node) -> list[Node]:
        if own[0] <= node[0] and node[1] <= own[1]:
            return [node]
        if node[1] <= own[0] or own[1] <= node[0]:
            return []
        return [part for child in children(node) for part in within(child)]

    return within((0, leaves)) if own[0] < own[1] else []


def children(node: Node) -> tuple[Node, Node]:
    """Return the two nodes whose sum a node of several leaves is.

    Examples
    --------
    >>> children((0, 5)), children((4, 6))
    (((0, 4), (4, 5)), ((4, 5), (5, 6)))
    """
    first, last = node
    middle = first + (1 << ((last - first - 1).bit_length() - 1))
    return (first, middle), (middle, last)


def total(node: Node, known: Mapping[Node, T], add: Callable[[T, T], T]) -> T:
    """Return the sum of a node, from nodes that are known."""
    if node in known:
        return known[node]
    one, other = children(node)
    return add(total(one, known, add), total(other, known, add))
