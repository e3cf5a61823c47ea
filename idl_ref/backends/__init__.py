"""A backend, or twin, is one of three implementations of the same solvers: numpy, numba and cuda.

Each twin is a package that offers the same classes, `Layer` and `Trainer`, and is imported when it is first used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from idl_ref import checks
from idl_ref.choices import BACKENDS, TWINS, Backend, Dtype, TwinName

__all__ = ["available_backends", "warmup"]

if TYPE_CHECKING:
    from idl_ref.backends.numpy import Layer, Trainer

AVAILABLE = "available"
# "auto" takes the first of these that is available; cuda must be requested by name.
PREFERENCE: tuple[TwinName, ...] = ("numba", "numpy")


class Twin(NamedTuple):
    """The interface that every twin offers."""

    Layer: type[Layer]  # prepares weights once, and offers solve, forward and backward
    Trainer: type[Trainer]  # takes training steps
    warmup: Callable[[np.dtype], None]  # compiles for one dtype ahead of the first solve


def available_backends() -> dict[str, str]:
    """Return, for every backend by name, either the word "available" or the reason why the backend cannot be used.

    Returns
    -------
    dict
        The keys are "numpy", "numba" and "cuda".

    Notes
    -----
    A backend counts as available only if it has run here: the twin is imported, and a small function is compiled and
    called. An installed package that does not work, such as a numba that refuses this version of NumPy, is a reason.
    The first call imports numba, and numba.cuda where numba-cuda is installed.

    Examples
    --------
    >>> available_backends()["numpy"]
    'available'
    """
    return {name: _reason(name) for name in TWINS}


def _reason(name: str) -> str:
    """Return AVAILABLE, or the reason why a backend cannot be used here."""
    if name == "numpy":
        return AVAILABLE
    if name == "numba":
        return _numba_reason() or AVAILABLE
    try:
        if not (find_spec("numba") and find_spec("numba_cuda")):
            return 'numba-cuda is not installed; pip install "idl-ref[cuda]"'
        from idl_ref.backends import cuda  # noqa: F401 (This import shows that every module of the twin can be used.)
        from idl_ref.backends.cuda import api

        return api.reason() or AVAILABLE
    except (Exception, SystemExit) as reason:  # A package that is installed but broken raises anything.
        return f"numba.cuda is installed but does not work: {_shown(reason)}"


@cache
def _numba_reason() -> str:
    """Return why the Numba twin cannot compute here; "" if it can. The answer holds for the whole process."""
    try:
        if not find_spec("numba"):
            return 'numba is not installed; pip install "idl-ref[numba]"'
        from idl_ref.backends import numba  # noqa: F401 (This import shows that every module of the twin can be used.)
        from idl_ref.backends.numba.compiling import double

        if double(21) != 42:
            return "numba is installed but computes wrong results"
    except (Exception, SystemExit) as reason:  # SystemError, ImportError, …: a broken package raises anything.
        return f"numba is installed but does not work: {_shown(reason)}"
    return ""


def _shown(reason: BaseException) -> str:
    """Return the kind of an exception and the first 200 characters of its message, on one line."""
    return f"{type(reason).__name__}: {checks.printable(str(reason))[:200]}"


def _runs_as_plain_python() -> bool:
    """Tell whether NUMBA_DISABLE_JIT makes Numba run kernels as plain Python, about a thousand times slower.

    Developers set this variable so that a debugger can enter the kernels.
    """
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def resolve(name: Backend) -> TwinName:
    """Return the backend that `name` stands for, or raise ValueError with the reason if it cannot be used here."""
    checks.choice("backend", name, BACKENDS)
    if name == "auto":  # "auto" does not test for cuda, because that test imports numba.cuda.
        plain = _runs_as_plain_python()
        return next(twin for twin in PREFERENCE if _reason(twin) == AVAILABLE and not (twin == "numba" and plain))
    if (reason := _reason(name)) != AVAILABLE:
        usable = ", ".join(twin for twin, reason in available_backends().items() if reason == AVAILABLE)
        raise ValueError(f"backend {name!r} is not available: {reason}. Available: {usable}.")
    return name


def twin(name: Backend) -> Twin:
    """Import and return the twin that `name` stands for."""
    return _twin(checks.choice("backend", name, BACKENDS))  # The keys of a cache must be hashable, as words are.


@cache
def _twin(name: Backend) -> Twin:
    """Return the twin of a name that is one of BACKENDS."""
    name = resolve(name)
    if name == "numba":
        from idl_ref.backends import numba

        return Twin(numba.Layer, numba.Trainer, numba.warmup)
    if name == "cuda":
        from idl_ref.backends import cuda

        return Twin(cuda.Layer, cuda.Trainer, cuda.warmup)
    from idl_ref.backends import numpy

    return Twin(numpy.Layer, numpy.Trainer, numpy.warmup)


def warmup(dtypes: Iterable[Dtype] = ("float32", "float64"), backend: Backend = "numba") -> None:
    """Compile a backend ahead of its first solve and training step, and cache the code on disk if that is possible.

    Parameters
    ----------
    dtypes : iterable of {"float32", "float64"}
        The dtypes to compile for.
    backend : {"auto", "numpy", "numba", "cuda"}
        The NumPy backend has nothing to compile.

    Raises
    ------
    ValueError
        A dtype that is neither of the two, or a backend that is not available.

    Examples
    --------
    >>> warmup(["float32"], backend="numpy")
    """
    kinds = [checks.model_dtype(dtype) for dtype in ([dtypes] if isinstance(dtypes, str) else dtypes)]
    for dtype in kinds:
        twin(backend).warmup(dtype)
