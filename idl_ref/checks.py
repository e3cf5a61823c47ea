"""Checks at the boundary. Every message about an input is built here: name, rule, what was got, way out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class OnDevice:
    """An array of any library in the memory of a CUDA device, by its `__cuda_array_interface__`; nothing is copied."""

    def __init__(self, array: Any, interface: dict[str, Any]) -> None:
        self.owner, self.__cuda_array_interface__ = array, interface
        self.shape, self.dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
        self.ndim = len(self.shape)

    @property
    def T(self) -> OnDevice:
        """The transpose, as a view."""
        interface, width = dict(self.__cuda_array_interface__), self.dtype.itemsize
        strides = interface.get("strides") or [width * math.prod(self.shape[i + 1 :]) for i in range(self.ndim)]
        return OnDevice(self.owner, interface | {"shape": self.shape[::-1], "strides": tuple(strides)[::-1]})


def _on_device(name: str, value: Any, dtype: Any) -> Any:
    array = value if isinstance(value, OnDevice) else OnDevice(value, value.__cuda_array_interface__)
    if array.dtype not in FLOAT_DTYPES or array.dtype != (array.dtype if dtype is None else dtype):
        expected = "float32 or float64" if dtype is None else str(np.dtype(dtype))
        raise TypeError(f"{name} is on the device and must be {expected} there; got {array.dtype}: convert it there.")
    return array


def stream(value: Any) -> Any:
    """A stream of a CUDA device, the number of one, or None."""
    number = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0
    known = hasattr(value, "__cuda_stream__") or (hasattr(value, "synchronize") and not isinstance(value, type))
    if value is None or number or known:
        return value
    raise TypeError(
        "stream must be a stream of numba.cuda, an object with __cuda_stream__, or a number as in "
        f"__cuda_array_interface__, 1 for the default stream; got {value!r}: leave it out for that one."
    )


def place(backend: str, stream: Any, *arrays: Any) -> None:
    """Refuse a stream, and arrays on a device, for a backend on the host."""
    if stream is not None and backend != "cuda":
        raise ValueError(
            f'stream is for backend="cuda"; got backend={backend!r}: leave it out of SolveOptions, or pass that.'
        )
    for array in arrays:
        if type(array) is OnDevice and backend != "cuda":
            raise ValueError(
                f'arrays on a CUDA device need backend="cuda"; got backend={backend!r}: '
                "pass that, or copies on the host."
            )


def real_array(name: str, value: Any, dtype: Any = None) -> Any:
    """`value` as an array of real numbers, cast to `dtype`; not copied where it is one already, or on a device."""
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
    with np.errstate(over="ignore"):  # a number that float32 cannot hold becomes inf, and is reported as NONFINITE
        return array.astype(dtype)


def float_dtype(*arrays: np.ndarray) -> np.dtype:
    """float32 if every array is at most that, else float64: the dtype in which they meet."""
    for a in arrays:
        if a.dtype.kind != "f" or a.dtype.itemsize > 4:
            return FLOAT_DTYPES[1]
    return FLOAT_DTYPES[0]


def model_dtype(value: Any) -> np.dtype:
    """float32 or float64."""
    for dtype in FLOAT_DTYPES:
        if value is not None and isinstance(value, (str, type, np.dtype)) and value in (dtype.name, dtype, dtype.type):
            return dtype
    raise ValueError(f'dtype must be "float32" or "float64"; got {value!r}.')


def samples(name: str, value: Any, letter: str, width: int, dtype: Any, rows: int | None = None) -> np.ndarray:
    """A batch of samples, (m, width), samples as rows; m is `rows` where that is given."""
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
    """Refuse an array whose shape is not the expected one; `reading` says what the shape means."""
    if array.shape != expected:
        raise ValueError(f"{name} must have shape {expected}, {reading}; got {array.shape}.")


def matrix(name: str, array: np.ndarray, reading: str) -> None:
    """Refuse an array that is not 2-D; `reading` is its shape in letters."""
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix of shape {reading}; got {array.ndim} dimensions, {array.shape}.")


def integer(name: str, value: Any, low: int, high: int | None = None, why: str = "") -> int:
    """A whole number in low … high."""
    rule = f"be a whole number, at least {low}" + (f" and at most {high}" if high is not None else "")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must {rule}; got {value!r}.{why and ' ' + why}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name} must {rule}; got {value}.{why and ' ' + why}")
    return int(value)


def number(name: str, value: Any, low: float, below: float = math.inf, why: str = "") -> float:
    """A finite real number, low ≤ value < below."""
    rule = f"be a number ≥ {low:g}" + (f" and < {below:g}" if below < math.inf else "")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must {rule}; got {value!r}.{why and ' ' + why}")
    if not (low <= value < below):  # written so that NaN is refused
        raise ValueError(f"{name} must {rule}; got {value!r}.{why and ' ' + why}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that merely looks like it."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}.")
    return bool(value)


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """One of the allowed words."""
    words = list(allowed)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} must be one of {', '.join(repr(w) for w in words)}; got {value!r}.")
    return value


def labels(name: str, value: Any, m: int, q: int) -> np.ndarray:
    """Class labels, (m,) whole numbers in 0 … q − 1."""
    array = np.asarray(value)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be whole-number class labels; got dtype {array.dtype}: use astype(int).")
    shape(name, array, (m,), "one label per sample")
    if m and (array.min() < 0 or array.max() >= q):
        raise ValueError(f"{name} must be labels in 0 … {q - 1}, one per output; got {array.min()} … {array.max()}.")
    return array
