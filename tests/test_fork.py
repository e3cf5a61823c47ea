"""What is promised about fork: a child solves, also if other threads of the parent were solving when it was made."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import idl_ref

ROOT = Path(idl_ref.__file__).parents[1]
TWINS = [name for name in ("numpy", "numba") if idl_ref.available_backends()[name] == "available"]
CODE = textwrap.dedent("""
    import os, sys, threading, numpy as np
    from idl_ref import ImplicitModel
    predictor = ImplicitModel(8, 3, 100, backend=sys.argv[1], seed=0).freeze()
    U = np.random.default_rng(0).standard_normal((300, 8)).astype("f")
    here = predictor(U), predictor(U[:1])
    def work():
        while True:
            predictor(U)
    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()
    statuses = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            there = predictor(U), predictor(U[:1])
            os._exit(0 if all(map(np.array_equal, here, there)) else 1)
        statuses.append(os.waitpid(child, 0)[1])
    print(statuses)
    sys.stdout.flush()
    os._exit(0)
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("twin", TWINS)
def test_a_child_solves_although_other_threads_were_solving_when_it_was_made(twin):
    """With several threads of BLAS, OpenBLAS itself hangs; docs/deployment.md says so."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", CODE, twin]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == str([0] * 8), done.stderr
