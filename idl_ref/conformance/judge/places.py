"""Every quantity of a computation changed by every simple operation: multiplied, shifted, reversed, partly zero."""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.judge.transformations import Change, Transformation
from idl_ref.conformance.truth.problem import Case

Operation = Callable[[np.ndarray], np.ndarray]

# Steps by name. The first factor stands for A where A = L Rᵀ; the right Y, with X in place of it, and so on.
STEPS: dict[str, tuple[str, ...]] = {
    "A": ("F",), "A in the adjoint": ("Ft",), "B": ("B",), "C": ("C",), "D": ("D",), "U": ("U",), "G_Y": ("G_Y",),
    "B U": ("Z",), "X for the gradients": ("Xb",), "φ′": ("S",), "Cᵀ G_Y": ("G",), "V": ("V",),
    "B U and Cᵀ G_Y": ("Z", "G"),
}  # fmt: skip
TERMS: dict[str, Change] = {
    "X in the readout": lambda s: (s.C, s.Xf), "U in the readout": lambda s: (s.D, s.U),
}  # fmt: skip
PRODUCTS: dict[str, tuple[str, Change]] = {
    "V in ∂B": ("dB", lambda s: (s.V, s.U)), "U in ∂B": ("dB", lambda s: (s.U, s.V)),
    "G_Y in ∂C": ("dC", lambda s: (s.G_Y, s.Xb)), "G_Y in ∂D": ("dD", lambda s: (s.G_Y, s.U)),
    "U in ∂D": ("dD", lambda s: (s.U, s.G_Y)), "X in ∂C": ("dC", lambda s: (s.Xb, s.G_Y)),
}  # fmt: skip


def _zero(M: np.ndarray, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
    M = M.copy()
    M[rows, columns] = 0
    return M


def _mean(M: np.ndarray, axis: int) -> np.ndarray:
    """The mean along an axis, 0 for no entries."""
    mean: np.ndarray = M.sum(axis=axis, keepdims=True) / max(M.shape[axis], 1)
    return mean


FIRST, LAST = slice(0, 1), slice(-1, None)
OPERATIONS: dict[str, Operation] = {
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
    "replaced by the mean of its columns": lambda M: _mean(M, 1) + 0 * M,
    "replaced by the mean of its rows": lambda M: _mean(M, 0) + 0 * M,
    "divided by the norm of each column": lambda M: M / np.maximum(np.linalg.norm(M, axis=0), 1e-300),
    "divided by its largest entry": lambda M: M / max(np.abs(M).max(initial=0.0), 1e-300),
    "less the mean of each row": lambda M: M - _mean(M, 1),
    "less the mean of each column": lambda M: M - _mean(M, 0),
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
    """Every step, and every operand of the readout and of the gradients, changed by every operation and factor."""
    changes: dict[str, Callable[[np.ndarray, Case], np.ndarray]] = {
        **{f"multiplied by {text}": (lambda M, case, f=f: f(case) * M) for text, f in FACTORS.items()},
        **{text: (lambda M, case, f=f: f(M)) for text, f in OPERATIONS.items()},
    }
    for what, change in changes.items():
        for step, names in STEPS.items():
            yield Transformation(f"{step} {what}", _all(names, change))
        for term, operands in TERMS.items():
            yield Transformation(f"{term} {what}", {"Y": lambda s, o=operands, f=change: _readout(s, o(s), f)})
        for operand, (name, of) in PRODUCTS.items():
            yield Transformation(f"{operand} {what}", {name: lambda s, o=of, f=change, n=name: _outer(s, n, o(s), f)})


Operands = tuple[np.ndarray | None, np.ndarray]


def _readout(s: Steps, operands: Operands, change: Callable[[np.ndarray, Case], np.ndarray]) -> np.ndarray:
    M, of = operands
    Y: np.ndarray = s.right("Y")
    return Y if M is None else Y + M @ (change(of, s.case) - of)


def _outer(s: Steps, name: str, operands: Operands, change: Callable[[np.ndarray, Case], np.ndarray]) -> np.ndarray:
    """A gradient whose first operand is changed; it is transposed where that is the one on the right."""
    M, other = operands
    assert M is not None
    G: np.ndarray = change(M, s.case) @ other.T
    return G if M is (s.V if name == "dB" else s.G_Y) else G.T
