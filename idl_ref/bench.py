"""The command `bench` measures what it costs to serve a saved model, for each backend and each export that works here.

Each row of the result is measured in fresh processes. Several processes import, load the model, answer once and end;
they measure the time to the first answer. One further process measures everything else.
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

from idl_ref import checks, files
from idl_ref._version import __version__
from idl_ref.backends import available_backends
from idl_ref.export import export
from idl_ref.model import ImplicitModel

MANY = 256  # The number of samples in a batch.
BASE = "import numpy"  # The row to which the others are compared.
COLUMNS = (  # For each column of the table: heading, key, format.
    ("import ms", "import_ms", "{:.0f}"),
    ("load ms", "load_ms", "{:.1f}"),
    ("fresh process to first answer ms", "first_answer_ms", "{:.0f}"),
    ("one sample p50 µs", "p50_us", "{:.2f}"),
    ("p99 µs", "p99_us", "{:.2f}"),
    (f"samples/s, m = {MANY}", "samples_per_second", "{:,.0f}"),
    ("resident MiB", "resident_mib", "{:.0f}"),
    ("on disk MB", "installed_mb", "{:.1f}"),
)

# Programs that fresh processes run, as text with places for str.format.
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
predict = model.freeze()"""
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
    """Add the command `bench` to the command line."""
    parser = commands.add_parser("bench", help="measure what a saved model costs to serve", formatter_class=formatter)
    parser.description = (
        "Measure what it costs to serve a saved model on this machine: the times of import, load, first answer, one "
        "sample and batches, and the memory and disk space. Every backend that works here and every export is measured "
        "in fresh processes, one after the other."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .npz or .safetensors file that train wrote")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="duration of each speed measurement")
    starts = "number of fresh processes that measure the first answer"
    parser.add_argument("--starts", type=int, default=5, metavar="K", help=starts)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file, as JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    """Run the command `bench`."""
    figures = bench(options.model, options.seconds, options.starts)
    print(table(figures))
    if options.json is not None:
        with files.replacing(options.json, "w") as stream:
            stream.write(json.dumps(figures, indent=2) + "\n")
        print(f"wrote {checks.printable(options.json)}")
    return 0


def bench(path: str | os.PathLike[str], seconds: float = 1.0, starts: int = 5) -> dict[str, Any]:
    """Measure every row, and return the figures of each row by its name together with a description of the machine.

    `seconds` is the duration of each speed measurement. `starts` is the number of fresh processes for the time to the
    first answer, of which the median is reported.
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
    """Draw MANY inputs that are normally distributed after the preprocessing of the model, and return them raw."""
    U = np.random.default_rng(0).standard_normal((MANY, model.input_dim))
    pre = model.preprocessing
    return (U if pre is None else pre.inverse(U)).astype(model.dtype)


def _python(program: str) -> str:
    """Run a program in a fresh Python process and return what the process prints."""
    # The folder of this library stands first in PYTHONPATH, so that this copy is measured. The process may write
    # bytecode, because installed packages have bytecode too.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"a process that bench measures failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _fresh(program: str, starts: int) -> float:
    """Return the median time from the start of a process to its end, in milliseconds."""
    taken = []
    for _ in range(starts):
        start = time.perf_counter()
        _python(program)
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)


def _base(starts: int) -> dict[str, Any]:
    """Measure a process that only imports NumPy; the other rows are compared to this one."""
    return {"first_answer_ms": _fresh("import numpy", starts), "installed_mb": sum(closure(("numpy",)).values()) / 1e6}


def _measure(row: Row, samples: Path, seconds: float, starts: int) -> dict[str, Any]:
    """Return the figures of one row."""
    # This process runs first, so that compiled code is in the cache before the fresh processes are timed.
    figures = json.loads(_python(row.everything(samples, seconds)))
    return {
        **figures,
        "first_answer_ms": _fresh(row.first_answer(samples), starts),
        "installed_mb": row.installed_mb(),
    }


def _machine() -> dict[str, Any]:
    """Describe the machine: platform, number of CPUs, load and versions of packages."""
    versions = {"python": platform.python_version(), "idl-ref": __version__}
    for package in ("numpy", "numba", "onnxruntime"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"platform": platform.platform(), "cpus": os.cpu_count(), "load": load, "versions": versions}


def table(figures: dict[str, Any]) -> str:
    """Write the figures as a table in Markdown, followed by the reasons of the rows that could not be measured."""
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
    lines += [f"\n{name} was not measured: {row['reason']}" for name, row in figures["rows"].items() if "reason" in row]
    return "\n".join(lines)


class Row(NamedTuple):
    """One way to serve a model, which becomes one row of the table.

    Attributes
    ----------
    name : str
        The heading of the row.
    imports, load : str
        Program text that imports the libraries, and that defines the function `predict`.
    packages : tuple of str
        The packages that must be installed.
    files : tuple of Path
        The files that must be shipped.
    one : str
        Program text of a function that answers one sample.
    """

    name: str
    imports: str
    load: str
    packages: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    one: str = "lambda: predict(u)"

    def first_answer(self, samples: Path) -> str:
        """Return a program that imports, loads the model and answers once."""
        return ANSWER.format(imports=self.imports, load=self.load, samples=str(samples))

    def everything(self, samples: Path, seconds: float) -> str:
        """Return a program that answers once, then measures, and prints the figures as one line of JSON."""
        return self.first_answer(samples) + REST.format(one=self.one, seconds=seconds)

    def installed_mb(self) -> float:
        """Return the size on disk of the files and of all packages that the row needs, in megabytes."""
        return (sum(path.stat().st_size for path in self.files) + sum(closure(self.packages).values())) / 1e6


def rows(model: ImplicitModel, path: Path, folder: Path) -> Iterator[tuple[str, Row | str]]:
    """Yield the name of each row, with the row itself or the reason why it cannot be measured here.

    Exports are written into `folder`.
    """
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
    """Export the model to NumPy and return its row."""
    files = export(model, "numpy", folder).files
    return Row(name, "import numpy", FILE.format(folder=str(folder)), ("numpy",), tuple(files))


def _c(name: str, model: ImplicitModel, folder: Path) -> Row:
    """Export the model to C, compile a shared library and return its row.

    One sample is measured by a call with raw pointers, as a C program makes it; the call from Python adds about 0.5 µs.
    """
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
    """Export the model to ONNX and return its row, which runs in ONNX Runtime."""
    if not find_spec("onnxruntime"):
        raise ImportError("onnxruntime is not installed")
    files = export(model, "onnx", folder).files
    load = ONNX.format(path=str(files[0]))
    return Row(name, "import onnxruntime", load, ("onnxruntime",), tuple(files))


def closure(packages: tuple[str, ...]) -> dict[str, int]:
    """Return the size in bytes of the given packages and of all packages they depend on, by name.

    Files in `__pycache__` do not count, and packages that are not installed are left out.
    """
    found: dict[str, int] = {}
    waiting = [package.lower().replace("_", "-") for package in packages]
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        if package == "idl-ref":  # This library may run from a source tree, of which no list of installed files exists.
            root = Path(__file__).parent
            found[package] = _size(path for path in root.rglob("*") if path.is_file())
            continue
        try:
            distribution = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            continue  # Such a dependency is needed on another system or for an older Python only.
        found[package] = _size(Path(str(file.locate())) for file in distribution.files or ())
        needs = [text for text in distribution.requires or () if "extra ==" not in text]
        waiting += [re.split(r"[^\w.-]", text, maxsplit=1)[0].lower().replace("_", "-") for text in needs]
    return found


def _size(files: Iterator[Path]) -> int:
    """Return the sum of the sizes of the files outside `__pycache__`, in bytes."""
    return sum(path.stat().st_size for path in files if "__pycache__" not in path.parts and path.is_file())
