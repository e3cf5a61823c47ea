"""Write docs/scoreboard.md: run every backend of the table below through the conformance kit, and score it.

    python docs/scoreboard.py [--python PATH …] [--only NAME …] [--fast] [--timeout S] [--reports DIR]

A backend runs in a process of its own, by the first of the interpreters that has what it needs: this one, and those
after --python. What cannot be run stands in the page with the reason. --only runs the named backends again, and takes
the others from the reports that an earlier run left in the folder --reports.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from idl_ref.conformance.score.words import counted, duration  # noqa: E402

PAGE, CLIENTS = ROOT / "docs" / "scoreboard.md", ROOT / "examples" / "clients"
EXPECTED = ROOT / "examples" / "backends" / "expected"


CC, CPP, RUST = ("cc", "-std=c99", "-O2"), ("c++", "-std=c++17", "-O2"), ("rustc", "--edition", "2021", "-O")


class Entrant(NamedTuple):
    """A backend: its name, what names it to `run --backend` or, after a build, `run --command`, and what it needs."""

    name: str
    backend: str
    modules: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    expected: str = ""


ENTRANTS = (
    Entrant("NumPy twin", "idl_ref.conformance.adapters:numpy"),
    Entrant("Numba twin", "idl_ref.conformance.adapters:IdlRef", ("numba",)),
    Entrant("PyTorch autograd", "examples.backends.pytorch_autograd:TorchAutograd", ("torch",)),
    Entrant("torchdeq", "examples.backends.torchdeq_ift:TorchDeq", ("torch", "torchdeq"), expected="torchdeq"),
    Entrant("plain JAX", "examples.backends.jax_custom_vjp:PlainJax", ("jax",)),
    Entrant("jaxopt", "examples.backends.jaxopt_vmap:Jaxopt", ("jax", "jaxopt"), expected="jaxopt"),
    Entrant("optimistix", "examples.backends.optimistix_fixed_point:Optimistix", ("optimistix",), (), (), "optimistix"),
    Entrant("SciPy root", "examples.backends.scipy_root:ScipyRoot", ("scipy",), expected="scipy_root"),
    Entrant("SciPy newton_krylov", "examples.backends.scipy_root:ScipyKrylov", ("scipy",), expected="scipy_krylov"),
    Entrant("C export", "tests.c_export_backend:CExport", tools=("gcc",)),
    Entrant("ONNX export", "tests.onnx_export_backend:OnnxExport", ("onnx", "onnxruntime"), expected="onnx_export"),
    Entrant("C client", "{out}/c", (), ("cc",), (*CC, "{examples}/c_backend/backend.c", "-lm", "-o", "{out}/c")),
    Entrant("C++ client", "{out}/cpp", (), ("c++",), (*CPP, "{examples}/clients/backend.cpp", "-o", "{out}/cpp")),
    Entrant("Rust client", "{out}/rust", (), ("rustc",), (*RUST, "{examples}/clients/backend.rs", "-o", "{out}/rust")),
    Entrant("JavaScript client", "node {examples}/clients/backend.mjs", (), ("node",)),
)  # fmt: skip

HEAD = """# Scoreboard

What other implementations of the same equation reach in [the conformance kit](conformance.md), on one machine.
`python docs/scoreboard.py` runs them and writes this page.

An error is given in units of its bound, so that at most 1 passes: the median over the checks that passed, and the
worst of any quantity. Iterations are relative to the fewest that Picard's, Anderson's or Newton's method takes in this
library, where a backend reports them. Times are the shortest of a few calls for one problem, once it is compiled, and
are divided by the time that the NumPy twin took in turns with it; a client in another language exchanges files, which
is part of its time. The problems have n = 16, 64 and 128 hidden units and m = 1, 64 and 128 samples. Memory is the peak
of NumPy's arrays and Python's objects while one large problem is solved and differentiated, as tracemalloc sees it,
which is not what PyTorch and XLA allocate; of a client it is the peak of the whole process (`ru_maxrss`).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/scoreboard.md.")
    parser.add_argument(
        "--python", nargs="*", default=[], metavar="PATH", help="more interpreters to run backends with"
    )
    parser.add_argument("--only", nargs="*", metavar="NAME", help="the backends to run; the others keep their reports")
    parser.add_argument("--fast", action="store_true", help="run the few and small cases of run --fast")
    parser.add_argument("--timeout", type=float, default=1800.0, metavar="S", help="time limit of one backend, in s")
    parser.add_argument("--reports", type=Path, metavar="DIR", help="where the reports are kept; default: nowhere")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.reports or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = {entrant.name: outcome(entrant, folder, Path(scratch), options) for entrant in ENTRANTS}
    PAGE.write_text(page(outcomes, options.fast), encoding="utf-8")
    print(f"wrote {PAGE}")


def outcome(entrant: Entrant, folder: Path, scratch: Path, options: argparse.Namespace) -> "dict | str":
    """The report of a backend, or why there is none."""
    report = folder / f"{entrant.name.replace(' ', '_')}.json"
    if options.only is not None and entrant.name not in options.only:
        return json.loads(report.read_text("utf-8")) if report.exists() else "not run: it was left out by --only"
    print(f"{entrant.name} …", flush=True)
    report.unlink(missing_ok=True)
    if missing := [tool for tool in entrant.tools if shutil.which(tool) is None]:
        return f"not run: {missing[0]} is not installed"
    python = next((path for path in (sys.executable, *options.python) if has(path, entrant.modules)), None)
    if python is None:
        return f"not run: no interpreter that was given has {' and '.join(entrant.modules)}"
    places = {"out": scratch, "examples": ROOT / "examples"}
    if entrant.build:
        subprocess.run([part.format(**places) for part in entrant.build], check=True)
    named = "--command" if entrant.tools and not entrant.backend.startswith("tests.") else "--backend"
    command = [python, "-m", "idl_ref", "conformance", "run", named, entrant.backend.format(**places), "--score"]
    command += ["--report", str(report), *(["--fast"] * options.fast)]
    if entrant.expected:
        command += ["--expected-failures", str(EXPECTED / f"{entrant.expected}.json")]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=options.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not finished within {options.timeout:g} s"
    if not report.exists():
        return f"not run: {shlex.join(command)} ended with status {done.returncode}: {done.stderr.strip()[-200:]}"
    return json.loads(report.read_text("utf-8"))


def has(python: str, modules: tuple[str, ...]) -> bool:
    """Whether an interpreter finds all of the modules, and NumPy."""
    wanted = ("numpy", *modules)
    code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {wanted!r})))"
    return subprocess.run([python, "-c", code], check=False, stderr=subprocess.DEVNULL).returncode == 0


def page(outcomes: "dict[str, dict | str]", fast: bool) -> str:
    """The page in Markdown."""
    reports = {name: found for name, found in outcomes.items() if isinstance(found, dict)}
    lines = [HEAD, "## Checks, accuracy and iterations", ""]
    lines += ["| backend | passed | failed | as expected | skipped | median error | worst error | iterations |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [f"| {name} | {checks(report)} |" for name, report in reports.items()]
    lines += ["", "## Time and memory", ""]
    sizes = [f"{size} {what}" for size in ("small", "medium", "large") for what in ("forward", "vjp")]
    lines += [f"| backend | {' | '.join(sizes)} | memory |", "|---|" + "---|" * 7]
    lines += [f"| {name} | {costs(report, sizes)} |" for name, report in reports.items()]
    for report in reports.values():
        reasons = {r["message"].partition(" (")[0] for r in report["results"] if r["outcome"] == "expected failure"}
        if reasons:
            lines += ["", f"{report['backend']} fails as expected: {'; '.join(sorted(reasons))}."]
    lines += ["", *(f"{name}: {reason}.\n" for name, reason in outcomes.items() if isinstance(reason, str))]
    which = ", on the cases of `run --fast`" * fast
    lines += [f"Measured with Python {platform.python_version()} on {platform.system()} {platform.machine()}, with "
              f"{os.cpu_count()} cores, of which each backend used one{which}."]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def checks(report: dict) -> str:
    """The counts of checks, the errors and the iterations, as cells."""
    outcomes = [r["outcome"] for r in report["results"]]
    counts = [str(outcomes.count(which)) for which in ("passed", "failed", "expected failure", "skipped")]
    accuracy = report["score"]["accuracy"].values()
    medians, worst = sorted(of["median"] for of in accuracy), max(of["worst"] for of in accuracy)
    iterations = counted(report["score"]["iterations"]).partition(" times")[0]
    return " | ".join([*counts, f"{medians[len(medians) // 2]:.2g}", f"{worst:.2g}", iterations])


def costs(report: dict, sizes: list[str]) -> str:
    """The times and the memory, as cells."""
    speed, memory = report["score"]["speed"], report["score"]["memory"]
    cells = []
    for name in sizes:
        of = speed.get(name, {})
        ratio = f" ({of['ratio']:.2g}×)" if "ratio" in of else ""
        cells.append(f"{duration(of['seconds'])}{ratio}" if "seconds" in of else of.get("reason", "–"))
    return " | ".join([*cells, f"{memory['bytes'] / 1e6:.3g} MB" if "bytes" in memory else memory["reason"]])


if __name__ == "__main__":
    main()
