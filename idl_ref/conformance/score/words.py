"""A score in words."""

from __future__ import annotations

from typing import Any


def lines(score: dict[str, Any]) -> list[str]:
    """The score in words, a line for each part."""
    errors = [f"{name} {of['median']:.2g} ({of['worst']:.2g})" for name, of in score["accuracy"].items()]
    times = [f"{name} {time(of)}" for name, of in score["speed"].items()]
    return [
        f"error in units of its bound, median (worst): {', '.join(errors) or 'nothing passed'}",
        f"iterations: {counted(score['iterations'])}",
        f"time per problem: {', '.join(times)}",
        f"memory: {size(score['memory'])}",
    ]


def counted(of: dict[str, Any] | None) -> str:
    """The iterations in words."""
    if of is None:
        return "not reported"
    worst = of["worst"]
    return (
        f"{of['median']:.2g} times the fewest (median of {of['cases']} cases); at most {worst['ratio']:.3g} times: "
        f"{worst['iterations']} where {worst['method']} takes {worst['fewest']}, in {worst['case']}"
    )


def time(of: dict[str, Any]) -> str:
    """One time in words."""
    if "reason" in of:
        return f"none, {of['reason']}"
    relative = f" ({of['ratio']:.2g} × NumPy twin)" if "ratio" in of else ""
    return f"{duration(of['seconds'])}{relative}"


def duration(seconds: float) -> str:
    """Seconds, milliseconds or microseconds with three digits."""
    units = (1.0, "s"), (1e-3, "ms"), (1e-6, "µs")
    unit, name = next((u, n) for u, n in units if float(f"{seconds:.3g}") >= u or u == 1e-6)
    return f"{seconds / unit:.3g} {name}"


def size(of: dict[str, Any]) -> str:
    """A size in words."""
    return f"none, {of['reason']}" if "reason" in of else f"{of['bytes'] / 1e6:.3g} MB, {of['of']}"
