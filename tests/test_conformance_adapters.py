"""The kit against backends that others wrote: right ones raise no alarm, torchidl's deviations are found and named."""

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from idl_ref.conformance import check_backend

ROOT = Path(__file__).parents[1]
OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef)  # of docstrings


@pytest.fixture(autouse=True)
def _examples(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")


def test_plain_pytorch_raises_no_alarm():
    pytest.importorskip("torch")
    from backends.pytorch_autograd import TorchAutograd

    report = check_backend(TorchAutograd())
    assert report.failed == []
    assert {r.message for r in report.skipped} == {'f = "perron" is not declared', "iterations is not declared"}
    assert len(report.passed) > 500


ADAPTERS = [  # the module, the class, the packages that it needs, and its expected failures, if any
    ("jaxopt_vmap", "Jaxopt", ("jax", "jaxopt"), "jaxopt"),
    ("jax_custom_vjp", "PlainJax", ("jax",), None),
    ("optimistix_fixed_point", "Optimistix", ("jax", "optimistix"), "optimistix"),
    ("torchdeq_ift", "TorchDeq", ("torch", "torchdeq"), "torchdeq"),
    ("scipy_root", "ScipyRoot", ("scipy",), "scipy_root"),
    ("scipy_root", "ScipyKrylov", ("scipy",), "scipy_krylov"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name", "packages", "known"), ADAPTERS, ids=[row[1] for row in ADAPTERS])
def test_an_adapter_raises_no_alarm(module, name, packages, known, tmp_path):
    """In a process of its own: once JAX is imported, no other test may fork."""
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    command = [sys.executable, "-m", "idl_ref", "conformance", "run", "--report", str(tmp_path / "report.json")]
    command += ["--fast", "--backend", f"examples.backends.{module}:{name}"]
    if known:
        command += ["--expected-failures", str(ROOT / "examples" / "backends" / "expected" / f"{known}.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "report.json").read_text())["results"]
    assert sum(r["outcome"] == "passed" for r in results) > 250


@pytest.mark.parametrize("module", sorted({row[0] for row in ADAPTERS} - {"jaxopt_vmap"} | {"jax_model"}))
def test_an_adapter_has_forty_lines_of_code_at_most(module):
    """jaxopt's has more, because it also maps raw weights, starts anywhere, and takes cotangents straight through."""
    source = (ROOT / "examples" / "backends" / f"{module}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    others = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    others += [node.body[0] for node in ast.walk(tree) if isinstance(node, OWNERS) and ast.get_docstring(node)]
    not_code = {line for node in others for line in range(node.lineno, node.end_lineno + 1)}
    lines = enumerate(source.splitlines(), start=1)
    assert sum(bool(line.strip()) and k not in not_code for k, line in lines) <= 40


def test_torchidl_is_found_out():
    pytest.importorskip("torchidl")
    from backends.torchidl_as_it_is import TorchIdl

    causes = dict(check_backend(TorchIdl()).causes)
    (straight,) = [rows for cause, rows in causes.items() if "straight-through where exact was declared" in cause]
    assert {r.case for r in straight} >= {"f-inf-beyond-float64", "f-inf-far-float64"}
    slow = check_backend(TorchIdl(defaults=True), ["contraction-perron-0.99-*"])
    assert slow.causes[0][0].startswith("error matches: stopped after 300 iterations whatever max_iter allows")
    assert all("warned: Picard iterations did not converge" in r.message for r in slow.failed)  # unsolved, not silent


def test_the_example_says_so():
    """With torchidl it asserts its claims; without, it says what to install."""
    command = [sys.executable, str(ROOT / "examples" / "verify_torchidl.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert "error matches" in done.stdout or "pip install torch torchidl" in done.stdout
