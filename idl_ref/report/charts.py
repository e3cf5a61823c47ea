"""This module draws charts as SVG text, whose colours follow the style sheet of the page that they stand in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from idl_ref.report.markup import figure, text

WIDTH, HEIGHT = 400, 230  # units of the drawing, which is scaled to the width of its column
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 40  # margins, for the labels of the axes
LARGEST = 1e150  # Larger numbers are drawn here, and smaller ones than its inverse there on a logarithmic axis.
MANY_DECADES = 1.5  # From so many decades on, positive values are drawn on a logarithmic axis.
MOST_POINTS = 2000


class Series(NamedTuple):
    """A curve: its name, its values at 1, 2, 3, …, and its number in the style sheet."""

    name: str
    values: np.ndarray
    style: int
    dotted: bool = False


class _Axis(NamedTuple):
    """A map from numbers to one coordinate of the drawing, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        values = np.clip(values, 1 / LARGEST if self.log else -LARGEST, LARGEST)
        values = np.log10(values) if self.log else values
        return self.start + (values - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, whole: bool = False) -> list[float]:
        """Return at most about six round numbers on the axis; `whole` asks for whole numbers."""
        if self.log:
            decades = range(math.ceil(self.low), math.floor(self.high) + 1)
            steps = (1, 2, 5) if len(decades) < 3 else (1,)
            every = max(1, -(-len(decades) // 6))
            found = [k * 10.0**d for d in range(math.floor(self.low), math.floor(self.high) + 1) for k in steps]
            return [t for t in found if self.low <= math.log10(t) <= self.high][::every]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough)
        step = max(1.0, step) if whole else step
        return [i * step for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def lines(
    title: str,
    unit: str,
    series: Sequence[Series],
    *,
    log: bool = False,
    zero: bool = False,
    bound: tuple[str, float] | None = None,
) -> str:
    """Draw curves against the epochs, and a horizontal line at a bound with a name; "" if there is nothing to draw.

    With `log`, the vertical axis is logarithmic if the values allow it; with `zero`, it begins at 0.
    """
    series = [s for s in series if np.isfinite(s.values).any()]
    if not series:
        return ""
    limits = [0.0] * zero + ([bound[1]] if bound else [])
    values = np.concatenate([*(s.values[np.isfinite(s.values)] for s in series), limits])
    x = _Axis(*_widened(1, max(len(s.values) for s in series)), LEFT, WIDTH - RIGHT)
    y = _value_axis(values, log)
    parts = [*_frame(x, y, "epoch", whole=True)]
    if bound:
        height = float(y(np.array(bound[1])))
        parts.append(_line(LEFT, WIDTH - RIGHT, height, height, "bound"))
    parts += [path for s in series for path in _curve(s, x, y)]
    legend = [(f"s{s.style}" + " dotted" * s.dotted, s.name) for s in series]
    spoken = "; ".join(f"{s.name} {_from_to(s.values)}" for s in series)
    if bound:
        legend.append(("bound", bound[0]))
        spoken += f"; {bound[0]} at {bound[1]:.4g}"
    unit += ", logarithmic" * y.log
    return figure(f"{title} ({unit})" if unit else title, _svg(f"{title} by epoch: {spoken}.", parts), legend)


def scatter(title: str, x_name: str, x_values: np.ndarray, y_values: np.ndarray, alt: str) -> str:
    """Draw points (x, y), at most MOST_POINTS of them, and the line y = 0."""
    every = -(-len(x_values) // MOST_POINTS)
    x_values, y_values = x_values[::every], y_values[::every]
    x = _Axis(*_widened(*_range(x_values)), LEFT, WIDTH - RIGHT)
    y = _Axis(*_widened(*_range(np.append(y_values, 0.0))), HEIGHT - BOTTOM, TOP)
    zero = float(y(np.zeros(1))[0])
    pairs = zip(x(x_values), y(y_values), strict=True)
    dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in pairs)
    parts = [*_frame(x, y, x_name), _line(LEFT, WIDTH - RIGHT, zero, zero, "bound"), f'<path class="dots" d="{dots}"/>']
    note = f" (one of {every} samples)" if every > 1 else ""
    return figure(title + note, _svg(alt, parts), [])


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest value, within what can be drawn."""
    inside = np.clip(values, -LARGEST, LARGEST)
    return float(inside.min()), float(inside.max())


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return a range with a margin around it, also where it is one number."""
    size = max(abs(low), abs(high))
    if size < 1 / LARGEST:
        return -1.0, 1.0
    margin = 0.04 * (high - low) if high - low > 1e-9 * size else 0.5 * size
    return low - margin, high + margin


def _value_axis(values: np.ndarray, log: bool) -> _Axis:
    """Return the vertical axis for values; with `log`, it is logarithmic if they are positive and far apart."""
    low, high = _range(values)
    log = log and low > 0 and math.log10(high) - math.log10(max(low, 1 / LARGEST)) > MANY_DECADES
    low, high = (math.log10(max(low, 1 / LARGEST)), math.log10(high)) if log else (low, high)
    return _Axis(*_widened(low, high), HEIGHT - BOTTOM, TOP, log)


def _frame(x: _Axis, y: _Axis, x_name: str, whole: bool = False) -> Iterator[str]:
    """Draw the grid, and the numbers and the name of the axes."""
    for tick, place in _places(y):
        yield _line(LEFT, WIDTH - RIGHT, place, place, "grid")
        yield f'<text x="{LEFT - 6}" y="{place + 4:.1f}" class="end">{_label(tick)}</text>'
    for tick, place in _places(x, whole):
        if whole and tick < 1:
            continue
        yield f'<text x="{place:.1f}" y="{HEIGHT - BOTTOM + 16}" class="middle">{_label(tick)}</text>'
    yield _line(LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM, "axis")
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 6}" class="middle">{text(x_name)}</text>'


def _places(axis: _Axis, whole: bool = False) -> list[tuple[float, float]]:
    """Return the ticks of an axis and their coordinates."""
    ticks = axis.ticks(whole)
    return list(zip(ticks, axis(np.array(ticks, float)).tolist(), strict=True))


def _curve(s: Series, x: _Axis, y: _Axis) -> Iterator[str]:
    """Draw a curve, which is broken where a value is not finite; a value between two such ones is a dot."""
    epochs, drawn = np.arange(1, len(s.values) + 1), np.isfinite(s.values)
    for piece in np.split(epochs, np.flatnonzero(np.diff(drawn.astype(int))) + 1):
        if not len(piece) or not drawn[piece[0] - 1]:
            continue
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x(piece), y(s.values[piece - 1]), strict=True))
        if len(piece) == 1:
            a, b = points.split(",")
            yield f'<circle class="s{s.style}" cx="{a}" cy="{b}" r="3"/>'
        else:
            yield f'<polyline class="s{s.style}{" dotted" * s.dotted}" points="{points}"/>'


def _line(x1: float, x2: float, y1: float, y2: float, style: str) -> str:
    """Draw a straight line."""
    return f'<line class="{style}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _label(tick: float) -> str:
    """Return the number at a tick."""
    return text(f"{tick:.5g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e").replace("-", "−"))


def _from_to(values: np.ndarray) -> str:
    """Return the first and the last value in words."""
    return f"from {values[0]:.4g} to {values[-1]:.4g}"


def _svg(alt: str, parts: Sequence[str]) -> str:
    """Return a drawing with the sentence that stands for it where it is not seen."""
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(alt)}">{"".join(parts)}</svg>'
