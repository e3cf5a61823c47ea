"""The text of C that `c_` fills in: {names} in single braces, and those of C doubled."""

HEADER = """\
/* A trained model: Y = C X{and_D}, where X solves X = phi(A X + B U{and_b}), phi = {activation}.
 * Written by idl_ref {version}.
 *
 * For inputs in [IDL_LOW, IDL_HIGH] every sample takes at most IDL_MAX_ITERATIONS passes over A{sweep}, a number
 * derived from the weights, the tolerance and this range, and known before it runs{error}.
 */
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
{error_bound}#define IDL_ARENA_BYTES {arena_bytes} /* all it writes to, besides Y and some 100 bytes of stack */
#define IDL_WEIGHT_BYTES {weight_bytes} /* constant */

typedef {real} idl_real;

typedef struct {{
    idl_real {arena};
}} idl_arena;

/* U: m samples of IDL_INPUTS numbers{raw}, one after the other. Y: m times IDL_OUTPUTS.
 * Returns the largest number of iterations that a sample took, 0 for m = 0, or -1 if a sample did not converge: it was
 * not finite, or out of range. Its outputs are then not to be used; those of the others are. */
int idl_predict(const {real} *U, size_t m, {real} *Y); /* uses one static arena: not for two threads at once */
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

/* Matrices are stored column by column; each column is filled up with zeros to a multiple of {lanes}. */
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
/* y += W x, for a W of so many rows and columns. */
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
/* The largest magnitude among the first {states} entries of v; those behind them are 0. */
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
    const real *row = A; /* of the strictly triangular A, only what is not 0, in the order of use */
    size_t i, j;
    for ({loop}) {{
        real p = a->z[i];
        for ({inner})
            p += *row++ * a->x[j];
        a->x[i] = phi(p);
    }}
    return 1;
"""
