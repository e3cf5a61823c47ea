"""How the Numba twin is compiled: its options, how long machine code is kept on disk, and the vectors it is made of."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit

from idl_ref import activations, certificate
from idl_ref.backends import methods

PLAIN = bool(getattr(config, "DISABLE_JIT", False))  # njit returns functions as they are: all kernels are plain Python
if PLAIN:
    from idl_ref.backends.numba import simd_plain as vec
else:
    from idl_ref.backends.numba import simd as vec  # type: ignore[no-redef]

# There is no fastmath: NaN must stay NaN. `compiled` makes no wrappers, because Python calls entry points only. Entry
# points alone allocate; all other functions count no references, which would take a good part of the time of small
# columns.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
INTERNAL = {**OPTIONS, "no_cpython_wrapper": True, "_nrt": False}
compiled: Callable[[Any], Any] = njit(**INTERNAL)

# Files outside of this folder from which compiled code takes functions and constants.
TAKEN_IN = (activations.__file__, certificate.__file__, methods.__file__)
ATTEMPTS = 3  # calls of the compiler for one signature, as long as its result cannot be written to disk


def sources() -> list[Path]:
    """Every file that compiled code is made of: this folder, and what is taken in from outside of it."""
    return [*sorted(Path(__file__).parent.glob("*.py")), *(Path(str(file)) for file in TAKEN_IN)]


def _fingerprint() -> str:
    """A digest of the sources of compiled code, and of the size of the vectors that it uses.

    Numba's cache by itself notices a change of the entry point's own file and of the CPU, but of no other file.
    """
    digest = hashlib.sha256(f"{vec.VECTOR_BYTES} {vec.GROUP}".encode())
    for path in sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


FINGERPRINT = _fingerprint()


def entry(function: Any) -> Any:
    """Compile a function that Python calls, and keep the machine code on disk where that is possible.

    Numba names the files on disk by `__qualname__`. The fingerprint in this name makes every change of the sources
    start new files.
    """
    if PLAIN:
        return np.errstate(all="ignore")(function)  # compiled code does not warn, either
    function.__qualname__ += f"_{FINGERPRINT}"
    try:
        kernel: Any = njit(**{**OPTIONS, "cache": True})(function)
    except RuntimeError:  # neither the package nor the user's cache directory can be written
        kernel = njit(**OPTIONS)(function)
    kernel.compile = _undisturbed(kernel.compile)  # Numba calls it for arguments of new types.
    return kernel


def _undisturbed(compile_signature: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`Dispatcher.compile` without garbage collection, and without failure where the result cannot be kept.

    The objects of a compiler live long: the search for garbage among them takes a tenth of the time. Numba raises
    OSError when the disk is full or the directory is gone, but has added the compiled code to the dispatcher by then,
    and the next attempt finds it there.
    """

    def compile_undisturbed(signature: Any) -> Any:
        collects = gc.isenabled()
        gc.disable()
        try:
            for _ in range(ATTEMPTS - 1):
                try:
                    return compile_signature(signature)
                except OSError:
                    continue
            return compile_signature(signature)
        finally:
            if collects:
                gc.enable()

    return compile_undisturbed
