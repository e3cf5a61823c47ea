"""The clients of the kit in C++, Rust and JavaScript, built as their first lines say, pass it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from idl_ref.conformance import check_backend
from idl_ref.conformance.remote import Command

CLIENTS = Path(__file__).parents[1] / "examples" / "clients"
BUILDS = {
    "g++": ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", str(CLIENTS / "backend.cpp"), "-o"],
    "rustc": ["rustc", "--edition", "2021", "-O", "-D", "warnings", str(CLIENTS / "backend.rs"), "-o"],
    "node": [],
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("tool", BUILDS)
def test_a_client_passes(tool, tmp_path):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    command = f"node '{CLIENTS / 'backend.mjs'}'"
    if BUILDS[tool]:
        subprocess.run([*BUILDS[tool], str(tmp_path / "client")], check=True, timeout=600)
        command = f"'{tmp_path / 'client'}'"
    backend = Command(command, timeout=600)
    try:
        report = check_backend(backend, fast=True)
    finally:
        backend.close()
    assert report.ok, str(report)
    assert len(report.passed) > 100


def test_an_error_is_an_answer(tmp_path):
    """A request that cannot be answered does not end a client."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    asked = '{"op": "forward", "dir": "/none", "out": "/none", "id": 1}\n{"op": "hello", "id": 2}\n'
    done = subprocess.run(
        ["node", CLIENTS / "backend.mjs"], input=asked, capture_output=True, text=True, check=True, timeout=600
    )
    first, second = done.stdout.splitlines()
    assert '"error"' in first
    assert '"name"' in second
