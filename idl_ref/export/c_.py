"""Export to C99: one header and one source, without malloc, bounded in memory and in iterations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import idl_ref
from idl_ref.export.c_text import HEADER, NORM, PICARD, PRODUCT, SOURCE, SWEEP
from idl_ref.export.plan import Plan

REAL = {"float32": "float", "float64": "double"}
LANES = 8  # rows are filled up to a multiple of this, so that compilers find vectors in the loops


def write(plan: Plan, directory: Path) -> list[Path]:
    """idl_model.h and idl_model.c."""
    files = [directory / "idl_model.h", directory / "idl_model.c"]
    for path, text in zip(files, (header(plan), source(plan)), strict=True):
        path.write_text(text, encoding="ascii")
    return files


def filled(size: int) -> int:
    """`size`, filled up to a multiple of LANES, at least one."""
    return max(1, -(-size // LANES)) * LANES


def header(plan: Plan) -> str:
    """The text of idl_model.h."""
    n, p, q = plan.sizes
    known = np.isfinite(plan.error_bound)
    fields, size = arena(plan), plan.dtype.itemsize
    return HEADER.format(
        and_D="" if plan.D is None else " + D U",
        and_b="" if plan.b is None else " + b",
        activation=plan.activation,
        version=idl_ref.__version__,
        sweep=", one sweep over a triangle" if plan.triangle else "",
        error=";\n * its outputs are then within IDL_ERROR_BOUND of the exact ones" if known else "",
        p=p,
        q=q,
        n=n,
        iterations=1 if plan.triangle else plan.iterations,
        low=plan.low,
        high=plan.high,
        error_bound=f"#define IDL_ERROR_BOUND {plan.error_bound:.3e}\n" if known else "",
        arena_bytes=size * sum(fields.values()),
        weight_bytes=size * sum(len(values) for values in weights(plan).values()),
        arena=", ".join(f"{name}[{length}]" for name, length in fields.items()),
        raw="" if plan.preprocessing is None else ", not yet standardised",
        real=REAL[plan.dtype.name],
    )


def arena(plan: Plan) -> dict[str, int]:
    """The vectors it works in, and their lengths."""
    n, p, q = plan.sizes
    fields = {"u": p, "z": filled(n), "x": filled(n), "y": filled(q)}
    if plan.triangle is None:
        fields["g"] = filled(n)
    if len(plan.factors) == 2:
        fields["t"] = filled(plan.factors[0].shape[1])
    return fields


def weights(plan: Plan) -> dict[str, np.ndarray]:
    """Every constant array, flat, as it is stored."""
    result = {"B": stored(plan.B), "C": stored(plan.C)}
    if plan.D is not None:
        result["D"] = stored(plan.D)
    for name, vector in (("b", plan.b), ("d", plan.d)):
        if vector is not None:
            result[name] = stored(vector[:, None])
    if len(plan.factors) == 2:
        return {"L": stored(plan.factors[0]), "R": stored(plan.factors[1]), **result}
    (A,) = plan.factors
    if plan.triangle is None:
        return {"A": stored(A), **result}
    n = len(A)
    rows = [A[i, i + 1 :] for i in range(n - 1, -1, -1)] if plan.triangle == "upper" else [A[i, :i] for i in range(n)]
    return {"A": np.concatenate([*rows, np.zeros(int(n == 1), A.dtype)]), **result}


def stored(W: np.ndarray) -> np.ndarray:
    """Column by column, each filled up with zeros."""
    rows, columns = W.shape
    result = np.zeros((columns, filled(rows)), W.dtype)
    result[:, :rows] = W.T
    return result.ravel()


def source(plan: Plan) -> str:
    """The text of idl_model.c."""
    n, _, q = plan.sizes
    pre, formula = plan.preprocessing, plan.formula
    sizes = {"N": filled(n), "Q": filled(q), "lanes": LANES}

    def literal(value: float) -> str:
        return number(value, plan.dtype)

    D = f"        add_product(D, {sizes['Q']}, IDL_INPUTS, a->u, a->y);\n"
    return SOURCE.format(
        **sizes,
        version=idl_ref.__version__,
        includes="#include <math.h>\n" if formula.libm else "",
        weights="".join(array(name, values) for name, values in weights(plan).items()),
        phi=formula.c.replace("{f}", "f" if plan.dtype == np.float32 else ""),
        vectors=PRODUCT + ("" if plan.triangle else NORM.format(**sizes, states=n)),
        solve=_sweep(plan) if plan.triangle else _picard(plan),
        input="U[i]" if pre is None else f"(U[i] - {literal(pre.mean)}) / {literal(pre.scale)}",
        b="0" if plan.b is None else "b[i]",
        d="0" if plan.d is None else "d[i]",
        D="" if plan.D is None else D,
    )


def _picard(plan: Plan) -> str:
    n = plan.sizes[0]
    indent = " " * 12
    product = f"{indent}add_product(A, {filled(n)}, IDL_STATES, a->x, a->g);\n"
    if len(plan.factors) == 2:
        r = plan.factors[0].shape[1]
        product = (
            f"{indent}for (i = 0; i < {filled(r)}; i++)\n{indent}    a->t[i] = 0;\n"
            f"{indent}add_product(R, {filled(r)}, IDL_STATES, a->x, a->t);\n"
            f"{indent}add_product(L, {filled(n)}, {r}, a->t, a->g);\n"
        )
    return PICARD.format(
        N=filled(n),
        product=product,
        tol=number(plan.tol, plan.dtype),
        eps=number(4 * float(np.finfo(plan.dtype).eps), plan.dtype),
        scale=_scale(plan),
    )


def _scale(plan: Plan) -> str:
    """What tol is relative to, as an expression: ‖z‖, or φ(0) where that is larger."""
    if plan.formula.at_zero == 0:
        return "z_norm"
    zero = number(plan.formula.at_zero, plan.dtype)
    return f"z_norm < {zero} ? {zero} : z_norm"


def _sweep(plan: Plan) -> str:
    if plan.triangle == "upper":
        return SWEEP.format(loop="i = IDL_STATES; i-- > 0;", inner="j = i + 1; j < IDL_STATES; j++")
    return SWEEP.format(loop="i = 0; i < IDL_STATES; i++", inner="j = 0; j < i; j++")


def array(name: str, values: np.ndarray) -> str:
    """A constant array, eight numbers a line."""
    texts = [number(value, values.dtype) for value in values.tolist()]
    lines = [", ".join(texts[i : i + 8]) for i in range(0, len(texts), 8)]
    return f"static const real {name}[{len(texts)}] = {{\n    " + ",\n    ".join(lines) + "};\n"


def number(value: float, dtype: np.dtype) -> str:
    """A number exactly, in hexadecimal, as a constant of C99."""
    mantissa, _, exponent = float(dtype.type(value)).hex().partition("p")
    digits = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    suffix = "f" if dtype == np.float32 else ""
    return "0" if float(dtype.type(value)) == 0 else f"{digits}p{exponent}{suffix}"
