"""What `bench` measures: a row for every backend that works here and for every export, as text for a fresh process."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import idl_ref
from idl_ref.export import export
from idl_ref.model import ImplicitModel

ANSWER = """\
import time
begin = time.perf_counter()
{imports}
imported = time.perf_counter()
import numpy
u, U = (numpy.load({samples!r})[:m] for m in (1, None))
starting = time.perf_counter()
{load}
loaded = time.perf_counter()
predict(u)
answered = time.perf_counter()
"""
REST = """\
import json, os
def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return None
memory = resident()
def turns(call):
    taken, end = [], time.perf_counter() + {seconds}
    while len(taken) < 9 or (time.perf_counter() < end and len(taken) < 200_000):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return sorted(taken)
one, many = turns({one}), turns(lambda: predict(U))
print(json.dumps({{
    "import_ms": 1e3 * (imported - begin), "load_ms": 1e3 * (loaded - starting),
    "p50_us": 1e6 * one[len(one) // 2], "p99_us": 1e6 * one[int(0.99 * len(one))],
    "samples_per_second": len(U) / many[len(many) // 2], "resident_mib": memory,
}}))
"""
LIBRARY = """\
from dataclasses import replace
model = idl_ref.load({path!r})
model.settings = replace(model.settings, backend={backend!r})
predict = model.freeze(raw=model.preprocessing is not None)"""
FILE = """\
import sys
sys.path.insert(0, {folder!r})
from predict import predict"""
C = """\
run = ctypes.CDLL({path!r}).idl_predict
run.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
def predict(U):
    Y = numpy.empty((len(U), {q}), U.dtype)
    run(U.ctypes.data, len(U), Y.ctypes.data)
    return Y
there, back = u.ctypes.data, numpy.empty((1, {q}), u.dtype)
place = back.ctypes.data"""
ONNX = """\
session = onnxruntime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])
def predict(U):
    return session.run(None, {{"U": U}})[0]"""


class Row(NamedTuple):
    """What it imports, how it gets `predict`, what it calls for one sample, and what must be installed for it."""

    name: str
    imports: str
    load: str
    packages: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    one: str = "lambda: predict(u)"

    def first_answer(self, samples: Path) -> str:
        """A program that imports, loads and answers once."""
        return ANSWER.format(imports=self.imports, load=self.load, samples=str(samples))

    def everything(self, samples: Path, seconds: float) -> str:
        """The same, and then the measurements, as a line of JSON."""
        return self.first_answer(samples) + REST.format(one=self.one, seconds=seconds)

    def installed_mb(self) -> float:
        """Megabytes on disk of its files and of the packages it needs, with all that those need."""
        return (sum(path.stat().st_size for path in self.files) + sum(closure(self.packages).values())) / 1e6


def rows(model: ImplicitModel, path: Path, folder: Path) -> Iterator[tuple[str, Row | str]]:
    """Names, each with a row or the reason why there is none; `folder` takes what is exported."""
    for backend, needs in (("numpy", ()), ("numba", ("numba",))):
        state, name = idl_ref.backends()[backend], f"idl_ref, {backend}"
        load = LIBRARY.format(path=str(path), backend=backend)
        row = Row(name, "import idl_ref", load, ("idl-ref", "numpy", *needs), (path,))
        yield name, row if state == "available" else state
    for to, make in (("numpy", _numpy), ("c", _c), ("onnx", _onnx)):
        name = f"export to {to}"
        try:
            yield name, make(name, model, folder / to)
        except (ImportError, ValueError) as reason:
            yield name, str(reason)


def _numpy(name: str, model: ImplicitModel, folder: Path) -> Row:
    files = export(model, "numpy", folder).files
    return Row(name, "import numpy", FILE.format(folder=str(folder)), ("numpy",), tuple(files))


def _c(name: str, model: ImplicitModel, folder: Path) -> Row:
    """Compiled as a library. One sample is called with pointers, as from C; Python's part of that is 0.5 µs."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise ImportError("there is no C compiler here")
    export(model, "c", folder)
    flags = ["-std=c99", "-O3", "-march=native", "-fPIC", "-shared"]
    library = folder / "model.so"
    command = [compiler, *flags, "-o", str(library), str(folder / "idl_model.c"), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ImportError(f"{compiler} failed: {done.stderr.strip()[:200]}")
    load = C.format(path=str(library), q=model.output_dim)
    return Row(name, "import ctypes", load, (), (library,), "lambda: run(there, 1, place)")


def _onnx(name: str, model: ImplicitModel, folder: Path) -> Row:
    if not find_spec("onnxruntime"):
        raise ImportError("onnxruntime is not installed")
    files = export(model, "onnx", folder).files
    load = ONNX.format(path=str(files[0]))
    return Row(name, "import onnxruntime", load, ("onnxruntime",), tuple(files))


def closure(packages: tuple[str, ...]) -> dict[str, int]:
    """Bytes of every package that these need, themselves included; of installed ones, compiled caches left out."""
    found: dict[str, int] = {}
    waiting = [package.lower().replace("_", "-") for package in packages]
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        if package == "idl-ref":  # where it stands, which may be a working tree
            root = Path(idl_ref.__file__).parent
            found[package] = _size(path for path in root.rglob("*") if path.is_file())
            continue
        try:
            distribution = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            continue  # needed elsewhere: on another system, or by an older Python
        found[package] = _size(Path(str(file.locate())) for file in distribution.files or ())
        needs = [text for text in distribution.requires or () if "extra ==" not in text]
        waiting += [re.split(r"[^\w.-]", text, maxsplit=1)[0].lower().replace("_", "-") for text in needs]
    return found


def _size(files: Iterator[Path]) -> int:
    return sum(path.stat().st_size for path in files if "__pycache__" not in path.parts and path.is_file())
