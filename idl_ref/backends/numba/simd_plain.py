"""The vocabulary of `simd` in NumPy: a vector is an array of LANES numbers, a mask one of LANES truth values.

With NUMBA_DISABLE_JIT=1 the compiled twin is plain Python over these functions, so that a debugger can enter its
kernels and coverage sees their lines. A load or store outside of its array fails here. `fma` is two roundings, as on a
processor without such an instruction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

VECTOR_BYTES, GROUP = 16, 4
INTEGERS = {4: np.uint32, 8: np.uint64}  # by the bytes of a number

Array = np.ndarray


def separate() -> None:
    """Nothing: only a compiler can inline a function."""


def lanes(like: Array) -> int:
    """How many numbers of the dtype of an array or a vector a vector holds."""
    return VECTOR_BYTES // like.dtype.itemsize


def address(array: Array) -> int:
    """Where `array` begins in memory, in bytes."""
    return array.ctypes.data


def load(array: Array, offset: int) -> Array:
    """array[offset : offset + LANES]"""
    assert 0 <= offset <= len(array) - lanes(array)
    return array[offset : offset + lanes(array)].copy()


def load_some(array: Array, offset: int, count: int) -> Array:
    """array[offset : offset + count], and 0 in the lanes from `count` on, whose memory is not read."""
    assert 0 <= offset <= len(array) - count <= len(array)
    vector = np.zeros(lanes(array), array.dtype)
    vector[:count] = array[offset : offset + count]
    return vector


def load_wide(array: Array, offset: int) -> Array:
    """array[offset : offset + LANES] in float64, for the LANES of that."""
    count = VECTOR_BYTES // 8
    assert 0 <= offset <= len(array) - count
    return array[offset : offset + count].astype(np.float64)


def fresh(array: Array) -> int:
    """array[0] of an array of int64, which another thread may change."""
    return int(array[0])


def store(array: Array, offset: int, value: Array) -> None:
    """array[offset : offset + LANES] = value, which is rounded if the dtype of the array is narrower."""
    assert 0 <= offset <= len(array) - len(value)
    array[offset : offset + len(value)] = value


def store_some(array: Array, offset: int, value: Array, count: int) -> None:
    """array[offset : offset + count] = the first `count` lanes of `value`; no other memory is written."""
    assert 0 <= offset <= len(array) - count <= len(array)
    array[offset : offset + count] = value[:count]


def transpose(source: Array, first: int, apart: int, target: Array, place: int, between: int) -> None:
    """A square of LANES × LANES: target[place + between k + l] = source[first + apart l + k]."""
    square = np.stack([load(source, first + apart * lane) for lane in range(lanes(source))])
    for lane, row in enumerate(square.T):
        store(target, place + between * lane, row)


def splat(like: Array, value: float) -> Array:
    """`value`, cast to the dtype of an array or a vector, in every lane."""
    return np.full(lanes(like), value, like.dtype)


def broadcast(array: Array, offset: int) -> Array:
    """array[offset] in every lane."""
    assert 0 <= offset < len(array)
    return np.full(lanes(array), array[offset])


def add(a: Array, b: Array) -> Array:
    """a + b"""
    return a + b


def subtract(a: Array, b: Array) -> Array:
    """a − b"""
    return a - b


def multiply(a: Array, b: Array) -> Array:
    """a b"""
    return a * b


def divide(a: Array, b: Array) -> Array:
    """a / b"""
    return a / b


def fma(a: Array, b: Array, c: Array) -> Array:
    """a b + c, rounded twice."""
    return a * b + c


def negate(a: Array) -> Array:
    """−a"""
    return -a


def magnitude(a: Array) -> Array:
    """|a|"""
    return np.abs(a)


def larger(a: Array, b: Array) -> Array:
    """max(a, b) of two magnitudes: their bits, as integers, are in the same order, inf and NaN on top."""
    return np.where(_bits(a) > _bits(b), a, b)


def below(a: Array, b: Array) -> Array:
    """Where a < b; false where a or b is NaN."""
    return a < b


def at_most(a: Array, b: Array) -> Array:
    """Where a ≤ b; false where a or b is NaN."""
    return a <= b


def select(mask: Array, a: Array, b: Array) -> Array:
    """a where `mask` is true, b elsewhere."""
    return np.where(mask, a, b)


def _bits(a: Array) -> Array:
    return a.view(INTEGERS[a.itemsize])


def add_to_bits(a: Array, count: int) -> Array:
    """`count` is added to the bits of a, taken as integers."""
    bits = _bits(a)
    return (bits + bits.dtype.type(count)).view(a.dtype)


def shift_bits(a: Array, count: int) -> Array:
    """The bits of a move up by `count` places."""
    bits = _bits(a)
    return (bits << bits.dtype.type(count)).view(a.dtype)


def first(a: Array) -> Any:
    """The number in the first lane."""
    return a[0]


def down(a: Array, count: int) -> Array:
    """The number of lane i + count in lane i; the last lanes keep the number of the last one."""
    return a[np.minimum(np.arange(len(a)) + count, len(a) - 1)]


def halves(a: Array, b: Array, parts: int, upper: int) -> Array:
    """The lower halves of all parts of a, and then of b, side by side, or the upper ones."""
    return np.concatenate([a, b]).reshape(2 * parts, 2, -1)[:, upper].reshape(-1)
