"""Export to NumPy: one readable file that imports only NumPy, and its arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from idl_ref._version import __version__
from idl_ref.export.plan import EVERY, FORMULAS, Number, Plan, decimal
from idl_ref.files import replace_all

PICARD = '''\
def equilibrium(Z):
    """X = φ(A X + Z), by X ← φ(A X + Z) until no entry of a column moves by more than its limit.   (n, m) -> (n, m)

    Columns that fail are NaN.
    """
    asked = TOL * np.clip(np.abs(Z).max(axis=0, initial=0), {at_zero}, 1)
    X, finite = np.zeros_like(Z), np.isfinite(Z).all(axis=0)
    done = ~finite
    for k in range(1, ITERATIONS + 1):
        G = phi({product} + Z)
        step, limit = np.abs(G - X), asked
        X = np.where(done, X, G) if done.any() else G
        if k == ITERATIONS:  # Inside the range, no step is larger after so many iterations.
            limit = np.maximum(asked, LIMIT[:, None])
        elif k % {every} == 0:  # Rounding explains a step of 4 eps times the sizes of the terms of its row.
            sizes = {sizes} + np.abs(Z)
            limit = np.maximum(asked, 4 * EPS * {terms})
        done |= (step <= limit).all(axis=0)
        if done.all():
            break
    return np.where(done & finite, X, DTYPE(np.nan))
'''

SWEEP = '''\
def equilibrium(Z):
    """X = φ(A X + Z), one row after the other, because A is strictly triangular.   (n, m) -> (n, m)

    Columns that fail are NaN.
    """
    X = np.zeros_like(Z)
    for i in {rows}:
        X[i] = {phi}(A[i] @ X + Z[i])
    return np.where(np.isfinite(Z).all(axis=0), X, DTYPE(np.nan))
'''

PHI = '''\
def {name}(P):
    """The activation, {activation}."""
    return {formula}
'''

BY_ROWS = '''\
PHI = {functions}


def phi(P):
    """The activation of each row: that of row i is PHI[KIND[i]]."""
    G = np.empty_like(P)
    for number, function in enumerate(PHI):
        G[KIND == number] = function(P[KIND == number])
    return G
'''

PREDICT = '''\
@np.errstate(over="ignore", invalid="ignore")
def predict(U):
    """Outputs (m, {q}) for samples {takes}.

    The outputs of a sample that failed, because it was not finite or out of range, are NaN.
    """
    if np.ma.is_masked(U):
        raise ValueError("U must have a value in every entry: use U.filled(value), or leave out what is masked")
    U = np.asarray(U)
    if U.ndim {dimensions} or U[:1].size != {p} * len(U[:1]):
        raise ValueError(f"U must be samples as rows, of {p} features each; got shape {{U.shape}}")
{exact}    U = {u}.T
    X = equilibrium(B @ U{b})
    Y = (C @ X{D}{d}).T
    return np.where(np.isfinite(Y).all(axis=1, keepdims=True), Y, DTYPE(np.nan))
'''

EXACT = """\
    if U.dtype.kind in "iu" and U.size and max(int(U.max()), -int(U.min())) > 2**53:
        raise ValueError("whole numbers in U must be at most 2**53, which float64 holds: subtract an offset before")
"""

FILE = '''\
"""A trained model: {equations}.

This file needs NumPy, and weights.npz beside it. predict(U) takes samples as rows and returns their outputs{labels}.
For inputs in {range}: {promise}.
Written by idl_ref {version}.
"""

from pathlib import Path

import numpy as np

with np.load(Path(__file__).with_name("weights.npz"), allow_pickle=False) as file:
    if "FINGERPRINT" not in file or file["FINGERPRINT"] != {fingerprint}:
        raise ImportError("weights.npz belongs to another export than predict.py: export the model again")
    {names} = (file[name] for name in ({quoted}))
DTYPE = np.{dtype}
{constants}

{phi}

{equilibrium}

{predict}'''


def source(plan: Plan) -> str:
    """The text of predict.py."""
    _, p, q = plan.sizes
    if plan.triangle:
        rows = "reversed(range(len(A)))" if plan.triangle == "upper" else "range(len(A))"
        equilibrium = SWEEP.format(rows=rows, phi="phi" if plan.kind is None else "PHI[KIND[i]]")
        constants = ""
    else:
        equilibrium = _picard(plan)
        constants = f"EPS, TOL, ITERATIONS = np.finfo(DTYPE).eps, {decimal(plan.tol)}, {plan.iterations}\n"
    pre = plan.preprocessing
    if pre is not None and pre.mean.ndim == 0:
        constants += f"MEAN, SCALE = {decimal(pre.mean)}, {decimal(pre.scale)}\n"
    if plan.classes is None:
        constants += "CLASSES = None\n"
    rows = f"U.reshape(len(U), {p})"
    predict = PREDICT.format(
        p=p,
        q=q,
        takes=f"as rows, (m, {p})" if pre is None else f"of {p} features, flattened and standardised here",
        dimensions="!= 2" if pre is None else "< 2",
        u=f"{rows}.astype(DTYPE)" if pre is None else f"(({rows}.astype(float) - MEAN) / SCALE).astype(DTYPE)",
        exact="" if pre is None else EXACT,
        b="" if plan.b is None else " + b[:, None]",
        D="" if plan.D is None else " + D @ U",
        d="" if plan.d is None else " + d[:, None]",
    )
    names = list(arrays(plan))
    return FILE.format(
        equations=plan.equations(),
        range=plan.inputs.text(),
        promise=plan.promise(),
        version=__version__,
        fingerprint=plan.fingerprint,
        labels="" if plan.classes is None else ", whose labels are CLASSES",
        names=", ".join(names),
        quoted=", ".join(f'"{name}"' for name in names),
        dtype=plan.dtype.name,
        constants=constants,
        phi=_phi(plan),
        equilibrium=equilibrium,
        predict=predict,
    )


def _phi(plan: Plan) -> str:
    """The definition of phi, and of a function for each kind of rows if there are several."""
    names = ["phi"] if plan.kind is None else [f"phi_{name}" for name, _ in plan.kinds]
    texts = [
        PHI.format(name=name, activation=kind, formula=FORMULAS[kind].numpy)
        for name, (kind, _) in zip(names, plan.kinds, strict=True)
    ]
    if plan.kind is not None:
        texts.append(BY_ROWS.format(functions=", ".join(names)))
    return "\n\n".join(texts)


def _number(name: str, value: Number) -> str:
    """A number as text, or the name of the array that has it for each row, as a column."""
    return f"{name}[:, None]" if isinstance(value, np.ndarray) else decimal(value)


def _picard(plan: Plan) -> str:
    zero, at_zero = decimal(plan.zero), _number("AT_ZERO", plan.formula.at_zero)
    dense = len(plan.factors) == 1
    sizes = "np.abs(A) @ np.abs(X)" if dense else "np.abs(L) @ (np.abs(R.T) @ np.abs(X))"
    terms, product = "sizes", "A @ X" if dense else "L @ (R.T @ X)"
    if np.any(plan.lipschitz != 1) or plan.zero != 0:
        terms = f"{_number('LIPSCHITZ', plan.lipschitz)} * sizes + {at_zero}"
    if plan.saturated is not None:
        terms = f"np.minimum({terms}, {_number('SATURATED', plan.saturated)})"
    elif terms != "sizes":
        terms = f"({terms})"
    return PICARD.format(product=product, at_zero=zero, sizes=sizes, terms=terms, every=EVERY)


def arrays(plan: Plan) -> dict[str, np.ndarray]:
    """The arrays of weights.npz by name."""
    own = plan.weights | plan.vectors
    return own if plan.classes is None else own | {"CLASSES": plan.classes}


def write(plan: Plan, directory: Path) -> list[Path]:
    """Write predict.py and weights.npz to a folder and return their paths."""
    weights: dict[str, Any] = {name: np.ascontiguousarray(W) for name, W in arrays(plan).items()}
    archive = io.BytesIO()
    np.savez(archive, FINGERPRINT=np.array(plan.fingerprint), **weights)
    contents = {directory / "weights.npz": archive.getvalue(), directory / "predict.py": source(plan).encode()}
    replace_all(contents)
    return [directory / "predict.py", directory / "weights.npz"]
