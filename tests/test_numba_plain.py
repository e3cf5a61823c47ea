"""The Numba twin as plain Python: nothing is compiled, a debugger enters its kernels, coverage sees their lines."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import idl_ref

pytest.importorskip("numba")
pytest.importorskip("coverage")
pytestmark = [pytest.mark.plain, pytest.mark.slow]

ROOT = Path(idl_ref.__file__).parent
SCRIPT = Path(__file__).parent / "plain_solves.py"
COVERED = ("columns", "descent", "dots", "functions", "kernels", "levels", "maps", "passes", "products", "trials")
LEAST = 95  # per cent of the lines of each of them
WIDTHS = ((16, 4), (64, 8))  # bytes of a vector and columns of a product: SSE and NEON, and AVX-512
BASELINE = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}  # vectors of 16 bytes, and no fma


def python(*arguments, **variables):
    """Standard output of a fresh interpreter."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_CPU", "COVERAGE"))}
    environment |= {"PYTHONPATH": str(ROOT.parent), **variables}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_toy_problems_cover_the_kernels_and_agree_with_the_numpy_twin(tmp_path, capsys):
    def coverage(command, *arguments):
        return python("-m", "coverage", command, f"--rcfile={os.devnull}", *arguments, NUMBA_DISABLE_JIT="1")

    include = f"--include={ROOT / 'backends' / 'numba' / '*'}"
    parts = [f"--data-file={tmp_path / str(size)}" for size, _ in WIDTHS]
    for part, width in zip(parts, WIDTHS, strict=True):
        coverage("run", part, include, SCRIPT, *width)
    data, found = f"--data-file={tmp_path / 'all'}", tmp_path / "coverage.json"
    coverage("combine", data, *(part.partition("=")[2] for part in parts))
    coverage("json", data, "-o", found)
    with capsys.disabled():
        print("\n" + coverage("report", data, "--show-missing"))
    files = json.loads(found.read_text(encoding="utf-8"))["files"]
    percent = {Path(name).stem: file["summary"]["percent_covered"] for name, file in files.items()}
    assert {name: percent[name] for name in COVERED if percent[name] < LEAST} == {}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="this processor always has fma")
def test_compiled_code_computes_what_its_source_says_bit_for_bit():
    """Compiled for a processor without fma, it rounds where Python does."""
    compiled = python(SCRIPT, **BASELINE).splitlines()
    assert len(compiled) == 36
    assert compiled == python(SCRIPT, NUMBA_DISABLE_JIT="1").splitlines()
