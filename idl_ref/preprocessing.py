"""This module has the preprocessing of raw inputs, which is the first layer of a model.

A model with a preprocessing takes raw samples U everywhere, and computes with u = (U − mean) / scale. The difference
and the quotient are computed in float64, and only their result is rounded to the dtype of the model. An offset that is
much larger than the differences between the samples, such as that of a timestamp, hence costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from idl_ref import checks

__all__ = ["Standardise"]

CHUNK = 1 << 16  # This many entries are converted to float64 at a time, so that they stay in the cache.
TINY = float(np.finfo(np.float64).tiny)
EXACT = 1 << 53  # float64 holds every whole number up to this one.
WIDE = 1 << 12  # Numbers so many times larger than their standard deviation are kept in float64.


@dataclass(frozen=True, eq=False)
class Standardise:
    """The affine first layer u = (U − mean) / scale of a model.

    Parameters
    ----------
    mean, scale : number, or (p,) array
        Mean and standard deviation in the units of the raw samples, with scale > 0: one number for all features, or one
        number per feature.

    Attributes
    ----------
    mean, scale : float64 array of shape () or (p,)
        The same numbers, as read-only arrays of one shape.

    Raises
    ------
    ValueError, TypeError
        A mean that is not finite, a scale that is not finite and positive, or shapes that do not fit together.

    Notes
    -----
    The computed u differs from the exact one by at most (ε + 3·2⁻⁵³) |u|, where ε is the unit roundoff of the dtype,
    also for whole numbers of 64 bits that float64 cannot hold. The error bounds of a model include this difference.

    Examples
    --------
    >>> table = np.array([[1.7e9, 0.0], [1.7e9 + 2, 10.0]])
    >>> preprocessing = Standardise.fit(table)
    >>> preprocessing.scale
    array([1., 5.])
    >>> preprocessing(table)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    """

    mean: Any
    scale: Any

    def __post_init__(self) -> None:
        mean = _constants("mean", self.mean, -math.inf, "a finite number")
        scale = _constants("scale", self.scale, TINY, f"a finite number ≥ {TINY:.1e}")
        if mean.ndim and scale.ndim and mean.shape != scale.shape:
            raise ValueError(
                f"mean and scale must have one number per feature each; got {mean.shape} and {scale.shape}: "
                "take both from the same samples."
            )
        for name, value in zip(("mean", "scale"), np.broadcast_arrays(mean, scale), strict=True):
            own = np.array(value)
            own.flags.writeable = False
            object.__setattr__(self, name, own)

    @classmethod
    def fit(cls, samples: Any, per_feature: bool | None = None, weights: Any = None) -> Standardise:
        """Return the preprocessing that gives `samples` the mean 0 and the standard deviation 1.

        Parameters
        ----------
        samples : (m, p) or (m, …) array
            The samples, one per row.
        per_feature : bool, optional
            Use one mean and one scale per feature; otherwise one mean and one scale for all entries. The default is
            True for a table, which has at most two dimensions, and False for images, which have more.
        weights : (m,) array, optional
            A weight > 0 of each sample. A whole number k counts the sample k times.

        Raises
        ------
        ValueError, TypeError
            Samples that are not finite real numbers, or weights that are not m finite numbers > 0.

        Notes
        -----
        The scale of constant samples is 1.

        Examples
        --------
        >>> images = np.array([[[0, 2]], [[4, 6]]], dtype=np.uint8)
        >>> Standardise.fit(images)
        Standardise(mean=3.0, scale=2.23606797749979)
        """
        array = _host("samples", samples)
        rows = _flat(array)
        if not rows.size:
            return cls(0.0, 1.0)
        if per_feature is None:
            per_feature = array.ndim <= 2
        axis = 0 if checks.flag("per_feature", per_feature) else None
        with np.errstate(invalid="ignore"):
            low, high = rows.min(axis=axis), rows.max(axis=axis)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            j = int(np.argmin(np.isfinite(rows).all(axis=1)))
            raise ValueError(
                f"samples must be finite to be standardised; got NaN or inf in sample {j}: remove or replace it."
            )
        count = rows.size if axis is None else len(rows)
        shares = None if weights is None else _shares(weights, len(rows))
        with np.errstate(over="ignore", invalid="ignore"):
            mean = rows.mean(axis=axis, dtype=np.float64)
            if shares is not None:  # The unweighted mean is near enough to the weighted one to cancel an offset.
                mean = mean + _offset(rows, axis, shares, mean) / count
            largest = np.maximum(high - mean, mean - low)  # Deviations are divided by it, so that no square overflows.
            largest = np.where(largest > 0, largest, 1.0)
            squares: Any = 0.0
            for part, w in _parts(rows, shares):
                u = _less(part, mean)
                squares = squares + _sum(np.square(np.divide(u, largest, out=u), out=u), axis, w)
            scale = largest * np.sqrt(squares / count)
        constant = low == high
        return cls(np.where(constant, low, mean), np.where(constant | (scale < TINY), 1.0, scale))

    def __call__(self, samples: Any, dtype: Any = np.float32) -> np.ndarray:
        """Return raw samples (m, …) as standardised rows (m, p), in the given dtype.

        A model calls this method itself; call it only to look at what the equations receive.
        """
        rows, dtype = _flat(_host("samples", samples)), checks.model_dtype(dtype)
        if self.mean.ndim and rows.shape[1] != self.mean.size:
            raise ValueError(f"samples must have {self.mean.size} features, as mean and scale do; got {rows.shape[1]}.")
        return self._applied(rows, dtype)

    def inputs(self, name: str, U: Any, p: int, dtype: np.dtype) -> np.ndarray:
        """Check raw samples (m, p), or (m, …) with p numbers each, and return them as standardised rows (m, p)."""
        array = _host(name, U)
        if array.ndim > 2 and math.prod(array.shape[1:]) == p:
            array = _flat(array)
        return self._applied(checks.samples(name, array, "p", p, array.dtype), dtype)

    def _applied(self, rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return (rows − mean) / scale, computed in float64 and then rounded to the dtype.   (m, p) -> (m, p)"""
        with np.errstate(over="ignore", invalid="ignore"):  # The status of a sample reports overflow, not a warning.
            if rows.size <= CHUNK:
                u = _less(rows, self.mean)
                return np.divide(u, self.scale, out=u).astype(dtype, copy=False)
            result, first = np.empty(rows.shape, dtype), 0
            for part, _ in _parts(rows):
                u = _less(part, self.mean)
                result[first : first + len(part)] = np.divide(u, self.scale, out=u)
                first += len(part)
        return result

    def inverse(self, U: Any) -> np.ndarray:
        """Return the raw samples U·scale + mean, in float64, that are standardised to U (m, p)."""
        return np.asarray(U, np.float64) * self.scale + self.mean

    def pullback(self, G: np.ndarray) -> np.ndarray:
        """Return the gradient G/scale of the raw samples, for the gradient G of the standardised ones.   (m, p)"""
        with np.errstate(over="ignore", invalid="ignore"):
            return (G / self.scale).astype(G.dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Standardise):
            return NotImplemented
        return np.array_equal(self.mean, other.mean) and np.array_equal(self.scale, other.scale)

    def __hash__(self) -> int:
        return hash((self.mean.tobytes(), self.scale.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.mean, self.scale)

    def __repr__(self) -> str:
        if self.mean.ndim == 0:
            return f"Standardise(mean={float(self.mean)}, scale={float(self.scale)})"
        return f"Standardise of {self.mean.size} features"


def needs_float64(numbers: np.ndarray) -> bool:
    """Tell whether float32 cannot hold the finite numbers of an array, or loses the digits in which they differ.

    Examples
    --------
    >>> hours = np.array([1.0, 2.0, 3.0])
    >>> [needs_float64(numbers) for numbers in (hours, 1.7e9 + hours, 1e-300 * hours)]
    [False, True, True]
    """
    finite = numbers[np.isfinite(numbers)]
    largest, (low, high) = float(np.abs(finite).max(initial=0.0)), _normal(np.dtype(np.float32))
    if largest > high:
        return True
    spread = largest * float(np.std(finite / largest)) if largest else 0.0
    return spread > 0 and (spread < low or largest > WIDE * spread)


def _normal(dtype: np.dtype) -> tuple[float, float]:
    """Return the smallest and the largest positive normal number of a dtype."""
    limits = np.finfo(dtype)
    return float(limits.tiny), float(limits.max)


def fits_float32(preprocessing: Standardise) -> bool:
    """Tell whether a float32 model can have a preprocessing: whether its constants are normal numbers of float32."""
    low, high = _normal(np.dtype(np.float32))
    mean, scale = np.abs(preprocessing.mean), preprocessing.scale
    return bool((mean <= high).all() and ((low <= scale) & (scale <= high)).all())


def attached(value: Any, p: int, dtype: np.dtype) -> Standardise | None:
    """Return what may become the preprocessing of a model with p inputs and the given dtype, and refuse the rest."""
    if value is None:
        return None
    if not isinstance(value, Standardise):
        way_out = "use Standardise.fit(x_train)."
        if hasattr(value, "transform"):
            way_out = (
                "use Standardise(scaler.mean_, scaler.scale_) if it subtracts a mean and divides by a scale; "
                "otherwise leave preprocessing None, and call scaler.transform on every input yourself."
            )
        raise TypeError(
            "preprocessing must be None or a Standardise of idl_ref.preprocessing, which files and exports can hold; "
            f"got an object of class {type(value).__name__}: {way_out}"
        )
    if value.mean.ndim and value.mean.size != p:
        raise ValueError(
            f"preprocessing must have {p} means and scales, one per input of the model, or one for all; "
            f"got {value.mean.size}: fit it to samples with {p} features."
        )
    low, high = _normal(dtype)
    if np.abs(value.mean).max(initial=0.0) > high or (value.scale < low).any() or (value.scale > high).any():
        raise ValueError(
            f"mean and scale must be normal numbers of the model's dtype {dtype}, at most {high:.1e}, and scale at "
            f"least {low:.1e}; got mean {_largest(value.mean):.1e} and scale {value.scale.min():.1e} … "
            f"{value.scale.max():.1e}: change the units of the samples, or use dtype='float64'."
        )
    return value


def inputs(name: str, U: Any, p: int, dtype: np.dtype, preprocessing: Standardise | None) -> np.ndarray:
    """Return checked inputs as rows (m, p) in the dtype of the model, standardised if it has a preprocessing."""
    if preprocessing is None:
        return checks.samples(name, U, "p", p, dtype)
    return preprocessing.inputs(name, U, p, dtype)


def _constants(name: str, value: Any, low: float, rule: str) -> np.ndarray:
    """Return a mean or a scale as a float64 array of shape () or (p,), all of whose entries are ≥ `low` and finite."""
    checks.unmasked(name, value)
    try:
        array = np.asarray(value)
    except ValueError:  # The rows of a list have different lengths.
        array = np.asarray(None)
    if array.dtype.kind not in "iuf" or array.ndim > 1:
        got = repr(value) if array.ndim == 0 else f"an array of shape {array.shape} and dtype {array.dtype}"
        raise TypeError(f"{name} must be {rule}, or an array (p,) with one such number per feature; got {got:.60}.")
    with np.errstate(over="ignore"):  # A long double may overflow; it is then refused as not finite.
        array = array.astype(np.float64)
    wrong = ~((array >= low) & np.isfinite(array))
    if wrong.any():
        where = f" for feature {int(np.argmax(wrong))}" if array.ndim else ""
        raise ValueError(
            f"{name} must be {rule}; got {float(array[wrong][0])}{where}: take it from samples that are finite and not "
            "constant, as Standardise.fit does."
        )
    return array


def _host(name: str, value: Any) -> np.ndarray:
    """Return samples as an array of real numbers in its own dtype, which must be in the memory of the host."""
    array = checks.real_array(name, value)
    if isinstance(array, checks.OnDevice):
        raise TypeError(
            f"{name} must be an array on the host for a model with preprocessing; got one on a CUDA device: copy it to "
            "the host, or standardise on the device and set model.preprocessing = None."
        )
    if array.ndim == 0:
        raise ValueError(f"{name} must be samples, one per row; got a single number.")
    return array


def _flat(array: np.ndarray) -> np.ndarray:
    """Return samples (m, …) as rows (m, p); p is computed, because -1 is ambiguous for zero samples."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _parts(rows: np.ndarray, shares: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield parts of consecutive rows, with at most CHUNK entries each, or one row, and the shares of these rows."""
    height = max(1, CHUNK // max(1, rows.shape[1]))
    for j in range(0, len(rows), height):
        yield rows[j : j + height], None if shares is None else shares[j : j + height]


def _shares(weights: Any, m: int) -> np.ndarray:
    """Return the weights of m samples, scaled to the mean 1, as a column (m, 1)."""
    w = checks.weights("weights", weights, m)
    if not w.all():
        place = int(np.argmin(w))
        raise ValueError(f"weights must be > 0; got 0 at place {place}: leave out the samples that have no weight.")
    w = w / w.max()
    return (w / w.mean())[:, None]


def _sum(values: np.ndarray, axis: int | None, shares: np.ndarray | None) -> Any:
    """Return the sum of values (m, p) over the axis, each row times its share."""
    return (values if shares is None else values * shares).sum(axis=axis)


def _offset(rows: np.ndarray, axis: int | None, shares: np.ndarray, mean: Any) -> Any:
    """Return the weighted sum of rows − mean (m, p) over the axis."""
    return sum(_sum(_less(part, mean), axis, w) for part, w in _parts(rows, shares))


def _less(rows: np.ndarray, mean: Any) -> np.ndarray:
    """Return rows − mean, rounded once to float64, also for whole numbers that float64 cannot hold.

    Such a number is the sum of two that it can hold: high, a multiple of 2³², and low. Let s be high − mean, rounded;
    its rounding error is known exactly (Knuth's two-sum). Near the mean it is 0, and low + error is tiny beside s far
    from it, so that s + (low + error) is rounded like the exact difference, but for 2⁻⁶⁴ of it.
    """
    u: np.ndarray = np.subtract(rows, mean, dtype=np.float64)
    if rows.dtype.kind not in "iu" or rows.dtype.itemsize < 8:
        return u
    large = (rows > EXACT) if rows.dtype.kind == "u" else (rows > EXACT) | (rows < -EXACT)
    if np.count_nonzero(large):
        low = rows & rows.dtype.type((1 << 32) - 1)
        high = (rows - low).astype(np.float64)
        s = high - mean
        t = s - high
        error = (high - (s - t)) - (mean + t)
        u = np.where(large, s + (error + low), u)
    return u


def _largest(values: np.ndarray) -> float:
    """Return the entry of the largest magnitude."""
    return float(values.flat[np.abs(values).argmax()])
