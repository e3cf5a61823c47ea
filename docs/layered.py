"""Place items in rows, with few crossings of the lines between them, as Sugiyama, Tagawa and Toda (1981) do.

The rows are given, from the bottom. A line that passes a row is an item of it, too. First each row gets an order, then
every item a place. Sums are `math.fsum`'s, so that every version of Python finds the same places.
"""

from itertools import pairwise
from math import fsum
from typing import NamedTuple


class Item(NamedTuple):
    """A room in its row, or the arrow from `room` to `end` where it passes a row."""

    room: str
    end: str = ""
    row: int = 0  # of a passing arrow


STRAIGHT = (1, 4, 40)  # how hard two items pull at each other, by how many of them are passing arrows
Rows = list[list[Item]]
Ties = dict[Item, list[Item]]
Widths = dict[Item, float]


def turned(down: Ties) -> Ties:
    """What each item is tied to in the row above."""
    up: Ties = {}
    for upper, lowers in down.items():
        for lower in lowers:
            up.setdefault(lower, []).append(upper)
    return up


def crossings(stack: Rows, down: Ties) -> int:
    total = 0
    for lower_row, upper_row in pairwise(stack):
        at = {item: i for i, item in enumerate(lower_row)}
        ends = [(i, at[lower]) for i, upper in enumerate(upper_row) for lower in down.get(upper, [])]
        total += sum((a - c) * (b - d) < 0 for k, (a, b) in enumerate(ends) for c, d in ends[:k])
    return total


def ordered(stack: Rows, down: Ties) -> Rows:
    """The order with the fewest crossings among those of thirty sweeps by barycentres, up and down in turns."""
    up, best = turned(down), [list(row) for row in stack]
    for sweep in range(30):
        ties, sequence = (up, range(len(stack) - 2, -1, -1)) if sweep % 2 else (down, range(1, len(stack)))
        for i in sequence:
            near = stack[i + 1] if sweep % 2 else stack[i - 1]
            at = {item: k / max(len(near) - 1, 1) for k, item in enumerate(near)}
            was = {item: k / max(len(stack[i]) - 1, 1) for k, item in enumerate(stack[i])}
            mean = {item: [at[other] for other in ties.get(item, [])] or [was[item]] for item in stack[i]}
            stack[i] = sorted(stack[i], key=lambda item: (fsum(mean[item]) / len(mean[item]), was[item]))
        if crossings(stack, down) < crossings(best, down):
            best = [list(row) for row in stack]
    return best


def spread(wanted: list[float], weights: list[float], apart: list[float], low: float, high: float) -> list[float]:
    """The places nearest to those wanted, in this order and at least so far apart: least squares, by pooling.

    `apart` holds the distances between neighbours, one less than the places; all lie between `low` and `high`.
    """
    shift = [fsum(apart[:i]) for i in range(len(wanted))]
    pools: list[list[float]] = []  # mean, weight, how many
    for target, weight, offset in zip(wanted, weights, shift, strict=True):
        pools.append([target - offset, weight, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, heavy, many = pools.pop()
            first = pools[-1]
            first[0] = (first[0] * first[1] + mean * heavy) / (first[1] + heavy)
            first[1], first[2] = first[1] + heavy, first[2] + many
    flat = [mean for mean, _, many in pools for _ in range(int(many))]
    return [min(max(y, low), high - shift[-1]) + offset for y, offset in zip(flat, shift, strict=True)]


def places(stack: Rows, down: Ties, wide: Widths, left: float, right: float) -> Widths:
    """The middle of every item, near the mean of what it is tied to; `wide` is what each takes of its row."""
    up, x = turned(down), {}
    for row in stack:
        total = fsum(wide[item] for item in row)
        start = (left + right - total) / 2
        for item in row:
            x[item] = start + wide[item] / 2
            start += wide[item]
    for sweep in range(400):
        for row in stack if sweep % 2 else stack[::-1]:
            wanted, weights = [], []
            for item in row:
                pulls = {tie: STRAIGHT[bool(item.end) + bool(tie.end)] for tie in down.get(item, []) + up.get(item, [])}
                weights.append(sum(pulls.values()) or 1e-3)
                wanted.append(fsum(x[tie] * pull for tie, pull in pulls.items()) / weights[-1] if pulls else x[item])
            apart = [(wide[a] + wide[b]) / 2 for a, b in pairwise(row)]
            low, high = left + wide[row[0]] / 2, right - wide[row[-1]] / 2
            x |= dict(zip(row, spread(wanted, weights, apart, low, high), strict=True))
    return straightened(stack, x, wide, left, right)


def straightened(stack: Rows, x: Widths, wide: Widths, left: float, right: float) -> Widths:
    """Passing arrows as straight as their neighbours allow: runs of rows that have a place in common."""
    beside = {}
    for row in stack:
        for i, item in enumerate(row):
            beside[item] = (row[i - 1] if i else None, row[i + 1] if i + 1 < len(row) else None)

    def room_for(item: Item) -> tuple[float, float]:
        before, after = beside[item]
        low = x[before] + (wide[before] + wide[item]) / 2 if before else left
        return low, x[after] - (wide[after] + wide[item]) / 2 if after else right

    chains: dict[tuple[str, str], list[Item]] = {}
    for item in (item for row in stack for item in row if item.end):
        chains.setdefault((item.room, item.end), []).append(item)
    for chain in [*chains.values()] * 6:
        while chain:
            run, low, high = 0, left, right
            for item in chain:
                own = room_for(item)
                if max(low, own[0]) > min(high, own[1]) + 1e-9:
                    break
                run, low, high = run + 1, max(low, own[0]), min(high, own[1])
            run = max(run, 1)
            middle = fsum(x[item] for item in chain[:run]) / run
            x |= {item: min(max(middle, low), high) for item in chain[:run]}
            chain = chain[run:]
    return x
