"""This module checks which device an equation is solved on: streams, and arrays that lie on the device already."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref import checks


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
    if backend == "cuda":
        return
    if stream is not None:
        raise ValueError(
            f'stream is for backend="cuda"; got backend={backend!r}: '
            'leave it out of SolveOptions, or pass backend="cuda".'
        )
    for array in arrays:
        if type(array) is checks.OnDevice:
            raise ValueError(
                f'arrays on a CUDA device need backend="cuda"; got backend={backend!r}: '
                'pass backend="cuda", or copy the arrays to the host.'
            )
