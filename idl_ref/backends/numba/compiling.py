"""How the Numba twin is compiled: its options, how long machine code is kept on disk, and the vectors it is made of."""

from __future__ import annotations

import gc
import hashlib
import pickle
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

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
inlined: Callable[[Any], Any] = njit(**INTERNAL, inline="always")  # compiled anew in each caller, with its constants

# Files outside of this folder from which compiled code takes functions and constants.
TAKEN_IN = (activations.__file__, certificate.__file__, methods.__file__)


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


class Cache(FunctionCache):
    """Numba's cache on disk, in which a damaged file counts as a missing one: the function is compiled anew.

    Every entry is stored with its key and a checksum. The checksum finds damage that `pickle` does not notice, which
    would otherwise be executed as machine code. The key finds an entry of other types or of another CPU: two processes
    that start at once can choose the same file name for different entries.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for the types `sig`, or None if the disk does not hold it undamaged."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # Damaged bytes make pickle raise many kinds of exceptions.
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a compiled function to disk if that is possible. A damaged index is replaced by an empty one before."""
        with suppress(OSError):  # The disk is full, or the folder is gone or cannot be written.
            try:
                super().save_overload(sig, data)
            except OSError:
                raise
            except Exception:
                self.flush()
                super().save_overload(sig, data)

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        key = self._index_key(sig, target_context.codegen())
        entry = self._cache_file.load(key)
        if entry is None:
            return None
        stored_key, checksum, content = entry
        if stored_key != key or checksum != zlib.crc32(content):
            return None
        return self._impl.rebuild(target_context, pickle.loads(content))

    def _save_overload(self, sig: Any, data: Any) -> None:
        if self._impl.check_cachable(data):
            self._impl.locator.ensure_cache_path()
            key, content = self._index_key(sig, data.codegen), dumps(self._impl.reduce(data))
            self._cache_file.save(key, (key, zlib.crc32(content), content))


def entry(function: Any) -> Any:
    """Compile a function that Python calls, and keep the machine code on disk where that is possible.

    Numba names the files on disk by `__qualname__`. The fingerprint in this name makes every change of the sources
    start new files.
    """
    if PLAIN:
        return np.errstate(all="ignore")(function)  # compiled code does not warn, either
    function.__qualname__ += f"_{FINGERPRINT}"
    kernel: Any = njit(**OPTIONS)(function)
    with suppress(RuntimeError):  # Neither the package nor the user's cache directory can be written.
        kernel._cache = Cache(function)
    kernel.compile = _undisturbed(kernel.compile)  # Numba calls it for arguments of new types.
    return kernel


def _undisturbed(compile_signature: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`Dispatcher.compile` without garbage collection.

    The objects of a compiler live long: the search for garbage among them takes a tenth of the time.
    """

    def compile_undisturbed(signature: Any) -> Any:
        collects = gc.isenabled()
        gc.disable()
        try:
            return compile_signature(signature)
        finally:
            if collects:
                gc.enable()

    return compile_undisturbed


@entry
def double(i: int) -> int:
    """2 i: a function that is compiled and called to find out whether the compiler works here."""
    return 2 * i
