"""This module has what an activation is called as an argument, as text and in a file, and which backends have it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from idl_ref import activations, checks
from idl_ref.activations import MIXED, OWN, Activation, Mixed, get
from idl_ref.choices import ActivationName, Backend

# What users give: one activation, or one for each row. A type checker flags a misspelled name of the first kind only.
AnyActivation = ActivationName | Activation | list[Any] | tuple[Any, ...]
# A file lists so many runs of rows with the same activation, because its header is limited, and so many rows in all.
MOST_RUNS, MOST_ROWS = 20_000, 1_000_000


def by_name(activation: Any, n: int | None = None) -> ActivationName | Activation:
    """Return the name of a built-in activation, given by name or as a row of the table; else a user's, or a mix."""
    row = get(activation, n)
    return row if row.code in (OWN, MIXED) else checks.choice("activation", row.name, get_args(ActivationName))


def joint(parts: Iterable[tuple[Any, int]]) -> ActivationName | Activation:
    """Return the activation of states X = (X₁, X₂, …), of which each part has an activation and a number of rows."""
    rows: list[Activation] = []
    for activation, n in parts:
        row = get(activation, n)
        rows += row.rows if isinstance(row, Mixed) else [row] * n
    return by_name(Mixed.of(rows))


def shown(activation: AnyActivation) -> str:
    """Return an activation as the argument of a model: a name in quotes, or the sum of the runs of a mix."""
    if not isinstance(activation, Mixed):
        return f'"{activation}"'
    runs = activation.runs
    text = " + ".join(f'["{row}"] * {count}' for row, count in runs[:6])
    return text if len(runs) <= 6 else f"{text} + … ({len(runs)} runs of rows)"


def plain(activation: AnyActivation, what: str, way_out: str) -> str | list[list[Any]]:
    """Return what a file holds: the name of an activation, or for a mix [name, number of successive rows] in turn."""
    built_in(activation, what, way_out)
    if not isinstance(activation, Mixed):
        return str(activation)
    runs = activation.runs
    if len(runs) > MOST_RUNS or len(activation.rows) > MOST_ROWS:
        raise ValueError(
            f"{what} may list {MOST_ROWS} rows with an activation each, and {MOST_RUNS} runs of equal ones; "
            f"got {len(activation.rows)} and {len(runs)}: order the hidden units by their activations."
        )
    return [[row.name, count] for row, count in runs]


def from_plain(value: Any, n: Any) -> Any:
    """Return the argument for which `plain` wrote a value, or ValueError for a list that it did not write.

    n: the number of rows, as a file has it
    """
    if not isinstance(value, list):
        return value
    rows: list[str] = []
    n = checks.integer("hidden_dim", n, 1, MOST_ROWS, "A file may not list more rows.")
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(f"activation must be a list of pairs [name, number of rows]; got {checks.shown(pair)}.")
        name = checks.choice("activation", pair[0], activations.TABLE)
        count = checks.integer("a number of rows", pair[1], 1, n)
        if len(rows) + count > n or (rows and rows[-1] == name):
            raise ValueError(
                f"activation must list runs of different names with n = {n} rows in all; got [{name!r}, {count}] "
                f"after {len(rows)} rows."
            )
        rows += [name] * count
    if len(rows) != n or len(set(rows)) < 2:
        raise ValueError(f"activation must list at least two activations of n = {n} rows in all; got {len(rows)} rows.")
    return rows


def backend_for(activation: Activation, backend: Backend) -> Backend:
    """Return the backend that computes with an activation: for a user's, "auto" is numpy, and others are refused."""
    if activation.code != OWN or backend not in ("auto", "numba", "cuda"):
        return backend
    if backend == "auto":
        return "numpy"
    raise ValueError(
        f"backend {backend!r} has the built-in activations only; got the activation {activation.name!r} of your own: "
        'use backend="numpy" or backend="auto".'
    )


def built_in(activation: AnyActivation, what: str, way_out: str) -> ActivationName | Activation:
    """Return the name of a built-in activation, or a mix of them, and refuse a user's; `what` cannot have that."""
    activation = by_name(activation)
    if isinstance(activation, str) or activation.code == MIXED:
        return activation
    raise ValueError(
        f"{what} must have a built-in activation, because a file holds no Python functions; got the activation "
        f"{activation.name!r} of your own: {way_out}."
    )
