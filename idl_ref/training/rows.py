"""This module has inputs that stay where they are, in memory or in a file, until a step reads some of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks

BLOCK = 4096  # A look at all rows reads so many of them at a time.


class Seen(NamedTuple):
    """What a look at some blocks of rows found."""

    sums: tuple[int, ...]  # a checksum of each block
    bad: int  # the number of rows that are not finite
    first: float  # the first of them; inf if there is none


class Rows:
    """Inputs (m, p), of which only the rows that are asked for are read, converted and preprocessed.

    Parameters
    ----------
    name : str
        What messages call the inputs.
    given : (m, p) or (m, …) array
        The raw inputs, which may be a memory map.
    p : int
        The number of inputs of the model.
    checked : callable
        The function of a name and of raw rows that returns them checked, in the dtype of the model, and preprocessed.
    """

    def __init__(self, name: str, given: np.ndarray, p: int, checked: Callable[[str, Any], np.ndarray]) -> None:
        self.name, self.given, self.checked = name, given, checked
        self.shape = len(given), p

    @classmethod
    def of(cls, name: str, given: Any, p: int, checked: Callable[[str, Any], np.ndarray]) -> Rows | np.ndarray:
        """Return inputs of which some rows can be read without the others; anything else is read and checked at once.

        The latter also refuses what has a wrong shape or dtype.
        """
        plain = type(given) in (np.ndarray, np.memmap) and given.dtype.kind in "biuf" and given.dtype.itemsize <= 8
        if plain and given.ndim >= 2 and math.prod(given.shape[1:]) == p:
            checked(name, given[:0])  # Without a preprocessing, images are refused.
            return cls(name, given, p, checked)
        return checked(name, given)

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """Return the rows with the given numbers (k, p)."""
        return self.checked(self.name, np.asarray(self.given[chosen]))

    @property
    def blocks(self) -> int:
        """The number of blocks of BLOCK rows; the last one may have fewer."""
        return -(-len(self.given) // BLOCK)

    def look(self, first: int, last: int) -> Seen:
        """Read the blocks first … last − 1."""
        sums, bad, where = [], 0, math.inf
        for k in range(first, last):
            rows = self[k * BLOCK : (k + 1) * BLOCK]
            sums.append(zlib.crc32(np.ascontiguousarray(rows).view(np.uint8).data))
            wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if wrong.size and not bad:
                where = k * BLOCK + int(wrong[0])
            bad += wrong.size
        return Seen(tuple(sums), bad, where)

    def total(self, parts: list[Seen], finite: bool) -> int:
        """Return the checksum of all rows from what was seen, in order; if they must be `finite`, refuse others."""
        bad = sum(part.bad for part in parts)
        if finite and bad:
            checks.refuse_not_finite(self.name, bad, len(self), min(part.first for part in parts))
        return zlib.crc32(np.array([s for part in parts for s in part.sums], "<u4").tobytes())
