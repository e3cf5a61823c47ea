"""This module checks inputs where they enter the library.

Its messages have four parts: the name of the input, the rule for it, what was got, and a way out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def printable(text: Any) -> str:
    """Return text of foreign origin as one line that is safe to print, and to write into a report or into XML.

    Runs of whitespace become single spaces. Every other character that cannot be printed becomes its escape sequence:
    control characters, which a terminal would obey, marks that reverse the direction of the text, and lone surrogates,
    which no file in UTF-8 can hold.
    """
    line = " ".join(str(text).split())
    return line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class OnDevice:
    """A view of an array in the memory of a CUDA device, from any library with `__cuda_array_interface__`.

    Nothing is copied.
    """

    def __init__(self, array: Any, interface: dict[str, Any]) -> None:
        self.owner, self.__cuda_array_interface__ = array, interface
        self.shape, self.dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
        self.ndim = len(self.shape)

    @property
    def T(self) -> OnDevice:
        """Return the transpose as a view."""
        interface, width = dict(self.__cuda_array_interface__), self.dtype.itemsize
        strides = interface.get("strides") or [width * math.prod(self.shape[i + 1 :]) for i in range(self.ndim)]
        return OnDevice(self.owner, interface | {"shape": self.shape[::-1], "strides": tuple(strides)[::-1]})


def _on_device(name: str, value: Any, dtype: Any) -> Any:
    """Return an array on a device as OnDevice; its dtype is checked, not converted."""
    array = value if isinstance(value, OnDevice) else OnDevice(value, value.__cuda_array_interface__)
    if array.dtype not in FLOAT_DTYPES or array.dtype != (array.dtype if dtype is None else dtype):
        expected = "float32 or float64" if dtype is None else str(np.dtype(dtype))
        raise TypeError(
            f"{name} is on the device and must be {expected} there; got {array.dtype}: convert it on the device."
        )
    return array


def stream(value: Any) -> Any:
    """Return a stream of a CUDA device, a stream number or None, and refuse anything else."""
    number = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0
    known = hasattr(value, "__cuda_stream__") or (hasattr(value, "synchronize") and not isinstance(value, type))
    if value is None or number or known:
        return value
    raise TypeError(
        "stream must be a stream of numba.cuda, an object with __cuda_stream__, or a number as in "
        f"__cuda_array_interface__, 1 for the default stream; got {value!r}: leave it out for that one."
    )


def place(backend: str, stream: Any, *arrays: Any) -> None:
    """Refuse a stream, and arrays on a device, for a backend that computes on the host."""
    if stream is not None and backend != "cuda":
        raise ValueError(
            f'stream is for backend="cuda"; got backend={backend!r}: '
            'leave it out of SolveOptions, or pass backend="cuda".'
        )
    for array in arrays:
        if type(array) is OnDevice and backend != "cuda":
            raise ValueError(
                f'arrays on a CUDA device need backend="cuda"; got backend={backend!r}: '
                'pass backend="cuda", or copy the arrays to the host.'
            )


def real_array(name: str, value: Any, dtype: Any = None) -> Any:
    """Return `value` as an array of real numbers in `dtype`, or in its own dtype if that is None.

    An array that already has the dtype, or is on a device, is not copied.
    """
    if type(value) is np.ndarray and (value.dtype in FLOAT_DTYPES if dtype is None else value.dtype == dtype):
        return value
    if hasattr(value, "__cuda_array_interface__"):
        return _on_device(name, value, dtype)
    try:
        array = np.asarray(value)
    except ValueError as reason:
        raise ValueError(f"{name} must be a rectangular array of numbers; got {reason}.") from None
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{name} must hold real numbers of at most 64 bits; got dtype {array.dtype}: "
            "convert it first, for example with numpy.asarray(…, dtype=float)."
        )
    if dtype is None or array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):  # A number too large for float32 becomes inf, which solvers report as NONFINITE.
        return array.astype(dtype)


def float_dtype(*arrays: np.ndarray) -> np.dtype:
    """Return the dtype in which arrays are combined: float32 if no array needs more, else float64."""
    for a in arrays:
        if a.dtype.kind != "f" or a.dtype.itemsize > 4:
            return FLOAT_DTYPES[1]
    return FLOAT_DTYPES[0]


def model_dtype(value: Any) -> np.dtype:
    """Return the dtype float32 or float64 from its name, NumPy type or dtype, and refuse any other value."""
    for dtype in FLOAT_DTYPES:
        if value is not None and isinstance(value, (str, type, np.dtype)) and value in (dtype.name, dtype, dtype.type):
            return dtype
    raise ValueError(f'dtype must be "float32" or "float64"; got {value!r}.')


def samples(name: str, value: Any, letter: str, width: int, dtype: Any, rows: int | None = None) -> np.ndarray:
    """Return a batch of samples, one per row, as an array of shape (m, width); m must be `rows` if that is given."""
    array = real_array(name, value, dtype)
    if array.ndim != 2 or array.shape[1] != width:
        way_out = "samples are rows."
        if array.ndim == 1 and array.size == width:
            way_out = f"one sample is {name}.reshape(1, -1)."
        elif array.ndim > 2 and math.prod(array.shape[1:]) == width:
            way_out = f"flatten each sample, {name}.reshape(len({name}), -1)."
        elif array.ndim == 2 and array.shape[0] == width:
            way_out = f"samples are rows, so {name}.T may be what was meant."
        raise ValueError(f"{name} must have shape (m, {letter}) with {letter} = {width}; got {array.shape}: {way_out}")
    if rows is not None and len(array) != rows:
        raise ValueError(f"{name} must have shape {(rows, width)}, one row per sample; got {array.shape}.")
    return array


def shape(name: str, array: np.ndarray, expected: tuple[int, ...], reading: str) -> None:
    """Refuse an array whose shape is not the expected one; `reading` explains the shape in the message."""
    if array.shape != expected:
        raise ValueError(f"{name} must have shape {expected}, {reading}; got {array.shape}.")


def matrix(name: str, array: np.ndarray, reading: str) -> None:
    """Refuse an array that is not 2-D; `reading` is the required shape in letters."""
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix of shape {reading}; got {array.ndim} dimensions, {array.shape}.")


def integer(name: str, value: Any, low: int, high: int | None = None, why: str = "") -> int:
    """Return a whole number with low ≤ value ≤ high; `why` is a sentence that is added to the message."""
    rule = f"be a whole number, at least {low}" + (f" and at most {high}" if high is not None else "")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must {rule}; got {value!r}.{why and ' ' + why}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name} must {rule}; got {_shortened(int(value))}.{why and ' ' + why}")
    return int(value)


def _shortened(value: Any) -> str:
    """Return a number as text; an integer of more than a hundred digits is told by its size in bits."""
    if isinstance(value, int) and value.bit_length() > 333:
        return f"an integer with {value.bit_length()} bits"
    return repr(value)


def number(name: str, value: Any, low: float, below: float = math.inf, why: str = "") -> float:
    """Return a finite real number with low ≤ value < below; `why` is a sentence that is added to the message."""
    rule = f"be a number ≥ {low:g}" + (f" and < {below:g}" if below < math.inf else "")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must {rule}; got {value!r}.{why and ' ' + why}")
    try:
        result = float(value)
    except OverflowError:  # A Python integer may exceed every number of float64.
        result = math.copysign(math.inf, value > 0 or -1)
    if not (low <= result < below):  # The comparison is negated so that NaN is refused.
        raise ValueError(f"{name} must {rule}; got {_shortened(value)}.{why and ' ' + why}")
    return result


def flag(name: str, value: Any) -> bool:
    """Return a truth value; only True and False are accepted, not 0, 1 or strings."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}.")
    return bool(value)


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Return a word after checking that it is one of the allowed ones."""
    words = list(allowed)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} must be one of {', '.join(repr(w) for w in words)}; got {value!r}.")
    return value


def labels(name: str, value: Any, m: int, q: int) -> np.ndarray:
    """Return class labels as an integer array of shape (m,) with values in 0 … q − 1."""
    array = np.asarray(value)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be whole-number class labels; got dtype {array.dtype}: use astype(int).")
    shape(name, array, (m,), "one label per sample")
    if m and (array.min() < 0 or array.max() >= q):
        raise ValueError(
            f"{name} must be labels in 0 … {q - 1}, because the model has {q} outputs; "
            f"got {array.min()} … {array.max()}: raise output_dim, or renumber the labels."
        )
    return array
