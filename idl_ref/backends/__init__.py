"""The twins by name. Each is a package with the same classes, `Layer` and `Trainer`, imported when first asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from idl_ref import checks

__all__ = ["available_backends", "warmup"]

if TYPE_CHECKING:
    from idl_ref.backends.numpy import Layer, Trainer

AVAILABLE = "available"
PREFERENCE = ("numba", "numpy")  # what "auto" takes, best first; cuda is asked for by name
NAMES = ("numpy", "numba", "cuda")
CHOICES = ("auto", *NAMES)


class Twin(NamedTuple):
    """What every twin offers."""

    Layer: type[Layer]  # weights prepared once: solve, forward, backward
    Trainer: type[Trainer]  # takes training steps
    warmup: Callable[[np.dtype], None]  # compiles ahead of the first solve


def available_backends() -> dict[str, str]:
    """Every backend by name: "available", or the reason why it is not.

    Examples
    --------
    >>> available_backends()["numpy"]
    'available'
    """
    return {name: _reason(name) for name in NAMES}


def _reason(name: str) -> str:
    if name == "numpy":
        return AVAILABLE
    if name == "numba":
        return AVAILABLE if find_spec("numba") else 'numba is not installed; pip install "idl-ref[numba]"'
    if not (find_spec("numba") and find_spec("numba_cuda")):
        return 'numba-cuda is not installed; pip install "idl-ref[cuda]"'
    from idl_ref.backends.cuda import api

    return api.reason() or AVAILABLE


def _runs_as_plain_python() -> bool:
    """Whether Numba compiles nothing, so that a debugger can enter the kernels; they take a thousand times as long."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def resolve(name: str) -> str:
    """The backend that `name` stands for; a clear refusal if it cannot be used here."""
    checks.choice("backend", name, CHOICES)
    if name == "auto":  # does not look for cuda, because that look imports numba.cuda
        plain = _runs_as_plain_python()
        return next(twin for twin in PREFERENCE if _reason(twin) == AVAILABLE and not (twin == "numba" and plain))
    if (reason := _reason(name)) != AVAILABLE:
        usable = ", ".join(twin for twin, reason in available_backends().items() if reason == AVAILABLE)
        raise ValueError(f"backend {name!r} is not available: {reason}. Available: {usable}.")
    return name


@cache
def twin(name: str) -> Twin:
    """The twin that `name` stands for."""
    name = resolve(name)
    if name == "numba":
        from idl_ref.backends import numba

        return Twin(numba.Layer, numba.Trainer, numba.warmup)
    if name == "cuda":
        from idl_ref.backends import cuda

        return Twin(cuda.Layer, cuda.Trainer, cuda.warmup)
    from idl_ref.backends import numpy

    return Twin(numpy.Layer, numpy.Trainer, numpy.warmup)


def warmup(dtypes: Iterable[str] = ("float32", "float64"), backend: str = "numba") -> None:
    """Compile ahead of the first solve, and keep the result on disk where that is possible.

    Parameters
    ----------
    dtypes : iterable of {"float32", "float64"}
    backend : {"auto", "numpy", "numba", "cuda"}
        NumPy has nothing to compile.

    Examples
    --------
    >>> warmup(["float32"], backend="numpy")
    """
    kinds = [checks.model_dtype(dtype) for dtype in ([dtypes] if isinstance(dtypes, str) else dtypes)]
    for dtype in kinds:
        twin(backend).warmup(dtype)
