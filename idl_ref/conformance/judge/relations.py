"""Relations between several answers of one backend, which are checked without the truth.

A relation turns one problem into others and rebuilds the answer to the first from the answers to the others. The
rebuilt answer and the direct one must agree within the sum of their error bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activations
from idl_ref.conformance.truth.bounds import equation, unit
from idl_ref.conformance.truth.problem import COLUMNS, Arrays, Case, Problem

Asked = tuple[Problem, np.ndarray]


class Relation(NamedTuple):
    """One relation.

    `ask` gives the other problems, each with its G_Y; `rebuild` makes the answer to the case from their answers; `fits`
    says for which cases the relation holds.
    """

    name: str
    comment: str
    ask: Callable[[Case], list[Asked]]
    rebuild: Callable[[Case, list[Arrays]], Arrays]
    fits: Callable[[Case], bool] = lambda case: True


def _columns(case: Case, j: Any) -> Asked:
    """The problem with the columns j of U, X0 and G_Y alone."""
    problem = case.problem
    arrays = {"U": problem.U[:, j]} | ({} if problem.X0 is None else {"X0": problem.X0[:, j]})
    return problem.with_arrays(arrays), case.G_Y[:, j]


def _split(case: Case) -> list[Asked]:
    m = case.problem.U.shape[1]
    return [_columns(case, slice(0, m // 3)), _columns(case, slice(m // 3, m))]


def _join(case: Case, parts: list[Arrays]) -> Arrays:
    left, right = parts
    return {name: np.hstack([M, right[name]]) if name in COLUMNS else M + right[name] for name, M in left.items()}


def _order(size: int) -> np.ndarray:
    """A fixed permutation."""
    return np.roll(np.arange(size)[::-1], 1)


def _shuffle(case: Case) -> list[Asked]:
    return [_columns(case, _order(case.problem.U.shape[1]))]


def _unshuffle(case: Case, parts: list[Arrays]) -> Arrays:
    back = np.argsort(_order(case.problem.U.shape[1]))
    return {name: value[:, back] if name in COLUMNS else value for name, value in parts[0].items()}


def _rename(case: Case) -> list[Asked]:
    p, order = case.problem, _order(case.problem.B.shape[0])
    arrays = {"B": p.B[order], "C": p.C[:, order]}
    arrays |= {"A": p.A[order][:, order]} if p.A is not None else {"L": p.factors[0][order], "R": p.factors[1].T[order]}
    return [(p.with_arrays(arrays), case.G_Y)]


def _unrename(case: Case, parts: list[Arrays]) -> Arrays:
    back = np.argsort(_order(case.problem.B.shape[0]))
    by = {"A": lambda M: M[back][:, back], "C": lambda M: M[:, back]} | dict.fromkeys("LRBX", lambda M: M[back])
    return {name: by[name](value) if name in by else value for name, value in parts[0].items()}


def _beside(case: Case) -> list[Asked]:
    """A second equation in the same model, which Y does not depend on: A = diag(A, A/2), B over −B, C = [C 0]."""
    p = case.problem
    B, C = np.vstack([p.B, -p.B]), np.hstack([p.C, np.zeros_like(p.C)])
    if p.A is not None:
        zero = np.zeros_like(p.A)
        factors = {"A": np.block([[p.A, zero], [zero, p.A / 2]])}
    else:
        L, R = p.factors[0], p.factors[1].T
        zero = np.zeros_like(L)
        factors = {"L": np.block([[L, zero], [zero, L / 2]]), "R": np.block([[R, zero], [zero, R]])}
    return [(p.with_arrays({**factors, "B": B, "C": C}), case.G_Y)]


def _first(case: Case, parts: list[Arrays]) -> Arrays:
    n, r = case.problem.B.shape[0], case.problem.factors[0].shape[1]
    cut: dict[str, Any] = {"A": np.s_[:n, :n], "C": np.s_[:, :n]}
    cut |= dict.fromkeys("LR", np.s_[:n, :r]) | dict.fromkeys("BX", np.s_[:n])
    return {name: value[cut[name]] if name in cut else value for name, value in parts[0].items()}


def _dense(case: Case) -> list[Asked]:
    L, Rt = case.problem.factors
    return [(case.problem.with_arrays({"A": L @ Rt, "L": None, "R": None}), case.G_Y)]  # type: ignore[dict-item]


def _factored(case: Case, parts: list[Arrays]) -> Arrays:
    L, Rt = case.problem.factors
    G = parts[0].get("A")
    return parts[0] if G is None else {**parts[0], "L": G @ Rt.T, "R": G.T @ L}


def _warm(case: Case) -> list[Asked]:
    far = 1 - 2 * case.truths[0]["X"]
    return [(case.problem.with_arrays({"X0": far.astype(case.problem.dtype)}), case.G_Y)]


def _same(case: Case, parts: list[Arrays]) -> Arrays:
    return parts[0]


def _rows(case: Case) -> list[Asked]:
    """The problem once per output, each time with G_Y zero for all other outputs."""
    q = len(case.G_Y)
    return [(case.problem, case.G_Y * (np.arange(q) == i)[:, None].astype(case.G_Y.dtype)) for i in range(q)]


def _summed(case: Case, parts: list[Arrays]) -> Arrays:
    return {name: sum(p[name] for p in parts) for name in parts[0] if name not in ("X", "Y")}  # type: ignore[misc]


RELATIONS = {
    r.name: r
    for r in (
        Relation("split", "a batch in two parts", _split, _join, lambda c: c.problem.U.shape[1] > 2),
        Relation("samples", "samples in another order", _shuffle, _unshuffle),
        Relation("units", "hidden units in another order", _rename, _unrename),
        Relation(
            "beside", "a second equation beside the first, block-diagonal, which Y does not depend on", _beside, _first
        ),
        Relation("dense", "L Rᵀ multiplied out", _dense, _factored, lambda c: c.problem.A is None),
        Relation("warm", "an iteration from another X0", _warm, _same),
        Relation("outputs", "the gradient as a sum over outputs", _rows, _summed),
        Relation("repeat", "the same call once more, bit for bit", lambda c: [(c.problem, c.G_Y)], _same),
    )
}


def directions(case: Case) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """For the adjoint identity: a direction for every weight and for U, the derivative Ẏ along it, and its error bound.

    Ẋ = S ∘ (A Ẋ + Ȧ X + Ḃ U + B U̇) and Ẏ = C Ẋ + Ċ X + Ḋ U + D U̇ are solved in float64 at the true X.
    """
    p, eq, X = case.problem, equation(case.problem), case.truths[0]["X"]
    rng = np.random.default_rng(len(case.id))
    way = {name: np.round(rng.standard_normal(M.shape), 2) for name, M in p.arrays.items() if name != "X0"}
    A = reduce(np.matmul, eq.factors)
    S = activations.get(p.activation).slope(A @ X + eq.Z)
    dA = way["A"] if p.A is not None else way["L"] @ eq.factors[1] + eq.factors[0] @ way["R"].T
    dZ = dA @ X + way["B"] @ p.U + p.B @ way["U"]
    dX = np.stack(
        [np.linalg.solve(np.eye(len(A)) - S[:, j : j + 1] * A, S[:, j] * dZ[:, j]) for j in range(X.shape[1])], axis=1
    )
    dY = p.C @ dX + way["C"] @ X + (0 if p.D is None else way["D"] @ p.U + p.D @ way["U"])
    slack = unit(np.dtype(np.float64)).gamma(200) * (np.abs(dY) + np.abs(p.C) @ np.abs(dX))
    return way, dY, slack
