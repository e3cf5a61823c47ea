"""The text of the exported C99: templates for str.format, in which names are filled in and braces of C are doubled.

PRODUCT and SIZES are no templates, but text as it is.
"""

import re

HEADER = """\
/* A trained model: {equations}, phi = {activation}.
 * Written by idl_ref {version}.
 *
 * {inside}: every sample succeeds, within IDL_MAX_ITERATIONS iterations,
 * and its outputs are within IDL_ERROR_BOUND of the exact ones. {passes} */
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
#define IDL_FINGERPRINT {fingerprint}u /* of this model; idl_model.c must have the same */
{range}#define IDL_ERROR_BOUND {error_bound}
#define IDL_ARENA_BYTES {arena_bytes} /* what it writes to, besides Y and about 100 bytes of stack */
#define IDL_WEIGHT_BYTES {weight_bytes} /* constant arrays */

typedef {real} idl_real;

typedef struct {{
    idl_real {arena};
}} idl_arena;
{constants}
/* U holds m samples of IDL_INPUTS numbers{raw}, one after the other; Y holds m times IDL_OUTPUTS numbers.
 * Returns the largest number of iterations that a sample took, 0 for m = 0, or -1 if a sample failed, because it was
 * not finite or out of range. The outputs of such a sample are NaN; those of the other samples are valid. */
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
#if IDL_FINGERPRINT != {fingerprint}u
#error "idl_model.h belongs to another export than idl_model.c: export the model again"
#endif
{includes}
typedef idl_real real;
typedef char idl_arena_has_the_size_of_the_header[sizeof(idl_arena) == IDL_ARENA_BYTES ? 1 : -1];

/* Matrices are stored column by column; each column is padded with zeros to a multiple of {lanes}. Row i of a matrix of
 * whole numbers W is multiplied by W_SCALE[i]. */
{weights}
{phi}{vectors}{solve}
static real not_a_number(void)
{{
    const volatile real zero = 0;
    return zero / zero;
}}

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
        {B}
        for (i = 0; i < IDL_STATES; i++)
            bad |= !(a->z[i] - a->z[i] == 0);
        iterations = bad ? -1 : solve(a);
        if (iterations >= 0) {{
            for (i = 0; i < {Q}; i++)
                a->y[i] = {d};
            {C}
{D}            for (i = 0; i < IDL_OUTPUTS; i++)
                bad |= !(a->y[i] - a->y[i] == 0);
        }}
        bad |= iterations < 0;
        for (i = 0; i < IDL_OUTPUTS; i++)
            Y[i] = bad ? not_a_number() : a->y[i];
        failed |= bad;
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

PHI = """\
static real phi(real p)
{{
    return {phi};
}}
"""

PHI_OF_ROW = """\
/* The activation of row i, which is that of number KIND[i]. */
static real phi(real p, size_t i)
{{
    switch (KIND[i]) {{
{cases}    }}
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

SIZES = """
/* y += |W| |x| */
static void add_sizes(const real *restrict W, size_t rows, size_t columns, const real *restrict x, real *restrict y)
{
    size_t i, j;
    for (j = 0; j < columns; j++, W += rows)
        for (i = 0; i < rows; i++) {
            const real term = W[i] * x[j], other = -term;
            y[i] += term < other ? other : term; /* the maximum, which needs no branch */
        }
}
"""

PICARD = """
/* Whether no state moved by more than rounding explains: by 4 eps times the sizes of the terms that are added up in its
 * own row. The moves are in g, and the terms are added up in r. */
static int rounded(idl_arena *a, real asked)
{{
    size_t i;
    for (i = 0; i < {N}; i++)
        a->r[i] = a->z[i] < 0 ? -a->z[i] : a->z[i];
{sizes}    for (i = 0; i < IDL_STATES; i++) {{
        const real move = a->g[i] < 0 ? -a->g[i] : a->g[i], terms = {terms};
        const real limit = {eps} * {capped};
        if (!(move <= (limit < asked ? asked : limit)))
            return 0;
    }}
    return 1;
}}

static int solve(idl_arena *a)
{{
    const real z_norm = norm(a->z), scale = {scale}, asked = {tol} * (scale < 1 ? scale : 1);
    size_t i;
    int k;
    for (i = 0; i < {N}; i++)
        a->x[i] = 0;
    for (k = 1;; k++) {{
        for (i = 0; i < {N}; i++)
            a->g[i] = a->z[i];
        if (k > 1) {{
{product}        }}
        for (i = 0; i < IDL_STATES; i++) {{
            const real x = phi(a->g[i]{row});
            a->g[i] = x - a->x[i];
            a->x[i] = x;
        }}
        if (norm(a->g) <= asked || (k % {every} == 0 && rounded(a, asked)))
            return k;
        if (k == IDL_MAX_ITERATIONS)
            break;
    }}
    for (i = 0; i < IDL_STATES; i++) {{
        const real move = a->g[i] < 0 ? -a->g[i] : a->g[i];
        if (!(move <= LIMIT[i]))
            return -1; /* Inside the range, no move is larger after so many iterations. */
    }}
    return k;
}}
"""

ROW = "    const {kind} *row = A; /* the entries of A in its strict triangle, in the order of use */\n"

SWEEP = """
static int solve(idl_arena *a)
{{
{row}    size_t i, j;
    for ({loop}) {{
        real p = a->z[i];
        for ({inner})
            p += {entry};
        a->x[i] = phi(p{i});
    }}
    return 1;
}}
"""

SPARSE_PRODUCT = """
/* y += A x; row i of A has the entries A_BEGIN[i] to A_BEGIN[i + 1] - 1, in the columns A_COLUMN. */
static void add_product_of_A(const real *restrict x, real *restrict y)
{{
    size_t i, k;
    for (i = 0; i < IDL_STATES; i++) {{
        real sum = 0;
        for (k = A_BEGIN[i]; k < A_BEGIN[i + 1]; k++)
            sum += {value} * x[A_COLUMN[k]];
        y[i] += sum;
    }}
}}
"""

SPARSE_SIZES = """
/* y += |A| |x| */
static void add_sizes_of_A(const real *restrict x, real *restrict y)
{{
    size_t i, k;
    for (i = 0; i < IDL_STATES; i++) {{
        real sum = 0;
        for (k = A_BEGIN[i]; k < A_BEGIN[i + 1]; k++) {{
            const real term = {value} * x[A_COLUMN[k]];
            sum += term < 0 ? -term : term;
        }}
        y[i] += sum;
    }}
}}
"""


def of_bytes(text: str) -> str:
    """PRODUCT or SIZES for whole numbers in eight bits with a scale for each row, whose products are exact."""
    text = text.replace(
        "(const real *restrict W,", "_of_bytes(const signed char *restrict W, const real *restrict scale,"
    )
    return re.sub(r"\bW\[", "scale[i] * W[", text)
