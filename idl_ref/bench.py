"""The command `bench`: what a saved model costs where it serves, for the backends and the exports that work here.

Each row is measured in processes of its own: some that import, load, answer once and end, for the time of a first
answer; and one that goes on, for everything else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import idl_ref
from idl_ref import checks
from idl_ref.bench_rows import Row, closure, rows
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

    Parameters
    ----------
    path : path
        A saved model.
    seconds : float
        Of each speed measurement.
    starts : int
        Fresh processes for the time of a first answer; the median counts.
    """
    checks.number("seconds", seconds, 0)
    checks.integer("starts", starts, 1)
    model = idl_ref.load(path)
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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=_environment())
    if done.returncode != 0:
        raise RuntimeError(f"a measured process failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    """This library in front, wherever it stands; with bytecode, as installed packages have it."""
    path = os.pathsep.join(filter(None, [str(Path(idl_ref.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""}


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
    versions = {"python": platform.python_version(), "idl-ref": idl_ref.__version__}
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
