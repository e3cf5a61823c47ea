"""This module has data sets that need no download: handwritten digits, and two small problems in the plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from idl_ref import checks

__all__ = ["digits", "spirals", "two_moons"]


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load 1,797 images of handwritten digits with 8 × 8 pixels, in a fixed split into training and test images.

    Returns
    -------
    x_train : (1437, 64) float32 array
        Training images, one per row, with pixels in [0, 1], in row-major order.
    y_train : (1437,) int64 array
        The digits 0 … 9 that the training images show.
    x_test : (360, 64) float32 array
        Test images.
    y_test : (360,) int64 array
        The digits that the test images show.

    Notes
    -----
    The images are the test set of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (1998), UCI
    Machine Learning Repository, https://doi.org/10.24432/C50P49, under CC BY 4.0. Their order was shuffled once, before
    they were split.

    Examples
    --------
    >>> x_train, y_train, x_test, y_test = digits()
    >>> x_train.shape, x_test.shape
    ((1437, 64), (360, 64))
    """
    with np.load(Path(__file__).parent / "data" / "digits.npz", allow_pickle=False) as archive:
        # The file holds pixels as whole numbers 0 … 16.
        x_train, x_test = (archive[name].astype(np.float32) / 16 for name in ("x_train", "x_test"))
        y_train, y_test = (archive[name].astype(np.int64) for name in ("y_train", "y_test"))
    return x_train, y_train, x_test, y_test


def two_moons(m: int = 400, noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw points on two interleaved half circles of radius 1, one class each.

    Parameters
    ----------
    m : int
        Number of points.
    noise : float
        Standard deviation of the normal noise that is added to each coordinate.
    seed : int
        Seed of the random numbers; the same seed gives the same points.

    Returns
    -------
    x : (m, 2) float32 array
        The points, one per row.
    y : (m,) int64 array
        Their classes, 0 or 1.

    Raises
    ------
    ValueError, TypeError
        An m or seed that is not a whole number ≥ 0, or a noise that is not a number ≥ 0.

    Examples
    --------
    >>> x, y = two_moons(6, noise=0)
    >>> np.hypot(*x[y == 0].T).round(3)
    array([1., 1., 1.], dtype=float32)
    """
    rng, y, t = _classes(m, 2, noise, seed)
    t *= np.pi
    x = np.where(y[:, None] == 0, np.stack([np.cos(t), np.sin(t)], 1), np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1))
    return (x + noise * rng.standard_normal(x.shape)).astype(np.float32), y


def spirals(m: int = 400, arms: int = 2, noise: float = 0.02, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw points on spiral arms that wind one and a half times around the origin, one class per arm.

    Parameters
    ----------
    m : int
        Number of points.
    arms : int
        Number of arms, at least 2.
    noise : float
        Standard deviation of the normal noise that is added to each coordinate; the arms reach the unit circle.
    seed : int
        Seed of the random numbers; the same seed gives the same points.

    Returns
    -------
    x : (m, 2) float32 array
        The points, one per row.
    y : (m,) int64 array
        Their classes, 0 … arms − 1.

    Raises
    ------
    ValueError, TypeError
        An m or seed that is not a whole number ≥ 0, fewer than 2 arms, or a noise that is not a number ≥ 0.

    Examples
    --------
    >>> x, y = spirals(6, arms=3)
    >>> x.shape, y
    ((6, 2), array([0, 1, 2, 0, 1, 2]))
    """
    rng, y, t = _classes(m, checks.integer("arms", arms, 2), noise, seed)
    radius = np.sqrt(t)
    angle = 3 * np.pi * radius + 2 * np.pi * y / arms
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (x + noise * rng.standard_normal(x.shape)).astype(np.float32), y


def _classes(m: int, classes: int, noise: float, seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Return a generator, labels 0, 1, …, 0, 1, … (m,), and for each point its place on the curve in [0, 1) (m,)."""
    checks.integer("m", m, 0)
    checks.number("noise", noise, 0)
    checks.integer("seed", seed, 0)
    rng = np.random.default_rng(seed)
    return rng, np.arange(m, dtype=np.int64) % classes, rng.random(m)
