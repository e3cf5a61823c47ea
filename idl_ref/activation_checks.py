"""This module checks numerically what an `Activation` of a user's claims about φ: its slope, its Lipschitz constant, …

A check on a grid of points proves nothing between the points. The grid has 8,001 points in −40 … 40, and points of
all magnitudes from 2⁻¹²⁰ to 2¹²⁰ in float32 and from 2⁻¹⁰⁰⁰ to 2¹⁰⁰⁰ in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

DTYPES = (np.float32, np.float64)
SHAPES = ((), (0,), (5, 0), (1,), (7,), (1, 1), (3, 4))
ULPS = 16  # The units of rounding by which φ may differ from its exact value; `certificate.ULPS` relies on this.
LARGEST_EXPONENT = {np.float32: 120, np.float64: 1000}
CLOSE = 1e-6  # Slopes and Lipschitz constants are compared with this tolerance, relative to the Lipschitz constant.
NEAR = 1024  # Slopes are compared with differences up to this argument, where the differences can resolve oscillations.
JUMP = 1e-3  # A jump of the slope that is larger than this, relative to the Lipschitz constant, is a kink.

Function = Callable[[np.ndarray], np.ndarray]


def check(name: str, phi: Function, slope: Function, lipschitz: float, kinks: tuple[float, ...]) -> None:
    """Raise ValueError or TypeError, with the reason, if φ and φ′ are not what the activation claims."""
    checked = _Checked(name, phi, slope, lipschitz, kinks)
    with np.errstate(all="ignore"):
        checked.form()
        checked.values()
        checked.precision()
        checked.lipschitz_constant()
        checked.slopes()
        checked.kinks_are_listed()


def grid(dtype: Any) -> np.ndarray:
    """Return sorted points of all magnitudes and of both signs. No rule places them, so that no φ can match them."""
    rng, largest = np.random.default_rng(0), LARGEST_EXPONENT[dtype]
    even = np.linspace(-40, 40, 8001) + rng.uniform(-0.004, 0.004, 8001)
    sizes = np.ldexp(rng.uniform(1, 2, 4 * 240 + 1), np.linspace(-largest, largest, 4 * 240 + 1).astype(int))
    special = np.array([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0])
    return np.unique(np.concatenate([even, sizes, -sizes, special]).astype(dtype))


class _Checked:
    """The claims about one activation. Each method checks one of them."""

    def __init__(self, name: str, phi: Function, slope: Function, lipschitz: float, kinks: tuple[float, ...]) -> None:
        self.name, self.lipschitz, self.kinks = name, lipschitz, np.array(kinks, float)
        self.functions = {"phi": phi, "slope": slope}

    def refuse(self, kind: type[Exception], message: str, cause: Exception | None = None) -> NoReturn:
        raise kind(f"activation {self.name!r}: {message}") from cause

    def call(self, which: str, P: np.ndarray) -> np.ndarray:
        """Return φ(P) or φ′(P), which must be an array of the shape and dtype of P, and must not change P."""
        P = P.view()
        P.flags.writeable = False
        try:
            result = self.functions[which](P)
        except Exception as reason:
            self.refuse(
                TypeError,
                f"{which} must take {P.dtype} arrays of any shape and not change them; got {type(reason).__name__} for "
                f"shape {P.shape}: {reason}. Compute it with functions of NumPy, which return new arrays.",
                reason,
            )
        number = isinstance(result, np.generic) and P.ndim == 0  # NumPy returns numbers for arrays of 0 dimensions.
        if not (isinstance(result, np.ndarray) or number) or result.shape != P.shape:
            got = f"shape {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
            self.refuse(
                TypeError, f"{which} must return an array of the shape of its argument, {P.shape}; got {got}: "
                "apply it entry by entry, for example with numpy.where in the place of if."
            )  # fmt: skip
        if result.dtype != P.dtype:
            self.refuse(
                TypeError,
                f"{which} must return the dtype of its argument, {P.dtype}; got {result.dtype}: "
                "return result.astype(P.dtype).",
            )
        return np.asarray(result)

    def form(self) -> None:
        """Shape and dtype are kept, each entry is computed from its own argument alone, and NaN stays NaN."""
        for dtype in DTYPES:
            P, eps, tiny = grid(dtype), np.finfo(dtype).eps, np.finfo(dtype).tiny
            few = P[:: len(P) // 40]
            for which in self.functions:
                for shape in SHAPES:
                    self.call(which, np.resize(few, shape))
                whole = self.call(which, P)
                alone = np.concatenate([self.call(which, few[j : j + 1]) for j in range(len(few))])
                table = self.call(which, few[:40].reshape(5, 8).T).T.ravel()
                for other, same in ((alone, few), (table, few[:40]), (self.call(which, P[::-1])[::-1], P)):
                    expected = whole[np.searchsorted(P, same)]
                    wrong = ~(np.abs(other - expected) <= 2 * ULPS * eps * np.abs(expected) + tiny)
                    wrong &= np.isfinite(expected)
                    if wrong.any():
                        self.refuse(
                            ValueError,
                            f"{which} must act entry by entry; got {other[wrong][0]:g} and {expected[wrong][0]:g} for "
                            f"the same entry {same[wrong][0]:g} of different arrays: use no sums or maxima over "
                            "entries.",
                        )
            if not np.isnan(self.call("phi", np.array([np.nan, 1.0], dtype))[0]):
                self.refuse(
                    ValueError,
                    "phi must map NaN to NaN, so that a broken input is noticed; got a number: numpy.maximum, "
                    "numpy.minimum and numpy.clip keep NaN, and comparisons do not.",
                )

    def values(self) -> None:
        """Both φ and φ′ are finite at finite arguments."""
        for dtype in DTYPES:
            P = grid(dtype)
            for which in self.functions:
                result = self.call(which, P)
                if not np.isfinite(result).all():
                    p = P[~np.isfinite(result)][np.abs(P[~np.isfinite(result)]).argmin()]
                    self.refuse(
                        ValueError,
                        f"{which} must be finite at every finite argument; got {self.call(which, np.array([p]))[0]} at "
                        f"{p:g} in {np.dtype(dtype)}: avoid overflow, for example by exp(-abs(P)).",
                    )

    def precision(self) -> None:
        """In float32, φ(p) is correct to ULPS units of rounding, and φ′ to 64 units of the Lipschitz constant.

        The rounding of p inside φ may add one unit of Lip(φ) |p|: the constant γ of the certificate counts n + 2
        roundings of an inner product and the addition of z, which have n + 1.
        """
        P, unit, tiny = grid(np.float32), np.finfo(np.float32).eps / 2, np.finfo(np.float32).tiny
        phi, slope = (self.call(which, P).astype(float) for which in self.functions)
        exact, exact_slope = (self.call(which, P.astype(float)) for which in self.functions)
        # The rounding of p inside φ′ changes φ′ by about as much as that of p itself.
        next_slope = self.call("slope", P.astype(float) * (1 + 2.0 * unit))
        wrong = np.abs(phi - exact) > ULPS * unit * np.abs(exact) + unit * self.lipschitz * np.abs(P) + tiny
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            self.refuse(
                ValueError,
                f"phi must be correct to {ULPS} units of rounding, because error bounds rely on this; got {phi[i]:.9g} "
                f"at {P[i]:g} in float32, and {exact[i]:.9g} in float64: avoid cancellation and overflow, for example "
                "by numpy.expm1, numpy.log1p and numpy.hypot.",
            )
        wrong = np.abs(slope - exact_slope) > 64 * unit * self.lipschitz + 8 * np.abs(next_slope - exact_slope)
        wrong &= np.abs(P) <= NEAR
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            self.refuse(
                ValueError,
                f"slope must be the same function in both dtypes; got {slope[i]:.9g} at {P[i]:g} in float32, and "
                f"{exact_slope[i]:.9g} in float64: avoid cancellation and overflow.",
            )

    def lipschitz_constant(self) -> None:
        """No difference quotient of φ, and no slope, exceeds the Lipschitz constant."""
        P = grid(np.float64)
        Q = P + 2.0**-20 * np.maximum(1, np.abs(P))
        phi, beyond = self.call("phi", P), self.call("phi", Q)
        found = np.abs(self.call("slope", P))
        for left, width, low, high in (
            (P[:-1], np.diff(P), phi[:-1], phi[1:]),
            (P, Q - P, phi, beyond),
        ):
            rounding = 2 * ULPS * np.finfo(float).eps * np.maximum(np.abs(low), np.abs(high))
            quotient = (np.abs(high - low) - rounding) / width
            at = np.searchsorted(P, left)
            found[at] = np.maximum(found[at], quotient)
        worst = int(found.argmax())
        if found[worst] > self.lipschitz * (1 + CLOSE):
            self.refuse(
                ValueError,
                f"lipschitz must be at least the steepest slope of phi; got {self.lipschitz:g}, but the slope is "
                f"{found[worst]:.6g} at {P[worst]:g}: correct lipschitz, which must be at most 1; a steeper phi can be "
                "divided by its steepest slope.",
            )

    def slopes(self) -> None:
        """φ′ agrees with the central difference of φ to within the change of φ′ between the two points."""
        P = grid(np.float64)
        P = P[np.abs(P) <= NEAR]
        h = 2.0**-17 * np.maximum(1, np.abs(P))
        below, slope, above = (self.call("slope", P + step) for step in (-h, 0 * h, h))
        low, high = self.call("phi", P - h), self.call("phi", P + h)
        difference = (high - low) / (2 * h)
        change = np.maximum(np.abs(below - slope), np.abs(above - slope))  # This is the jump where there is a kink.
        rounding = 2 * ULPS * np.finfo(float).eps * np.maximum(np.abs(low), np.abs(high)) / h
        excess = np.abs(slope - difference) - change - rounding
        worst = int(excess.argmax())
        if excess[worst] > CLOSE * self.lipschitz:
            self.refuse(
                ValueError,
                f"slope must be the derivative of phi; got {slope[worst]:.6g} at {P[worst]:g}, where the difference "
                f"quotient of phi is {difference[worst]:.6g}: correct slope.",
            )

    def kinks_are_listed(self) -> None:
        """Every jump of φ′ is in `kinks`. Intervals over which φ′ changes are halved until they are short."""
        P = grid(np.float64)
        P = P[np.abs(P) <= NEAR]
        slope = self.call("slope", P)
        changes = np.abs(np.diff(slope)) > JUMP * self.lipschitz
        low, high, s_low, s_high = P[:-1][changes], P[1:][changes], slope[:-1][changes], slope[1:][changes]
        for _ in range(60):
            middle = (low + high) / 2
            s = self.call("slope", middle)
            left = np.abs(s - s_low) >= np.abs(s_high - s)
            low, s_low = np.where(left, low, middle), np.where(left, s_low, s)
            high, s_high = np.where(left, middle, high), np.where(left, s, s_high)
        for at, before, after in zip((low + high) / 2, s_low, s_high, strict=True):
            near = np.abs(self.kinks - at) <= 1e-9 * max(1.0, abs(at))
            if abs(after - before) > JUMP / 2 * self.lipschitz and not near.any():
                self.refuse(
                    ValueError,
                    f"kinks must list every argument at which the slope jumps; got {tuple(self.kinks.tolist())}, but "
                    f"the slope jumps from {before:.4g} to {after:.4g} at {round(at, 9):g}: add it to kinks.",
                )
