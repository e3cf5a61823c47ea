"""Every quantity of a computation changed by every simple operation: multiplied, shifted, reversed, partly zero."""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.judge.transformations import Change, Transformation
from idl_ref.conformance.truth.problem import Case

Operation = Callable[[np.ndarray], np.ndarray]

# Steps by name. L stands for A where A = L Rᵀ.
STEPS: dict[str, tuple[str, ...]] = {
    "A": ("F",), "A in the adjoint": ("Ft",), "B": ("B",), "C": ("C",), "D": ("D",), "U": ("U",), "G_Y": ("G_Y",),
    "B U": ("Z",), "X for the gradients": ("Xb",), "φ′": ("S",), "Cᵀ G_Y": ("G",), "V": ("V",),
    "B U and Cᵀ G_Y": ("Z", "G"),
}  # fmt: skip
Use = Callable[[Steps, Operation], Any]  # a result in which an operation is applied to one operand
# For each operand of the products around the equations, the name of the result and the result.
OPERANDS: dict[str, tuple[str, Use]] = {
    "B in B U": ("Z", lambda s, f: f(s.B) @ s.U),
    "U in B U": ("Z", lambda s, f: s.B @ f(s.U)),
    "C in the readout": ("Y", lambda s, f: f(s.C) @ s.Xf + (0 if s.D is None else s.D @ s.U)),
    "X in the readout": ("Y", lambda s, f: s.C @ f(s.Xf) + (0 if s.D is None else s.D @ s.U)),
    "D in the readout": ("Y", lambda s, f: s.C @ s.Xf + (0 if s.D is None else f(s.D) @ s.U)),
    "U in the readout": ("Y", lambda s, f: s.C @ s.Xf + (0 if s.D is None else s.D @ f(s.U))),
    "C in Cᵀ G_Y": ("G", lambda s, f: f(s.C).T @ s.G_Y),
    "G_Y in Cᵀ G_Y": ("G", lambda s, f: s.C.T @ f(s.G_Y)),
    "V in ∂A": ("dF", lambda s, f: fac.gradients(s.F, s.Xb, f(s.V))),
    "X in ∂A": ("dF", lambda s, f: fac.gradients(s.F, f(s.Xb), s.V)),
    "V in ∂B": ("dB", lambda s, f: f(s.V) @ s.U.T),
    "U in ∂B": ("dB", lambda s, f: s.V @ f(s.U).T),
    "G_Y in ∂C": ("dC", lambda s, f: f(s.G_Y) @ s.Xb.T),
    "X in ∂C": ("dC", lambda s, f: s.G_Y @ f(s.Xb).T),
    "G_Y in ∂D": ("dD", lambda s, f: f(s.G_Y) @ s.U.T),
    "U in ∂D": ("dD", lambda s, f: s.G_Y @ f(s.U).T),
    "B in ∂U": ("dU", lambda s, f: f(s.B).T @ s.V + (0 if s.D is None else s.D.T @ s.G_Y)),
    "V in ∂U": ("dU", lambda s, f: s.B.T @ f(s.V) + (0 if s.D is None else s.D.T @ s.G_Y)),
    "D in ∂U": ("dU", lambda s, f: s.B.T @ s.V + (0 if s.D is None else f(s.D).T @ s.G_Y)),
    "G_Y in ∂U": ("dU", lambda s, f: s.B.T @ s.V + (0 if s.D is None else s.D.T @ f(s.G_Y))),
}


def _zero(M: np.ndarray, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
    M = M.copy()
    M[rows, columns] = 0
    return M


def mean(M: np.ndarray, axis: int) -> np.ndarray:
    """The mean along an axis, 0 for no entries."""
    total: np.ndarray = M.sum(axis=axis, keepdims=True)
    return total / max(M.shape[axis], 1)


FIRST, LAST = slice(0, 1), slice(-1, None)
REARRANGEMENTS: dict[str, Operation] = {  # and what leaves some entries as they are
    "transposed": lambda M: M.T if M.shape[0] == M.shape[1] else M,
    "with its entries in column order": lambda M: M.ravel(order="F").reshape(M.shape),
    "read by columns from an array in row order": lambda M: M.ravel().reshape(M.shape[::-1]).T,
    "with its rows shifted by one": lambda M: np.roll(M, 1, axis=0),
    "with its rows shifted by minus one": lambda M: np.roll(M, -1, axis=0),
    "with its columns shifted by one": lambda M: np.roll(M, 1, axis=1),
    "with its columns shifted by minus one": lambda M: np.roll(M, -1, axis=1),
    "with its rows in reversed order": lambda M: M[::-1],
    "with its columns in reversed order": lambda M: M[:, ::-1],
    "with zeros in its first row": lambda M: _zero(M, rows=FIRST),
    "with zeros in its last row": lambda M: _zero(M, rows=LAST),
    "with zeros in its first column": lambda M: _zero(M, columns=FIRST),
    "with zeros in its last column": lambda M: _zero(M, columns=LAST),
    "without its sign": np.abs,
    "without its negative entries": lambda M: np.maximum(M, 0),
}
OPERATIONS: dict[str, Operation] = {
    **REARRANGEMENTS,
    "replaced by the mean of its columns": lambda M: mean(M, 1) + 0 * M,
    "replaced by the mean of its rows": lambda M: mean(M, 0) + 0 * M,
    "divided by the norm of each column": lambda M: M / np.maximum(np.linalg.norm(M, axis=0), 1e-300),
    "divided by its largest entry": lambda M: M / max(np.abs(M).max(initial=0.0), 1e-300),
    "less the mean of each row": lambda M: M - mean(M, 1),
    "less the mean of each column": lambda M: M - mean(M, 0),
}
FACTORS: dict[str, Callable[[Case], float]] = {
    "0": lambda c: 0.0, "−1": lambda c: -1.0, "2": lambda c: 2.0, "1/2": lambda c: 0.5,
    "κ": lambda c: c.problem.kappa, "1/κ": lambda c: 1 / c.problem.kappa, "1 − κ": lambda c: 1 - c.problem.kappa,
    **{f"{how}{size}": (lambda c, k=k, e=exponent: float(max(c.problem.sizes[k], 1)) ** e)
       for k, size in enumerate("npqm") for how, exponent in (("", 1), ("1/", -1), ("1/√", -0.5))},
}  # fmt: skip


def _all(names: tuple[str, ...], change: Callable[[np.ndarray, Case], np.ndarray]) -> dict[str, Change]:
    """A change of some steps; of weights as factors it changes the first one."""

    def at(name: str) -> Change:
        def changed(s: Steps) -> object:
            M = s.right(name)
            if M is None:
                return None
            return (change(M[0], s.case), *M[1:]) if isinstance(M, tuple) else change(M, s.case)

        return changed

    return {name: at(name) for name in names}


def operations() -> Iterator[Transformation]:
    """Every step, and every operand of the products around the equations, changed by every operation and factor."""
    changes: dict[str, Callable[[np.ndarray, Case], np.ndarray]] = {
        **{f"multiplied by {text}": (lambda M, case, f=f: f(case) * M) for text, f in FACTORS.items()},
        **{text: (lambda M, case, f=f: f(M)) for text, f in OPERATIONS.items()},
    }
    for what, change in changes.items():
        for step, names in STEPS.items():
            yield Transformation(f"{step} {what}", _all(names, change))
        in_equation = _all(("F",), change) | {"Ft": lambda s: fac.transpose(s.right("F"))}
        yield Transformation(f"A, but not in the adjoint, {what}", in_equation)
        for operand, (name, use) in OPERANDS.items():
            changed: Change = lambda s, use=use, f=change: use(s, lambda M: f(M, s.case))  # noqa: E731
            yield Transformation(f"{operand} {what}", {name: changed})
