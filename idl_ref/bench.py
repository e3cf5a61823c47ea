"""The command `bench`: what a saved model costs where it serves, for the backends and the exports that work here.

Each row is measured in processes of its own: some that import, load, answer once and end, for the time of a first
answer; and one that goes on, for everything else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks
from idl_ref._version import __version__
from idl_ref.backends import available_backends
from idl_ref.export import export
from idl_ref.model import ImplicitModel

MANY = 256  # samples of a batch
BASE = "import numpy"
COLUMNS = (  # heading, key, format
    ("import ms", "import_ms", "{:.0f}"),
    ("load ms", "load_ms", "{:.1f}"),
    ("fresh process to first answer ms", "first_answer_ms", "{:.0f}"),
    ("one sample p50 µs", "p50_us", "{:.2f}"),
    ("p99 µs", "p99_us", "{:.2f}"),
    (f"samples/s, m = {MANY}", "samples_per_second", "{:,.0f}"),
    ("resident MiB", "resident_mib", "{:.0f}"),
    ("on disk MB", "installed_mb", "{:.1f}"),
)

# What is measured, as text for a fresh process.
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


def add(commands: Any, formatter: type[argparse.HelpFormatter]) -> None:
    """Register the command."""
    parser = commands.add_parser("bench", help="measure what a saved model costs to serve", formatter_class=formatter)
    parser.description = (
        "Measure a saved model where it serves: import, load, first answer, one sample, batches, memory and disk, for "
        "every backend that works here and for the exports, in processes of their own, one after the other."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .npz or .safetensors file that train wrote")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="of each speed measurement")
    parser.add_argument("--starts", type=int, default=5, metavar="K", help="fresh processes for a first answer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures too, as JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    figures = bench(options.model, options.seconds, options.starts)
    print(table(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {options.json}")
    return 0


def bench(path: str | os.PathLike[str], seconds: float = 1.0, starts: int = 5) -> dict[str, Any]:
    """The figures of every row by its name, and what is known of the machine.

    `seconds` is that of each speed measurement; `starts` counts the fresh processes, of whose times the median counts.
    """
    checks.number("seconds", seconds, 0)
    checks.integer("starts", starts, 1)
    model = ImplicitModel.load(path)
    figures: dict[str, dict[str, Any]] = {BASE: _base(starts)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = folder / "samples.npy"
        np.save(samples, _samples(model))
        for title, row in rows(model, Path(path).resolve(), folder):
            figures[title] = {"reason": row} if isinstance(row, str) else _measure(row, samples, seconds, starts)
    return {"model": repr(model), "machine": _machine(), "rows": figures}


def _samples(model: ImplicitModel) -> np.ndarray:
    """Normal random inputs, as they are before preprocessing."""
    U = np.random.default_rng(0).standard_normal((MANY, model.input_dim))
    pre = model.preprocessing
    return (U if pre is None else U * pre.scale + pre.mean).astype(model.dtype)


def _python(program: str) -> str:
    # This library in front, wherever it stands; with bytecode, as installed packages have it.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"a measured process failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _fresh(program: str, starts: int) -> float:
    """Milliseconds from the start of a process to its end, the median."""
    taken = []
    for _ in range(starts):
        start = time.perf_counter()
        _python(program)
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)


def _base(starts: int) -> dict[str, Any]:
    """Of NumPy alone: the ruler for the others."""
    return {"first_answer_ms": _fresh("import numpy", starts), "installed_mb": sum(closure(("numpy",)).values()) / 1e6}


def _measure(row: Row, samples: Path, seconds: float, starts: int) -> dict[str, Any]:
    figures = json.loads(_python(row.everything(samples, seconds)))  # first: what is compiled, is compiled here
    return {
        **figures,
        "first_answer_ms": _fresh(row.first_answer(samples), starts),
        "installed_mb": row.installed_mb(),
    }


def _machine() -> dict[str, Any]:
    versions = {"python": platform.python_version(), "idl-ref": __version__}
    for package in ("numpy", "numba", "onnxruntime"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"platform": platform.platform(), "cpus": os.cpu_count(), "load": load, "versions": versions}


def table(figures: dict[str, Any]) -> str:
    """The figures in Markdown."""
    machine = figures["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = "" if machine["load"] is None else f", load {machine['load']:.1f}"
    lines = [figures["model"], f"{machine['platform']}, {machine['cpus']} CPUs{load}; {versions}", ""]
    lines.append("| | " + " | ".join(heading for heading, _, _ in COLUMNS) + " |")
    lines.append("|---|" + "---|" * len(COLUMNS))
    for name, row in figures["rows"].items():
        cells = [form.format(row[key]) if row.get(key) is not None else "—" for _, key, form in COLUMNS]
        if "reason" not in row:
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [f"\nno {name}: {row['reason']}" for name, row in figures["rows"].items() if "reason" in row]
    return "\n".join(lines)


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
        state, name = available_backends()[backend], f"idl_ref, {backend}"
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
            root = Path(__file__).parent
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
