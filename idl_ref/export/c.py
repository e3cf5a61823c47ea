"""Export to C99: one header and one source, without malloc, bounded in memory and in iterations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from idl_ref._version import __version__
from idl_ref.export.plan import Plan

REAL = {"float32": "float", "float64": "double"}
LANES = 8  # columns are padded to a multiple of this length, so that compilers can vectorise the loops

# Templates for str.format: {names} are filled in, and the braces of C are doubled.
HEADER = """\
/* A trained model: {equations}, phi = {activation}.
 * Written by idl_ref {version}.
 *
 * For inputs in [IDL_LOW, IDL_HIGH] every sample takes at most IDL_MAX_ITERATIONS passes over A, a number derived
 * from the weights, the tolerance and the range.{sweep}
{error} */
#ifndef IDL_MODEL_H
#define IDL_MODEL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define IDL_INPUTS {p}
#define IDL_OUTPUTS {q}
#define IDL_STATES {n}
#define IDL_MAX_ITERATIONS {iterations}
#define IDL_LOW ({low!r})
#define IDL_HIGH ({high!r})
{error_bound}#define IDL_ARENA_BYTES {arena_bytes} /* what it writes to, besides Y and about 100 bytes of stack */
#define IDL_WEIGHT_BYTES {weight_bytes} /* constant arrays */

typedef {real} idl_real;

typedef struct {{
    idl_real {arena};
}} idl_arena;

/* U holds m samples of IDL_INPUTS numbers{raw}, one after the other; Y holds m times IDL_OUTPUTS numbers.
 * Returns the largest number of iterations that a sample took, 0 for m = 0, or -1 if a sample did not converge, because
 * it was not finite or out of range. The outputs of such a sample are not valid; those of the other samples are. */
int idl_predict(const {real} *U, size_t m, {real} *Y); /* uses one static arena, so two threads must not call it */
int idl_predict_in(idl_arena *arena, const {real} *U, size_t m, {real} *Y);

#ifdef __cplusplus
}}
#endif
#endif
"""

SOURCE = """\
/* Written by idl_ref {version}; idl_model.h says what it does. */
#include "idl_model.h"
{includes}
typedef idl_real real;
typedef char idl_arena_has_the_size_of_the_header[sizeof(idl_arena) == IDL_ARENA_BYTES ? 1 : -1];

/* Matrices are stored column by column; each column is padded with zeros to a multiple of {lanes}. */
{weights}
static real phi(real p)
{{
    return {phi};
}}
{vectors}
static int solve(idl_arena *a)
{{
{solve}}}

int idl_predict_in(idl_arena *a, const real *U, size_t m, real *Y)
{{
    int most = 0, failed = 0;
    for (; m > 0; m--, U += IDL_INPUTS, Y += IDL_OUTPUTS) {{
        int iterations, bad = 0;
        size_t i;
        for (i = 0; i < IDL_INPUTS; i++) {{
            a->u[i] = {input};
            bad |= !(a->u[i] - a->u[i] == 0); /* NaN or infinite */
        }}
        for (i = 0; i < {N}; i++)
            a->z[i] = {b};
        add_product(B, {N}, IDL_INPUTS, a->u, a->z);
        iterations = solve(a);
        for (i = 0; i < {Q}; i++)
            a->y[i] = {d};
        add_product(C, {Q}, IDL_STATES, a->x, a->y);
{D}        for (i = 0; i < IDL_OUTPUTS; i++) {{
            Y[i] = a->y[i];
            bad |= !(Y[i] - Y[i] == 0);
        }}
        failed |= bad || iterations < 0;
        most = iterations > most ? iterations : most;
    }}
    return failed ? -1 : most;
}}

int idl_predict(const real *U, size_t m, real *Y)
{{
    static idl_arena arena;
    return idl_predict_in(&arena, U, m, Y);
}}
"""

PRODUCT = """
/* y += W x, where W has the given numbers of rows and columns. */
static void add_product(const real *restrict W, size_t rows, size_t columns, const real *restrict x, real *restrict y)
{
    const size_t fours = columns - columns % 4;
    size_t i, j;
    for (j = 0; j < fours; j += 4, W += 4 * rows) {
        const real x0 = x[j], x1 = x[j + 1], x2 = x[j + 2], x3 = x[j + 3];
        for (i = 0; i < rows; i++)
            y[i] += (W[i] * x0 + W[rows + i] * x1) + (W[2 * rows + i] * x2 + W[3 * rows + i] * x3);
    }
    for (; j < columns; j++, W += rows)
        for (i = 0; i < rows; i++)
            y[i] += W[i] * x[j];
}
"""

NORM = """
/* The largest magnitude among the {states} states in v; the padding after them is 0. */
static real norm(const real *v)
{{
    real most[{lanes}] = {{0}}, result = 0;
    size_t i, l;
    for (i = 0; i < {N}; i += {lanes})
        for (l = 0; l < {lanes}; l++) {{
            const real size = v[i + l] < 0 ? -v[i + l] : v[i + l];
            most[l] = most[l] < size ? size : most[l];
        }}
    for (l = 0; l < {lanes}; l++)
        result = result < most[l] ? most[l] : result;
    return result;
}}
"""

PICARD = """\
    const real z_norm = norm(a->z), scale = {scale}, asked = {tol} * (scale < 1 ? scale : 1);
    size_t i;
    int k;
    if (!(z_norm - z_norm == 0))
        return -1;
    for (i = 0; i < {N}; i++)
        a->x[i] = 0;
    for (k = 1; k <= IDL_MAX_ITERATIONS; k++) {{
        real step, x_norm;
        for (i = 0; i < {N}; i++)
            a->g[i] = a->z[i];
        if (k > 1) {{
{product}        }}
        for (i = 0; i < IDL_STATES; i++) {{
            const real x = phi(a->g[i]);
            a->g[i] = x - a->x[i];
            a->x[i] = x;
        }}
        step = norm(a->g);
        x_norm = norm(a->x);
        if (step <= asked || step <= {eps} * (z_norm > x_norm ? z_norm : x_norm))
            return k;
    }}
    return -1;
"""

SWEEP = """\
    const real *row = A; /* the entries of A in its strict triangle, in the order of use */
    size_t i, j;
    for ({loop}) {{
        real p = a->z[i];
        for ({inner})
            p += *row++ * a->x[j];
        a->x[i] = phi(p);
    }}
    return 1;
"""


def write(plan: Plan, directory: Path, name: str = "idl") -> list[Path]:
    """Write NAME_model.h and NAME_model.c to a folder and return their paths; every public name begins with NAME_."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError(f"name must be small letters, digits and _, a letter first; got {name!r}: choose another.")
    files = [directory / f"{name}_model.h", directory / f"{name}_model.c"]
    for path, text in zip(files, (header(plan), source(plan)), strict=True):
        text = re.sub(r"\bidl_(?!ref\b)", f"{name}_", text).replace("IDL_", f"{name.upper()}_")
        path.write_text(text, encoding="ascii")
    return files


def filled(size: int) -> int:
    """The smallest positive multiple of LANES that is at least `size`."""
    return max(1, -(-size // LANES)) * LANES


def header(plan: Plan) -> str:
    """The text of idl_model.h."""
    n, p, q = plan.sizes
    known = np.isfinite(plan.error_bound)
    arena_bytes, weight_bytes = sizes_in_bytes(plan)
    return HEADER.format(
        equations=plan.equations("phi"),
        activation=plan.activation,
        version=__version__,
        sweep=" A pass is one sweep over the triangle of A." if plan.triangle else "",
        error=" * The outputs are within IDL_ERROR_BOUND of the exact ones.\n" if known else "",
        p=p,
        q=q,
        n=n,
        iterations=1 if plan.triangle else plan.iterations,
        low=plan.low,
        high=plan.high,
        error_bound=f"#define IDL_ERROR_BOUND {plan.error_bound:.3e}\n" if known else "",
        arena_bytes=arena_bytes,
        weight_bytes=weight_bytes,
        arena=", ".join(f"{name}[{length}]" for name, length in arena(plan).items()),
        raw="" if plan.preprocessing is None else ", not yet standardised",
        real=REAL[plan.dtype.name],
    )


def arena(plan: Plan) -> dict[str, int]:
    """The names and lengths of the vectors that the C code works in."""
    n, p, q = plan.sizes
    fields = {"u": p, "z": filled(n), "x": filled(n), "y": filled(q)}
    if plan.triangle is None:
        fields["g"] = filled(n)
    if len(plan.factors) == 2:
        fields["t"] = filled(plan.factors[0].shape[1])
    return fields


def weights(plan: Plan) -> dict[str, np.ndarray]:
    """Every constant array as it is stored, flat: R is transposed; of a triangular A only the triangle is stored."""
    if plan.triangle is None:
        return {name: stored(W.T if name == "R" else W) for name, W in plan.weights.items()}
    (A,) = plan.factors
    n = len(A)
    rows = [A[i, i + 1 :] for i in range(n - 1, -1, -1)] if plan.triangle == "upper" else [A[i, :i] for i in range(n)]
    triangle = np.concatenate([*rows, np.zeros(int(n == 1), A.dtype)])  # an array of C has at least one entry
    return {name: triangle if name == "A" else stored(W) for name, W in plan.weights.items()}


def stored(W: np.ndarray) -> np.ndarray:
    """W column by column, each padded with zeros to a multiple of LANES."""
    return np.pad(np.atleast_2d(W.T), ((0, 0), (0, filled(len(W)) - len(W)))).ravel()


def sizes_in_bytes(plan: Plan) -> tuple[int, int]:
    """The size of the arena and the size of the weights."""
    size = plan.dtype.itemsize
    return size * sum(arena(plan).values()), size * sum(values.size for values in weights(plan).values())


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
        version=__version__,
        includes="#include <math.h>\n" if formula.libm else "",
        weights="".join(array(name, values) for name, values in weights(plan).items()),
        phi=formula.c.replace("{f}", "f" if plan.dtype == np.float32 else ""),
        vectors=PRODUCT + ("" if plan.triangle else NORM.format(**sizes, states=n)),
        solve=_sweep(plan) if plan.triangle else _picard(plan),
        input="U[i]" if pre is None else f"(U[i] - {literal(float(pre.mean))}) / {literal(float(pre.scale))}",
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
    """The quantity that tol is relative to, as an expression in C: ‖z‖, or φ(0) where that is larger."""
    if plan.formula.at_zero == 0:
        return "z_norm"
    zero = number(plan.formula.at_zero, plan.dtype)
    return f"z_norm < {zero} ? {zero} : z_norm"


def _sweep(plan: Plan) -> str:
    if plan.triangle == "upper":
        return SWEEP.format(loop="i = IDL_STATES; i-- > 0;", inner="j = i + 1; j < IDL_STATES; j++")
    return SWEEP.format(loop="i = 0; i < IDL_STATES; i++", inner="j = 0; j < i; j++")


def array(name: str, values: np.ndarray) -> str:
    """The definition of a constant array in C, with eight numbers per line."""
    texts = [number(value, values.dtype) for value in values.tolist()]
    lines = [", ".join(texts[i : i + 8]) for i in range(0, len(texts), 8)]
    return f"static const real {name}[{len(texts)}] = {{\n    " + ",\n    ".join(lines) + "};\n"


def number(value: float, dtype: np.dtype) -> str:
    """A number as a hexadecimal constant of C99, which is exact."""
    mantissa, _, exponent = float(dtype.type(value)).hex().partition("p")
    digits = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    suffix = "f" if dtype == np.float32 else ""
    return "0" if float(dtype.type(value)) == 0 else f"{digits}p{exponent}{suffix}"
