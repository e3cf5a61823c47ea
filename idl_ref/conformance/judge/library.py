"""The transformations that may explain one failure, the likely and cheap ones first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from idl_ref.conformance.judge import (
    chunks,
    curves,
    entries,
    iterates,
    maps,
    numbers,
    operands,
    places,
    precisions,
    terms,
)
from idl_ref.conformance.judge import transformations as steps
from idl_ref.conformance.judge.evidence import CLOSE, Evidence, Known
from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.judge.transformations import Transformation

LONG = 20_000  # With more iterations than that, those of an answer are not looked for.


@cache
def mathematics() -> tuple[Transformation, ...]:
    """What may be wrong with the equations."""
    sources = (
        steps.equation,
        steps.adjoints,
        steps.gradients,
        operands.products,
        operands.raw,
        operands.overwritten,
        operands.of_sums,
        curves.functions_of_activation,
        maps.pullbacks,
        maps.maps,
        terms.terms,
        terms.transpositions,
    )
    return tuple(wrong for source in sources for wrong in source())


@cache
def numerics() -> tuple[Transformation, ...]:
    """What may be wrong with numbers, sizes and memory."""
    sources = (
        terms.remainders,
        terms.tails,
        chunks.sizes,
        chunks.orders,
        entries.blocks,
        entries.rows,
        numbers.misread,
        precisions.products,
    )
    rounded = (
        numbers.roundings,
        precisions.singles,
        precisions.iterations,
        precisions.stored,
        numbers.multiples,
        places.operations,
    )
    return tuple(wrong for source in (*sources, *rounded) for wrong in source())


@cache
def early() -> tuple[Transformation, ...]:
    """Iterations stopped by another rule."""
    return tuple(numbers.stops())


def candidates(e: Evidence, known: dict[str, Known]) -> Iterator[Transformation]:
    """Everything that may explain a failure; stopping rules come early where the answer is that of an early iterate."""
    found = sorted(set(_early(e, known)))
    stopped = [*early(), *(after(k, what) for what, k in found)] if found else []
    if e.check == "vjp" and not found and e.case.problem.max_iter <= LONG:
        stopped = [*early(), after(1, "adjoint")]
    yield from mathematics()
    yield from stopped if found else numerics()
    yield from numerics() if found else stopped


@cache
def after(k: int, what: str) -> Transformation:
    """The iteration stopped after k iterations."""
    return numbers.after(k, what)


def _early(e: Evidence, known: dict[str, Known]) -> Iterator[tuple[str, int]]:
    """The numbers of the iterates that the answer may have been computed from, for the first column."""
    if e.case.problem.max_iter > LONG:
        return
    if e.check == "forward" and "X" in known:
        k = _nearest(iterates.path(e.case, "equation").X, known["X"].got, known["X"].truth)
        if k:
            yield "equation", k
            yield "both", k
    if e.check == "vjp" and not known.keys().isdisjoint("BU"):
        s, V = Steps(e.case), iterates.path(e.case, "adjoint").X
        name = "B" if "B" in known else "U"  # ∂B is not finite where a sample is not.
        of = V @ s.U.T if name == "B" else s.B.T @ V + (0 if s.D is None else s.D.T @ s.G_Y)
        k = _nearest(of, known[name].got, known[name].truth)
        if k:
            yield "adjoint", k


def _nearest(iterates: np.ndarray, got: np.ndarray, truth: np.ndarray) -> int | None:
    """The number of the iterate whose first column is nearest to that of the answer, if it is near."""
    if not got.size or not np.isfinite(got).all():
        return None
    apart = np.abs(iterates[:, :, 0] - got[:, 0]).max(axis=1)
    k = int(apart.argmin())
    return k if apart[k] <= CLOSE * np.abs(truth[:, 0] - got[:, 0]).max() else None
