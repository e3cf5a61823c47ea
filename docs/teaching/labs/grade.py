"""Which bugs have you fixed? Every lab against the library: outputs, states and gradients; relu and tanh; dense and low
rank; and a batch in which one sample is slow.

Run, from the root of the project: python docs/teaching/labs/grade.py
"""

import importlib
from types import SimpleNamespace

import numpy as np

import idl_ref
from idl_ref import gradients

LABS = ("lab1", "lab2", "lab3", "lab4", "lab5")
CASES = {  # activation, low rank, slow
    "dense, relu": ("relu", False, False),
    "dense, tanh": ("tanh", False, False),
    "low rank, relu": ("relu", True, False),
    "low rank, tanh": ("tanh", True, False),
    "one slow sample": ("relu", False, True),
}
ALLOWED = 1e-6  # relative to the largest entry of an answer; what the labs' tolerances explain is below half of it


def problem(activation, low_rank, slow):
    """The equations of a small model, in columns."""
    rng = np.random.default_rng(3)
    n, m = 10, 400 if slow else 20
    A = rng.random((n, n)) if slow else rng.standard_normal((n, n))
    A *= 0.97 / np.abs(A).sum(axis=1, keepdims=True)
    L, R = rng.standard_normal((2, n, 3)) / 8
    U = rng.standard_normal((4, m))
    if slow:
        U[:, 1:] = 0  # all the others are at their equilibrium from the start
    return SimpleNamespace(
        A=None if low_rank else A, L=L if low_rank else None, R=R if low_rank else None, U=U, activation=activation,
        B=np.abs(rng.standard_normal((n, 4))), C=rng.standard_normal((3, n)), D=rng.standard_normal((3, 4)),
        tol=1e-6 if slow else 1e-12, max_iter=10_000,
    )  # fmt: skip


def truth(P, G_Y):
    """What `forward` and `vjp` must give, by the library, solved to rounding."""
    options = idl_ref.SolveOptions(tol=0, max_iter=100_000)
    weights = gradients.Weights((P.A,) if P.L is None else (P.L, P.R.T), P.B, P.C, P.D)
    forward = gradients.forward_pass(weights, P.activation, P.U, None, options, "numpy")
    backward = gradients.backward_pass(forward, G_Y, options, "numpy")
    found = {"Y": forward.Y, "X": forward.solution.X, "B": backward.B, "C": backward.C, "D": backward.D}
    found["U"] = gradients.input_gradient(weights, backward.solution.X, G_Y)
    if P.L is None:
        return found | {"A": backward.factors[0]}
    return found | {"L": backward.factors[0], "R": backward.factors[1].T}


def errors(backend):
    """(case, name of the answer) -> error, relative to the largest entry of that answer."""
    found = {}
    for case, settings in CASES.items():
        P = problem(*settings)
        G_Y = np.random.default_rng(4).standard_normal((3, P.U.shape[1]))
        answers = {**backend.forward(P), **backend.vjp(P, G_Y)}
        for name, right in truth(P, G_Y).items():
            found[case, name] = np.abs(answers[name] - right).max() / np.abs(right).max()
    return found


def verdict(backend):
    """One line: right, or what is wrong and where."""
    wrong = [(case, name) for (case, name), error in errors(backend).items() if not error <= ALLOWED]
    if not wrong:
        return "fixed"
    cases = [case for case in CASES if any(case == c for c, _ in wrong)]
    names = dict.fromkeys(name if name in "XY" else f"∂{name}" for _, name in wrong)
    return f"still wrong: {', '.join(names)}   ({'; '.join(cases)})"


if __name__ == "__main__":
    for lab in LABS:
        print(f"{lab}: {verdict(importlib.import_module(lab))}")
