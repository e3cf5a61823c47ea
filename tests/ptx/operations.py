"""The arithmetic instructions of PTX as functions of NumPy arrays with an entry per thread.

The operands have the types of the instruction. A float32 fma is computed in float64 and then rounded: this double
rounding changes the last bit in rare cases. A float64 fma is computed in long double. Approximate instructions, such as
ex2.approx, are computed to full precision: results differ from those of a GPU by the error of its approximation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptx.program import PTXError

Array = Any
TYPES: dict[str, Any] = {
    "pred": np.bool_, "f32": np.float32, "f64": np.float64,
    **{f"{sign}{bits}": np.dtype(f"{'i' if sign == 's' else 'u'}{bits // 8}").type
       for sign in "sub" for bits in (8, 16, 32, 64)},
}  # fmt: skip


def wide(a: Array) -> Array:
    """Convert to the wider type in which products are computed before they are rounded."""
    return a.astype(np.float64 if a.dtype == np.float32 else np.longdouble)


def rounded(exact: Array, parts: tuple[str, ...], dtype: Any) -> Array:
    """Round `exact` to a type as an instruction asks: rn to the nearest number, rm downwards, rz towards zero."""
    value = exact.astype(dtype)
    if "rm" in parts:
        return np.where(value > exact, np.nextafter(value, dtype(-np.inf)), value)
    if "rz" in parts:
        return np.where(np.abs(value) > np.abs(exact), np.nextafter(value, dtype(0)), value)
    return value


def arithmetic(parts: tuple[str, ...]) -> Callable[..., Array]:
    """Return the function of an instruction whose operands and result all have the same type."""
    name, kind = parts[0], parts[-1]
    dtype, real = TYPES[kind], kind[0] == "f"
    if real and name in ("add", "sub", "mul", "fma") and ("rm" in parts or "rz" in parts):
        exact = {"add": lambda a, b: wide(a) + wide(b), "sub": lambda a, b: wide(a) - wide(b)}
        exact |= {"mul": lambda a, b: wide(a) * wide(b), "fma": lambda a, b, c: wide(a) * wide(b) + wide(c)}
        return lambda *operands: rounded(exact[name](*operands), parts, dtype)
    if name == "fma":
        return lambda a, b, c: (wide(a) * b + c).astype(dtype)  # b and c are converted without rounding
    if name == "div" and not real:
        return lambda a, b: _quotient(a, b)
    table: dict[str, Callable[..., Array]] = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "mad": lambda a, b, c: a * b + c,
        "div": np.divide, "rem": lambda a, b: a - _quotient(a, b) * b,
        "min": np.fmin if real else np.minimum, "max": np.fmax if real else np.maximum,
        "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
        "not": np.logical_not if kind == "pred" else np.bitwise_not,
        "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "copysign": lambda a, b: np.copysign(b, a),
        "rcp": lambda a: dtype(1) / a, "rsqrt": lambda a: dtype(1) / np.sqrt(a),
        "ex2": np.exp2, "lg2": np.log2, "tanh": np.tanh, "sin": np.sin, "cos": np.cos,
    }  # fmt: skip
    if name not in table:
        raise PTXError(f"not supported by the interpreter: {'.'.join(parts)}")
    return table[name]


def _quotient(a: Array, b: Array) -> Array:
    """Return a / b of integers, rounded towards zero."""
    b = np.where(b == 0, np.ones_like(b), b)  # A zero can be in threads that do not execute the instruction.
    quotient = np.abs(a) // np.abs(b) if a.dtype.kind == "i" else a // b
    return np.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype)


def high(kind: str) -> Callable[[Array, Array], Array]:
    """Return the function of mul.hi, the upper half of the product of two 64-bit integers."""
    if kind not in ("s64", "u64"):
        raise PTXError(f"not supported by the interpreter: mul.hi.{kind}")

    def function(a: Array, b: Array) -> Array:
        products = [int(x) * int(y) >> 64 for x, y in np.broadcast(a, b)]
        return np.array(products, TYPES[kind])

    return function


def shift(parts: tuple[str, ...]) -> Callable[[Array, Array], Array]:
    """Return the function of shl or shr. A shift by the width of the type or more gives 0, for signed shr the sign."""
    dtype = TYPES[parts[-1]]
    bits = np.dtype(dtype).itemsize * 8

    def function(a: Array, by: Array) -> Array:
        amount = np.minimum(by, bits).astype(dtype)  # NumPy, too, shifts everything away by the width of the type.
        return a << amount if parts[0] == "shl" else a >> amount

    return function


COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


def comparison(parts: tuple[str, ...]) -> Callable[[Array, Array], Array]:
    """Return the function of setp. For NaN, ordered comparisons (eq, lt, …) are false, unordered ones (equ, …) true."""
    name, real = parts[1], parts[-1][0] == "f"
    if name in ("num", "nan"):
        return lambda a, b: (np.isnan(a) | np.isnan(b)) == (name == "nan")
    unordered = real and len(name) == 3
    function = COMPARISONS[UNSIGNED.get(name, name[:2])]
    if not real or (not unordered and name != "ne"):  # In NumPy, too, NaN is less than nothing, and equal to nothing.
        return function
    return lambda a, b: np.where(np.isnan(a) | np.isnan(b), unordered, function(a, b))


def conversion(parts: tuple[str, ...]) -> Callable[[Array], Array]:
    """Return the function of cvt, with its rounding to integers. Conversions from real to integer types saturate."""
    target, source = parts[-2], parts[-1]
    dtype = TYPES[target]
    to_whole = next((f for p, f in (("rni", np.rint), ("rmi", np.floor), ("rpi", np.ceil)) if p in parts), np.trunc)

    def function(a: Array) -> Array:
        if source[0] == "f" and target[0] != "f":
            limits = np.iinfo(dtype)
            whole = np.clip(np.nan_to_num(to_whole(a)).astype(np.longdouble), limits.min, limits.max)
            return whole.astype(dtype)
        if source == target and any(part in parts for part in ("rni", "rmi", "rpi", "rzi")):
            a = to_whole(a)
        value = np.asarray(a).astype(dtype)
        return np.where(np.isnan(value), dtype(0), np.clip(value, 0, 1)).astype(dtype) if "sat" in parts else value

    return function
