"""This module checks inputs where they enter the library.

Its messages have four parts: the name of the input, the rule for it, what was got, and a way out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Word = TypeVar("Word", bound=str)
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


def unmasked(name: str, value: Any) -> None:
    """Refuse an array of numpy.ma with masked entries, whose hidden values numpy.asarray would bring back."""
    masked = np.count_nonzero(value.mask) if isinstance(value, np.ndarray) and hasattr(value, "mask") else 0
    if masked:
        raise ValueError(
            f"{name} must have a value in every entry; got a masked array with {masked} masked entries: use "
            f"{name}.filled(value), or leave the samples with masked entries out."
        )


def _as_array(name: str, value: Any) -> np.ndarray:
    """Return what numpy.asarray makes of a value, and refuse values of which it would lose a part, or make nonsense."""
    if type(value) is np.ndarray:
        return value
    kind = type(value).__name__
    if hasattr(value, "toarray") and not hasattr(value, "__array__"):  # the sparse arrays of SciPy
        raise TypeError(f"{name} must be a dense array; got {kind}: use {name}.toarray().")
    unmasked(name, value)
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as reason:
        text = " ".join(str(reason).split())[:160]
        if hasattr(value, "detach"):  # a tensor of PyTorch that requires a gradient, or has a dtype that NumPy lacks
            raise TypeError(
                f"{name} must be an array that NumPy can read; got {kind} ({text}): use "
                f"{name}.detach().cpu().float().numpy()."
            ) from None
        if isinstance(reason, ValueError):
            raise ValueError(f"{name} must be a rectangular array of numbers; got {text}.") from None
        raise TypeError(f"{name} must be an array that NumPy can read; got {kind}: {text}") from None


def _conversion(name: str, value: Any, array: np.ndarray) -> str:
    """Return a phrase that says how an array whose dtype is refused can be converted to real numbers."""
    kind = array.dtype.kind
    if kind == "c":
        return f"for example by numpy.real({name}), if the imaginary parts are 0"
    if kind in "mM":
        since = f"({name} - numpy.min({name}))" if kind == "M" else name
        return f"for example to days by {since} / numpy.timedelta64(1, 'D')"
    if array.dtype.names:
        return f"for example by numpy.lib.recfunctions.structured_to_unstructured({name})"
    if kind in "fV":  # longdouble, or a dtype that a package adds to NumPy, such as bfloat16
        return f"for example by {name}.astype(numpy.float32)"
    if array.ndim == 0 and kind == "O":
        return f"because {type(value).__name__} is not an array: pass an array, or lists of numbers"
    try:
        array.astype(float)
    except (TypeError, ValueError):
        odd = next((entry for entry in array.flat if not _is_number(entry)), array.flat[0])
        return f"because {shown(odd)} is not a number: encode categories as numbers, and leave missing values out"
    return f"for example by numpy.asarray({name}, dtype=float)"


def _is_number(entry: Any) -> bool:
    """Tell whether float() takes an entry of an array of objects or strings."""
    try:
        float(entry)
    except (TypeError, ValueError):
        return False
    return True


def shown(value: Any) -> str:
    """Return a value as text that fits into a message: printable, and with at most 60 characters."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    text = text if text.isprintable() else ascii(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def real_array(name: str, value: Any, dtype: Any = None) -> Any:
    """Return `value` as an array of real numbers in `dtype`, or in its own dtype if that is None.

    An array that already has the dtype, or is on a device, is not copied.
    """
    if type(value) is np.ndarray and (value.dtype in FLOAT_DTYPES if dtype is None else value.dtype == dtype):
        return value
    if hasattr(value, "__cuda_array_interface__"):
        return _on_device(name, value, dtype)
    array = _as_array(name, value)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{name} must hold real numbers of at most 64 bits; got dtype {array.dtype}: "
            f"convert it first, {_conversion(name, value, array)}."
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
    array = value if type(value) is np.ndarray and value.dtype == dtype else real_array(name, value, dtype)
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
    rule = "be a finite number" if low < -1e308 else f"be a number ≥ {low:g}"
    rule += f" and < {below:g}" if below < math.inf else ""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must {rule}; got {value!r}.{why and ' ' + why}")
    try:
        result = float(value)
    except OverflowError:  # A Python integer may exceed every number of float64.
        result = math.copysign(math.inf, value > 0 or -1)
    if not (low <= result < below):  # The comparison is negated so that NaN is refused.
        raise ValueError(f"{name} must {rule}; got {_shortened(value)}.{why and ' ' + why}")
    return result


def renamed(**right_names: str) -> Callable[[type[T]], type[T]]:
    """Return a decorator by which the constructor of a class says what an argument of another class is called there."""

    def decorate(cls: type[T]) -> type[T]:
        construct: Any = cls.__init__

        @functools.wraps(construct)
        def init(self: T, *arguments: Any, **named: Any) -> None:
            for wrong in right_names.keys() & named.keys():
                raise TypeError(
                    f"{cls.__name__} has no argument {wrong}; got {wrong}={named[wrong]!r}: use {right_names[wrong]}."
                )
            construct(self, *arguments, **named)

        cls.__init__ = init  # type: ignore[assignment, method-assign]
        return cls

    return decorate


def flag(name: str, value: Any) -> bool:
    """Return a truth value; only True and False are accepted, not 0, 1 or strings."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}.")
    return bool(value)


def choice(name: str, value: Any, allowed: Iterable[Word]) -> Word:
    """Return a word after checking that it is one of the allowed ones."""
    words = list(allowed)
    for word in words:
        if isinstance(value, str) and value == word:
            return word
    raise ValueError(f"{name} must be one of {', '.join(repr(w) for w in words)}; got {value!r}.")


def finite(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array with samples as rows after checking that all its entries are finite."""
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        refuse_not_finite(name, bad.size, len(array), bad[0], 1 if array.ndim <= 2 else tuple(range(1, array.ndim)))
    return array


def refuse_not_finite(name: str, bad: int, m: int, first: Any, axes: Any = 1) -> None:
    """Refuse m samples of which some are not finite; `axes` are those of one sample."""
    raise ValueError(
        f"{name} must be finite; got NaN or inf in {bad} of {m} samples, the first being sample {first}: leave them "
        f"out by {name}[numpy.isfinite({name}).all(axis={axes})], here and in all that belongs to them, or replace "
        "NaN by numbers."
    )


def weights(name: str, value: Any, m: int) -> np.ndarray:
    """Return the weights (m,) of samples in float64: finite numbers ≥ 0 that are not all 0."""
    array = amounts(name, value, m)
    if not array.any():
        raise ValueError(f"{name} must be positive for at least one sample; got zeros only.")
    return array


def amounts(name: str, value: Any, m: int) -> np.ndarray:
    """Return finite numbers ≥ 0 in float64, one per sample (m,)."""
    array: np.ndarray = real_array(name, value, np.dtype(np.float64))
    if array.shape != (m,):
        raise ValueError(f"{name} must have shape ({m},), one number per sample; got {array.shape}.")
    wrong = ~((array >= 0) & (array < np.inf))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(f"{name} must be finite numbers ≥ 0; got {array[place]:g} at place {place}.")
    return array


def targets(name: str, value: Any, m: int, q: int, dtype: Any) -> np.ndarray:
    """Return continuous targets, with samples as rows, as an array of shape (m, q)."""
    array = real_array(name, value, dtype)
    if array.ndim != 2 or array.shape[1] != q:
        way_out = "samples are rows."
        if array.shape == (m,) and q == 1:
            way_out = f"use numpy.reshape({name}, (-1, 1))."
        elif array.shape == (m,) and np.asarray(value).dtype.kind in "iu":
            way_out = 'for class labels use loss="cross_entropy".'
        elif array.shape == (m,):
            way_out = "one number per sample needs a model with output_dim=1, and the shape (m, 1)."
        elif array.shape == (q, m):
            way_out = f"samples are rows, so numpy.transpose({name}) may be what was meant."
        raise ValueError(f"{name} must have shape (m, q) with q = {q}; got {array.shape}: {way_out}")
    if len(array) != m:
        raise ValueError(f"{name} must have shape {(m, q)}, one row per sample; got {array.shape}.")
    return finite(name, array)


def labels(name: str, value: Any, m: int, q: int) -> np.ndarray:
    """Return class labels as an integer array of shape (m,) with values in 0 … q − 1."""
    array = _as_array(name, value)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.intp)
    way_out = "" if array.shape == (m,) else f": {_label_of_each(name, array, m)}"
    if array.dtype.kind not in "iu":
        got = f"dtype {array.dtype}" + (f" of shape {array.shape}{way_out}" if way_out else _whole_labels(name, array))
        raise TypeError(f"{name} must be whole-number class labels; got {got}.")
    if way_out:
        raise ValueError(f"{name} must have shape {(m,)}, one label per sample; got {array.shape}{way_out}.")
    if m and not 0 <= array.item(array.argmin()) <= array.item(array.argmax()) < q:
        low, high, distinct = int(array.min()), int(array.max()), len(np.unique(array))
        way_out = f"renumber the labels by numpy.unique({name}, return_inverse=True)[1]"
        if distinct > q:
            way_out += f", and raise output_dim to {distinct}, because there are {distinct} classes"
        elif low >= 0:
            way_out = f"raise output_dim to {high + 1}, or {way_out}"
        raise ValueError(
            f"{name} must be labels in 0 … {q - 1}, because the model has {q} outputs; got {low} … {high}: {way_out}."
        )
    return array


def one_hot(array: np.ndarray) -> bool:
    """Tell whether each row of a matrix of numbers has one entry 1, and is 0 elsewhere."""
    return bool((np.count_nonzero(array, axis=1) == 1).all() and (array.max(axis=1, initial=0) == 1).all())


def _label_of_each(name: str, array: np.ndarray, m: int) -> str:
    """Return a phrase that says how targets of a wrong shape may become one label per sample."""
    if array.shape == (m, 1) or array.shape == (1, m):
        return f"use numpy.ravel({name})"
    if array.ndim == 2 and len(array) == m and array.dtype.kind in "biuf":
        if one_hot(array):
            return f"the rows are one-hot, so use numpy.argmax({name}, axis=1)"
        return 'for continuous targets use loss="mse"'
    return "pass as many labels as U has rows"


def _whole_labels(name: str, array: np.ndarray) -> str:
    """Return the end of a message that says how targets of a wrong dtype may become whole numbers."""
    kind = array.dtype.kind
    if kind == "f" and not np.isfinite(array).all():
        return f" with NaN or inf: leave out the samples without a label, by numpy.isfinite({name})"
    if kind == "f" and (array != np.floor(array)).any():
        odd = array[array != np.floor(array)][0]
        return f' with {odd:g}, which looks continuous: use loss="mse", with targets of shape (m, output_dim)'
    if kind in "bf":
        return f": use numpy.asarray({name}).astype(int)"
    if kind == "O" and (missing := [entry for entry in array if entry is None or entry != entry]):
        return f" with {shown(missing[0])} as a label: leave out the samples without a label"
    if kind in "OSU":
        try:
            np.unique(array)
        except TypeError:
            return f", with labels that have no order: use labels of one kind, by numpy.asarray({name}, dtype=str)"
        return f", such as {shown(array[0])}: use classes, {name} = numpy.unique({name}, return_inverse=True)"
    return ": number the classes 0, 1, 2, …"
