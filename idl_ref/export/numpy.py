"""Export to NumPy: one readable file that imports only NumPy, and its arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from idl_ref._version import __version__
from idl_ref.export.plan import Plan

PICARD = '''\
def norm(X):
    """The largest magnitude in each column."""
    return np.abs(X).max(axis=0, initial=0)


def equilibrium(Z):
    """X = φ(A X + Z), by X ← φ(A X + Z) until every column moves by no more than its limit.   (n, m) -> (n, m)"""
    X, Z_norm = np.zeros_like(Z), norm(Z)
    for _ in range(ITERATIONS):
        G = phi({product} + Z)
        step, X = norm(G - X), G
        done = step <= np.maximum(TOL * np.clip(Z_norm, {at_zero}, 1), 4 * EPS * np.maximum(Z_norm, norm(X)))
        if done.all():
            return X
    raise RuntimeError(f"{{(~done).sum()}} of {{Z.shape[1]}} samples did not converge: not finite, or out of range")
'''

SWEEP = '''\
def equilibrium(Z):
    """X = φ(A X + Z), one row after the other, because A is strictly triangular.   (n, m) -> (n, m)"""
    X = np.zeros_like(Z)
    for i in {rows}:
        X[i] = phi(A[i] @ X + Z[i])
    if not np.isfinite(X).all():
        raise RuntimeError("a sample is not finite")
    return X
'''

PREDICT = '''\
def predict(U):
    """Outputs (m, {q}) for samples {takes}."""
    U = np.asarray(U)
    if U.ndim {dimensions} or U[:1].size != {p} * len(U[:1]):
        raise ValueError(f"U must be samples as rows, of {p} features each; got shape {{U.shape}}")
    U = U.reshape(len(U), {p}).astype(DTYPE).T
{preprocessing}\
    X = equilibrium(B @ U{b})
    return (C @ X{D}{d}).T
'''

FILE = '''\
"""A trained model: {equations}.

This file needs NumPy, and weights.npz beside it. predict(U) takes samples as rows and returns their outputs.
For inputs in [{low:.6g}, {high:.6g}]: {promise}.
Written by idl_ref {version}.
"""

from pathlib import Path

import numpy as np

with np.load(Path(__file__).with_name("weights.npz"), allow_pickle=False) as file:
    {names} = (file[name] for name in ({quoted}))
DTYPE = np.{dtype}
{constants}

def phi(P):
    """The activation, {activation}."""
    return {formula}


{equilibrium}

{predict}'''


def source(plan: Plan) -> str:
    """The text of predict.py."""
    _, p, q = plan.sizes
    if plan.triangle:
        equilibrium = SWEEP.format(rows="reversed(range(len(A)))" if plan.triangle == "upper" else "range(len(A))")
        constants = ""
    else:
        product = "A @ X" if len(plan.factors) == 1 else "L @ (R.T @ X)"
        equilibrium = PICARD.format(product=product, at_zero=repr(plan.formula.at_zero))
        constants = f"EPS = np.finfo(DTYPE).eps\nTOL, ITERATIONS = {plan.tol!r}, {plan.iterations}\n"
    if (pre := plan.preprocessing) is not None:
        constants += f"MEAN, SCALE = DTYPE({float(pre.mean)!r}), DTYPE({float(pre.scale)!r})\n"
    predict = PREDICT.format(
        p=p,
        q=q,
        takes=f"as rows, (m, {p})" if pre is None else f"of {p} features, flattened and standardised here",
        dimensions="!= 2" if pre is None else "< 2",
        preprocessing="" if pre is None else "    U = (U - MEAN) / SCALE\n",
        b="" if plan.b is None else " + b[:, None]",
        D="" if plan.D is None else " + D @ U",
        d="" if plan.d is None else " + d[:, None]",
    )
    return FILE.format(
        equations=plan.equations(),
        low=plan.low,
        high=plan.high,
        promise=plan.promise(),
        version=__version__,
        names=", ".join(plan.weights),
        quoted=", ".join(f'"{name}"' for name in plan.weights),
        dtype=plan.dtype.name,
        constants=constants,
        activation=plan.activation,
        formula=plan.formula.numpy,
        equilibrium=equilibrium,
        predict=predict,
    )


def write(plan: Plan, directory: Path) -> list[Path]:
    """Write predict.py and weights.npz to a folder and return their paths."""
    files = [directory / "predict.py", directory / "weights.npz"]
    files[0].write_text(source(plan), encoding="utf-8")
    np.savez(files[1], **{name: np.ascontiguousarray(W) for name, W in plan.weights.items()})  # type: ignore[arg-type]
    return files
