"""This module has samples that stay where they are, in memory or in a file, until a step reads some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Rows:
    """Samples along the first axis of an array, of which only those that are asked for are read, and then checked.

    Parameters
    ----------
    name : str
        What messages call the array.
    given : (m, …) array
        The raw samples, which may be a memory map.
    checked : callable
        The function of a name and of raw samples that returns them checked, in the form in which they are used.
    """

    def __init__(self, name: str, given: np.ndarray, checked: Callable[[str, Any], np.ndarray]) -> None:
        self.name, self.given, self.checked = name, given, checked
        checked(name, given[:0])  # This refuses a wrong dtype, and images for which there is no preprocessing.

    @staticmethod
    def takes(given: Any) -> bool:
        """Whether something is an array of numbers or words on the host, some samples of which can be read alone."""
        return type(given) in (np.ndarray, np.memmap) and given.ndim > 0 and given.dtype.kind in "biufUS"

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """Return the samples with the given numbers, or for (…, numbers), those along the last axis of the result."""
        numbers, name = chosen[-1] if isinstance(chosen, tuple) else chosen, self.name
        if isinstance(numbers, slice):
            first, last, _ = numbers.indices(len(self))
            name = name if last - first == len(self) else f"{name}[{first}:{last}]"
        return self.checked(name, np.asarray(self.given[numbers]))


Some = np.ndarray | Rows


def some_of(U: Some, T: Some, weights: Any, chosen: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the samples with the given numbers: inputs (k, p), targets (…, k), and weights (k,) if there are any."""
    return U[chosen], T[..., chosen], None if weights is None else weights[chosen]
