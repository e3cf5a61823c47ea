"""Sizes by name: terms and results beyond a size left out, tails that fill no chunk, tiles and chunks exchanged."""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.judge.transformations import Change, Transformation, dense
from idl_ref.conformance.truth.problem import Case

CHUNKS = (2, 3, 4, 8, 16, 24, 32, 48, 64, 100, 128, 256, 512, 1024, 2048, 4096)
BEYOND = tuple(sorted({*range(1, 21), *CHUNKS}))
TILES = (4, 8, 16, 32, 64)
SMALL = (4, 8, 16)  # of a rank, which may be smaller than one chunk


def _cut(M: np.ndarray | None, k: int, axis: int) -> Any:
    if M is None:
        return None
    M = M.copy()
    M[(slice(None),) * axis + (slice(k, None),)] = 0
    return M


def _samples(chosen: Callable[[int], slice]) -> dict[str, Change]:
    """The gradients of the weights summed over some samples only."""

    def of(s: Steps) -> slice:
        return chosen(s.U.shape[1])

    return {
        "dF": lambda s: fac.gradients(s.F, s.Xb[:, of(s)], s.V[:, of(s)]),
        "dB": lambda s: s.V[:, of(s)] @ s.U[:, of(s)].T,
        "dC": lambda s: s.G_Y[:, of(s)] @ s.Xb[:, of(s)].T,
        "dD": lambda s: s.G_Y[:, of(s)] @ s.U[:, of(s)].T,
    }


def _fewer_samples(kept: Callable[[int], int]) -> dict[str, Change]:
    return _samples(lambda m: slice(kept(m)))


def _fewer_for(name: str) -> Callable[[Callable[[int], int]], dict[str, Change]]:
    """One gradient summed over fewer samples."""
    return lambda kept: {name: _fewer_samples(kept)[name]}


GRADIENTS = {"∂A": "dF", "∂B": "dB", "∂C": "dC", "∂D": "dD"}


def _rank(case: Case) -> int:
    """r, or 0 for a dense A."""
    return case.problem.factors[0].shape[1] if case.problem.A is None else 0


_AXES: tuple[tuple[str, str, Callable[[Case], int], Callable[[Callable[[int], int]], dict[str, Change]]], ...] = (
    ("units", "A X", lambda c: c.problem.sizes[0],
     lambda kept: {"F": lambda s: (*s.right("F")[:-1], _cut(s.right("F")[-1], kept(len(s.B)), 1))}),
    ("units", "the results of A X", lambda c: c.problem.sizes[0],
     lambda kept: {"F": lambda s: (_cut(s.right("F")[0], kept(len(s.B)), 0), *s.right("F")[1:])}),
    ("units", "Aᵀ V", lambda c: c.problem.sizes[0],
     lambda kept: {"Ft": lambda s: (*s.right("Ft")[:-1], _cut(s.right("Ft")[-1], kept(len(s.B)), 1))}),
    ("units", "C X", lambda c: c.problem.sizes[0], lambda kept: {
        "Y": lambda s: _cut(s.C, kept(len(s.B)), 1) @ s.Xf + (0 if s.D is None else s.D @ s.U)}),
    ("units", "Bᵀ V", lambda c: c.problem.sizes[0], lambda kept: {
        "dU": lambda s: s.right("dU") - s.B.T @ (s.V - _cut(s.V, kept(len(s.B)), 0))}),
    ("outputs", "Y", lambda c: c.problem.sizes[2],
     lambda kept: {"Y": lambda s: _cut(s.right("Y"), kept(len(s.C)), 0)}),
    ("features", "∂U", lambda c: c.problem.sizes[1],
     lambda kept: {"dU": lambda s: _cut(s.right("dU"), kept(len(s.U)), 0)}),
    ("features", "B U", lambda c: c.problem.sizes[1],
     lambda kept: {"Z": lambda s: s.B @ _cut(s.U, kept(len(s.U)), 0)}),
    ("features", "D U", lambda c: c.problem.sizes[1], lambda kept: {
        "Y": lambda s: s.right("Y") if s.D is None else s.C @ s.Xf + s.D @ _cut(s.U, kept(len(s.U)), 0)}),
    ("outputs", "Cᵀ G_Y", lambda c: c.problem.sizes[2],
     lambda kept: {"G": lambda s: s.C.T @ _cut(s.G_Y, kept(len(s.C)), 0)}),
    ("columns of L and R", "L Rᵀ", _rank,
     lambda kept: {"F": lambda s: (_cut(s.right("F")[0], kept(s.right("F")[0].shape[1]), 1), s.right("F")[1])}),
    ("columns of L and R", "L Rᵀ, but not of the gradients", _rank,
     lambda kept: {"F": lambda s: (_cut(s.right("F")[0], kept(s.right("F")[0].shape[1]), 1), s.right("F")[1]),
                   "dF": lambda s: fac.gradients(s.right("F"), s.Xb, s.V)}),
    ("samples", "the gradients of the weights", lambda c: c.problem.sizes[3], _fewer_samples),
    *(("samples", text, lambda c: c.problem.sizes[3], _fewer_for(name)) for text, name in GRADIENTS.items()),
    ("samples", "X and V", lambda c: c.problem.sizes[3], lambda kept: {
        "Xf": lambda s: _cut(s.X, kept(s.X.shape[1]), 1), "Xb": lambda s: _cut(s.X, kept(s.X.shape[1]), 1),
        "V": lambda s: _cut(s.right("V"), kept(s.X.shape[1]), 1)}),
    ("samples", "X", lambda c: c.problem.sizes[3],
     lambda kept: dict.fromkeys(("Xf", "Xb"), lambda s: _cut(s.X, kept(s.X.shape[1]), 1))),
)  # fmt: skip


def sizes() -> Iterator[Transformation]:
    """Terms of sums left out: those beyond a size, the tail that fills no chunk, the last tile, the last one."""
    for what, product, size, changes in _AXES:
        for c in BEYOND:
            sentence = f"{what} beyond the first {c} left out of {product}"
            yield Transformation(sentence, changes(partial(min, c)), partial(_larger, size, c))
        yield from _as_many_as(what, product, size, changes)
        for c in reversed(CHUNKS):
            whole, fits = changes(partial(_in_chunks, c)), partial(_larger, size, c)
            yield Transformation(f"{what} that fill no chunk of {c} left out of {product}", whole, fits)
        for c in SMALL if size is _rank else ():
            sentence = f"{what} that fill no chunk of {c} left out of {product}, also where there are fewer"
            whole = changes(lambda k, c=c: k // c * c)
            yield Transformation(sentence, whole, lambda case, c=c: _rank(case) % c > 0)
        for c in TILES:
            sentence = f"the last tile of {c} {what} left out of {product} where they fill all tiles"
            yield Transformation(sentence, changes(lambda k, c=c: k - c), partial(_multiple, size, c))
        one = partial(_larger, size, 1)
        yield Transformation(f"the last of the {what} left out of {product}", changes(lambda k: max(k - 1, 1)), one)


OTHERS = "hidden units", "features", "outputs", "samples"


def _as_many_as(
    what: str, product: str, size: Callable[[Case], int], changes: Callable[[Callable[[int], int]], dict[str, Change]]
) -> Iterator[Transformation]:
    """Terms beyond the number of something else left out, as by a loop with the wrong end."""
    for i, other in enumerate(OTHERS):
        yield Transformation(
            f"{what} beyond as many as there are {other} left out of {product}",
            {name: lambda s, name=name, i=i: changes(partial(min, s.problem.sizes[i]))[name](s)
             for name in changes(int)},
            lambda case, i=i: size(case) > case.problem.sizes[i])  # fmt: skip


def orders() -> Iterator[Transformation]:
    """Tiles and chunks exchanged or overwritten, samples left out of sums, and indices that are too short."""
    yield Transformation("the first of the samples left out of the gradients of the weights",
                         _samples(lambda m: slice(1, None)))  # fmt: skip
    for c in reversed(CHUNKS):
        if c in TILES:
            yield Transformation(f"two tiles of {c} of A exchanged across the diagonal",
                                 {"F": lambda s, c=c: _exchanged(s.right("F"), c)},
                                 lambda case, c=c: dense(case) and len(case.problem.B) >= 2 * c)  # fmt: skip
        many = partial(_larger, lambda case: case.problem.sizes[3], c)
        yield Transformation(f"chunks of {c} samples in reversed order in X",
                             dict.fromkeys(("Xf", "Xb"), lambda s, c=c: _reversed(s.X, c)), many)  # fmt: skip
        last = _samples(lambda m, c=c: slice((m - 1) // c * c, None))
        overwritten = {"gradients of the weights": last} | {
            text: {name: last[name]} for text, name in GRADIENTS.items()
        }
        for text, changes in overwritten.items():
            sentence = f"{text} from the last chunk of {c} samples alone: each chunk overwrites the sum"
            yield Transformation(sentence, changes, many)
    for bits in (8, 15, 16):
        yield Transformation(f"entries of X beyond the {2**bits:,}th lost, as with indices of {bits + bits % 2} bits",
                             dict.fromkeys(("Xf", "Xb"), lambda s, k=2**bits: _flat(s.X, k)),
                             lambda case, k=2**bits: case.problem.sizes[0] * case.problem.sizes[3] > k)  # fmt: skip


def _exchanged(F: fac.Factors, c: int) -> fac.Factors:
    A = F[0].copy()
    A[:c, c : 2 * c], A[c : 2 * c, :c] = F[0][c : 2 * c, :c], F[0][:c, c : 2 * c]
    return (A,)


def _reversed(X: np.ndarray, c: int) -> np.ndarray:
    return np.hstack([X[:, j : j + c] for j in range(0, X.shape[1], c)][::-1])


def _flat(X: np.ndarray, kept: int) -> np.ndarray:
    flat = X.ravel().copy()
    flat[kept:] = 0
    return flat.reshape(X.shape)


def _multiple(size: Callable[[Case], int], of: int, case: Case) -> bool:
    return size(case) >= of and size(case) % of == 0


def _larger(size: Callable[[Case], int], least: int, case: Case) -> bool:
    return size(case) > least


def _in_chunks(chunk: int, size: int) -> int:
    return size // chunk * chunk if size > chunk else size
