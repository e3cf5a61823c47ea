"""Export to C99: one header and one source, without malloc, bounded in memory and in iterations."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from idl_ref._version import __version__
from idl_ref.certificate import upward
from idl_ref.export.c_text import (
    HEADER,
    NORM,
    PHI,
    PHI_OF_ROW,
    PICARD,
    PRODUCT,
    ROW,
    SIZES,
    SOURCE,
    SPARSE_PRODUCT,
    SPARSE_SIZES,
    SWEEP,
    of_bytes,
)
from idl_ref.export.plan import EVERY, FORMULAS, ROUNDED, Number, Plan, decimal
from idl_ref.files import replace_all
from idl_ref.quantised import exactly

Arrays = dict[str, np.ndarray]
REAL = {"float32": "float", "float64": "double"}
WHOLE = {"int8": "signed char", "uint8": "unsigned char", "uint16": "uint16_t", "uint32": "uint32_t"}
LANES = 8  # columns are padded to a multiple of this length, so that compilers can vectorise the loops


def write(plan: Plan, directory: Path, name: str = "idl") -> list[Path]:
    """Write NAME_model.h and NAME_model.c to a folder and return their paths; every public name begins with NAME_."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError(f"name must be small letters, digits and _, a letter first; got {name!r}: choose another.")
    contents = {}
    for ending, text in (("h", header(plan)), ("c", source(plan))):
        text = re.sub(r"\bidl_(?!ref\b)", f"{name}_", text).replace("IDL_", f"{name.upper()}_")
        contents[directory / f"{name}_model.{ending}"] = text.encode("ascii")
    replace_all(contents)
    return list(contents)


def filled(size: int) -> int:
    """The smallest positive multiple of LANES that is at least `size`."""
    return max(1, -(-size // LANES)) * LANES


def header(plan: Plan) -> str:
    """The text of idl_model.h."""
    n, p, q = plan.sizes
    arena_bytes, weight_bytes = sizes_in_bytes(plan)
    uniform = plan.inputs.low.ndim == 0
    low, high = (decimal(end) if uniform else "" for end in (plan.inputs.low, plan.inputs.high))
    passes = f"An iteration\n * reads A once, or at most twice if its number is a multiple of {EVERY}."
    return HEADER.format(
        equations=plan.equations("phi"),
        activation=plan.activation,
        version=__version__,
        inside="For inputs in [IDL_LOW, IDL_HIGH]" if uniform else "For inputs in [idl_low[j], idl_high[j]]",
        passes="An iteration is\n * one sweep over the triangle of A." if plan.triangle else passes,
        p=p,
        q=q,
        n=n,
        iterations=plan.iterations,
        fingerprint=plan.fingerprint,
        range=f"#define IDL_LOW ({low})\n#define IDL_HIGH ({high})\n" if uniform else "",
        constants=_declarations(plan),
        error_bound=upward(plan.error_bound, 4),
        arena_bytes=arena_bytes,
        weight_bytes=weight_bytes,
        arena=", ".join(f"{name}[{length}]" for name, length in arena(plan).items()),
        raw="" if plan.preprocessing is None else ", not yet standardised",
        real=REAL[plan.dtype.name],
    )


def _declarations(plan: Plan) -> str:
    """The declarations of the constants that a caller may read."""
    lines = ["extern const double idl_low[IDL_INPUTS], idl_high[IDL_INPUTS];"] if plan.inputs.low.ndim else []
    if plan.classes is not None:
        lines.append("extern const char *const idl_classes[IDL_OUTPUTS]; /* the labels of the outputs, in UTF-8 */")
    return "".join(f"\n{line}" for line in lines) + ("\n" if lines else "")


def arena(plan: Plan) -> dict[str, int]:
    """The names and lengths of the vectors that the C code works in."""
    n, p, q = plan.sizes
    fields = {"u": p, "z": filled(n), "x": filled(n), "y": filled(q)}
    if plan.triangle is None:
        fields |= {"g": filled(n), "r": filled(n)}
    if len(plan.factors) == 2:
        fields["t"] = filled(plan.factors[0].shape[1])
    return fields


def weights(plan: Plan) -> Arrays:
    """Every constant array as it is stored, flat: R is transposed; of a triangular A only the triangle is stored.

    Of a sparse A, the entries are stored row by row. Matrices that eight bits hold without a loss are stored in them.
    """
    arrays: Arrays = {}
    for name, W in plan.weights.items():
        if name != "A" or (plan.triangle is None and not plan.is_sparse):
            arrays |= _arrays(name, W.T if name == "R" else W, stored)
    if plan.is_sparse:
        A = plan.factors[0]
        rows = A.pattern.padded(A.data)
        arrays |= _arrays("A", rows, lambda M: _some(A.pattern.unpadded(M)))
        arrays |= {
            "A_COLUMN": _some(A.indices.astype(np.min_scalar_type(len(A)))),
            "A_BEGIN": A.indptr.astype(np.uint32),
        }
    elif plan.triangle is not None:
        arrays |= _arrays("A", plan.factors[0], lambda M: _in_order_of_use(plan, M))
    return arrays | plan.vectors


def _arrays(name: str, W: np.ndarray, flat: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    """The entries of a matrix, laid out by `flat`: its own, or whole numbers and, in NAME_SCALE, those of its rows."""
    found = exactly(W)
    return {name: flat(W)} if found is None else {name: flat(found.q), f"{name}_SCALE": stored(found.scale)}


def _in_order_of_use(plan: Plan, A: np.ndarray) -> np.ndarray:
    """The entries of a triangular A in its strict triangle, row by row as a sweep takes them."""
    rows = range(len(A) - 1, -1, -1) if plan.triangle == "upper" else range(len(A))
    return _some(np.concatenate([A[i, i + 1 :] if plan.triangle == "upper" else A[i, :i] for i in rows]))


def _some(values: np.ndarray) -> np.ndarray:
    """The values, or one zero if there are none, because C has no array without entries."""
    return values if values.size else np.zeros(1, values.dtype)


def stored(W: np.ndarray) -> np.ndarray:
    """W column by column, each padded with zeros to a multiple of LANES."""
    return np.pad(np.atleast_2d(W.T), ((0, 0), (0, filled(len(W)) - len(W)))).ravel()


def sizes_in_bytes(plan: Plan) -> tuple[int, int]:
    """The size of the arena and the size of the weights."""
    arrays = weights(plan).values()
    return plan.dtype.itemsize * sum(arena(plan).values()), sum(values.nbytes for values in arrays)


def source(plan: Plan) -> str:
    """The text of idl_model.c."""
    n, _, q = plan.sizes
    sizes = {"N": filled(n), "Q": filled(q), "lanes": LANES}
    arrays = weights(plan)
    constants = [array(name, values) for name, values in arrays.items()]
    if plan.inputs.low.ndim:
        ends = {"idl_low": plan.inputs.low, "idl_high": plan.inputs.high}
        constants += [array(name, values, "const double") for name, values in ends.items()]
    if plan.classes is not None:
        labels = ", ".join(string(str(label)) for label in plan.classes.tolist())
        constants.append(f"const char *const idl_classes[IDL_OUTPUTS] = {{{labels}}};\n")
    calls = {
        "B": _call(plan, arrays, "add_product", "B", sizes["N"], "IDL_INPUTS", "a->u", "a->z"),
        "C": _call(plan, arrays, "add_product", "C", sizes["Q"], "IDL_STATES", "a->x", "a->y"),
        "D": "",
    }
    if plan.D is not None:
        call = _call(plan, arrays, "add_product", "D", sizes["Q"], "IDL_INPUTS", "a->u", "a->y")
        calls["D"] = f"            {call}\n"
    solve = _sweep(plan, arrays) if plan.triangle else _picard(plan, arrays)
    return SOURCE.format(
        **sizes,
        version=__version__,
        fingerprint=plan.fingerprint,
        includes=("#include <math.h>\n" if plan.formula.libm else "")
        + ("#include <stdint.h>\n" if plan.is_sparse else ""),
        weights="".join(constants),
        phi=_phi(plan),
        vectors=_functions(arrays, solve + "".join(calls.values()))
        + ("" if plan.triangle else NORM.format(**sizes, states=n)),
        solve=solve,
        input=_input(plan),
        b="0" if plan.b is None else "b[i]",
        d="0" if plan.d is None else "d[i]",
        **calls,
    )


def _call(plan: Plan, arrays: Arrays, function: str, name: str, rows: Any, columns: Any, x: str, y: str) -> str:
    """The statement that adds W x, or |W||x|, to y, for the matrix W of that name."""
    if name == "A" and plan.is_sparse:
        return f"{function}_of_A({x}, {y});"
    if f"{name}_SCALE" in arrays:
        return f"{function}_of_bytes({name}, {name}_SCALE, {rows}, {columns}, {x}, {y});"
    return f"{function}({name}, {rows}, {columns}, {x}, {y});"


def _functions(arrays: Arrays, calls: str) -> str:
    """The definitions of those functions that are called."""
    value = "A_SCALE[i] * A[k]" if "A_SCALE" in arrays else "A[k]"
    texts = {
        "add_product": PRODUCT,
        "add_product_of_bytes": of_bytes(PRODUCT),
        "add_sizes": SIZES,
        "add_sizes_of_bytes": of_bytes(SIZES),
        "add_product_of_A": SPARSE_PRODUCT.format(value=value),
        "add_sizes_of_A": SPARSE_SIZES.format(value=value),
    }
    return "".join(text for name, text in texts.items() if f"{name}(" in calls)


def _input(plan: Plan) -> str:
    """Input i after preprocessing, which is computed in double."""
    pre = plan.preprocessing
    if pre is None:
        return "U[i]"
    mean, scale = ("MEAN[i]", "SCALE[i]") if pre.mean.ndim else (number(v, v.dtype) for v in (pre.mean, pre.scale))
    return f"(real)(((double)U[i] - {mean}) / {scale})"


def _phi(plan: Plan) -> str:
    """The definition of phi, which has a case for each kind of rows if there are several."""
    suffix = "f" if plan.dtype == np.float32 else ""
    texts = [FORMULAS[name].c.replace("{f}", suffix) for name, _ in plan.kinds]
    if len(texts) == 1:
        return PHI.format(phi=texts[0])
    labels = [*(f"case {k}" for k in range(len(texts) - 1)), "default"]
    names = [name for name, _ in plan.kinds]
    cases = zip(labels, names, texts, strict=True)
    return PHI_OF_ROW.format(
        cases="".join(f"    {label}: /* {name} */\n        return {c};\n" for label, name, c in cases)
    )


def _row(plan: Plan) -> str:
    """The argument of phi that tells the row, if rows have different activations."""
    return "" if plan.kind is None else ", i"


def _picard(plan: Plan, arrays: Arrays) -> str:
    n, zero, eps = plan.sizes[0], plan.formula.at_zero, float(np.finfo(plan.dtype).eps)

    def literal(value: Number, name: str = "") -> str:
        return f"{name}[i]" if isinstance(value, np.ndarray) else number(value, plan.dtype)

    one = not np.any(plan.lipschitz != 1)
    terms = "a->r[i]" if one else f"{literal(plan.lipschitz, 'LIPSCHITZ')} * a->r[i]"
    cap = "" if plan.saturated is None else literal(plan.saturated, "SATURATED")
    return PICARD.format(
        N=filled(n),
        product=_product(plan, arrays, "add_product", "g", " " * 12),
        sizes=_product(plan, arrays, "add_sizes", "r", " " * 4),
        tol=literal(plan.tol),
        eps=literal(ROUNDED * eps),
        scale=_scale(plan),
        terms=terms if plan.zero == 0 else f"{terms} + {literal(zero, 'AT_ZERO')}",
        capped="terms" if plan.saturated is None else f"(terms < {cap} ? terms : {cap})",
        row=_row(plan),
        every=EVERY,
    )


def _product(plan: Plan, arrays: Arrays, function: str, result: str, indent: str) -> str:
    """Lines that add A x, or |A||x|, to a vector of the arena."""
    n = filled(plan.sizes[0])
    if len(plan.factors) == 1:
        return f"{indent}{_call(plan, arrays, function, 'A', n, 'IDL_STATES', 'a->x', f'a->{result}')}\n"
    r = plan.factors[0].shape[1]
    return (
        f"{indent}for (i = 0; i < {filled(r)}; i++)\n{indent}    a->t[i] = 0;\n"
        f"{indent}{_call(plan, arrays, function, 'R', filled(r), 'IDL_STATES', 'a->x', 'a->t')}\n"
        f"{indent}{_call(plan, arrays, function, 'L', n, r, 'a->t', f'a->{result}')}\n"
    )


def _scale(plan: Plan) -> str:
    """The quantity that tol is relative to, as an expression in C: ‖z‖, or φ(0) where that is larger."""
    if plan.zero == 0:
        return "z_norm"
    zero = number(plan.zero, plan.dtype)
    return f"z_norm < {zero} ? {zero} : z_norm"


def _sweep(plan: Plan, arrays: Arrays) -> str:
    upper, entry = plan.triangle == "upper", "*row++ * a->x[j]"
    inner = "j = i + 1; j < IDL_STATES; j++" if upper else "j = 0; j < i; j++"
    if plan.is_sparse:
        inner, entry = "j = A_BEGIN[i]; j < A_BEGIN[i + 1]; j++", "A[j] * a->x[A_COLUMN[j]]"
    whole = "A_SCALE" in arrays
    return SWEEP.format(
        row="" if plan.is_sparse else ROW.format(kind="signed char" if whole else "real"),
        loop="i = IDL_STATES; i-- > 0;" if upper else "i = 0; i < IDL_STATES; i++",
        inner=inner,
        entry=f"A_SCALE[i] * {entry}" if whole else entry,
        i=_row(plan),
    )


def array(name: str, values: np.ndarray, kind: str | None = None) -> str:
    """The definition of a constant array in C, with eight numbers per line; static unless a kind is given."""
    whole = values.dtype.name in WHOLE
    texts = [str(value) if whole else number(value, values.dtype) for value in values.tolist()]
    lines = [", ".join(texts[i : i + 8]) for i in range(0, len(texts), 8)]
    kind = kind or f"static const {(WHOLE | REAL)[values.dtype.name]}"
    return f"{kind} {name}[{len(texts)}] = {{\n    " + ",\n    ".join(lines) + "};\n"


def string(text: str) -> str:
    """A text as a constant of C in UTF-8; all but letters and digits are escaped, so that it is never read as C."""
    plain = [chr(byte) if re.fullmatch("[A-Za-z0-9]", chr(byte)) else f"\\{byte:03o}" for byte in text.encode()]
    return '"' + "".join(plain) + '"'


def number(value: Any, dtype: np.dtype) -> str:
    """A finite number as a hexadecimal constant of C99, which is exact."""
    rounded = float(dtype.type(value))
    if not math.isfinite(rounded):
        raise ValueError(f"a constant must be finite in {dtype} to be exported; got {value}.")
    mantissa, _, exponent = rounded.hex().partition("p")
    digits = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    suffix = "f" if dtype == np.float32 else ""
    return "0" if rounded == 0 else f"{digits}p{exponent}{suffix}"
