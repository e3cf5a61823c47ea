"""A backend that is called available has run here; a broken one has a reason, and "auto" does without it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import idl_ref

ROOT = Path(idl_ref.__file__).parents[1]
NOTHING = "def njit(*arguments, **options):\n    return lambda function: function\n"
BROKEN = {
    "SystemError": "raise SystemError('initialization of _internal failed without raising an exception')",
    "ImportError": "raise ImportError('Numba needs NumPy 2.0 or less. Got NumPy 2.4.')",
    "AttributeError": "import numpy; numpy._no_such_name",
    "OSError": "raise OSError('Could not find/load shared object file libllvmlite.so')",
    "SystemExit": "import sys; sys.exit('no licence')",
    "no __spec__": "import sys; del sys.modules[__name__].__spec__",
    "a name is missing": NOTHING,
    "control characters": "raise RuntimeError('\\x1b[2J\\n\\ud800 ' + 'x' * 999)",
}
CODE = """
import sys, numpy as np, idl_ref
assert not [name for name in sys.modules if name.split(".")[0] in ("numba", "numba_cuda")]
found = idl_ref.available_backends()
assert found["numpy"] == "available"
for name in ("numba", "cuda"):
    assert "does not work" in found[name] and len(found[name]) < 300 and found[name].isprintable(), found[name]
model = idl_ref.ImplicitModel(4, 3, 9, seed=0)
model(np.ones((5, 4)))
assert model.freeze().backend == "numpy"
idl_ref.fit(model, np.ones((5, 4)), [0, 1, 2, 0, 1], epochs=1, progress=False)
try:
    idl_ref.solve_equilibrium(np.eye(2) / 2, np.ones((2, 1)), backend="numba")
except ValueError as reason:
    print(reason)
from idl_ref.__main__ import main
sys.exit(main(["info"]))
"""


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_numba_that_does_not_work_is_not_available(tmp_path, kind):
    for package in ("numba", "numba_cuda"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(BROKEN[kind], encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-W", "error", "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("backend 'numba' is not available: numba is installed but does not work: ")
    assert first.endswith(". Available: numpy.")
    assert rest[-1] == "backend auto is numpy"
    assert any(line.startswith("backend numba   numba is installed but does not work: ") for line in rest)


def test_a_compiler_that_fails_or_computes_nonsense_is_not_available(monkeypatch):
    pytest.importorskip("numba")
    from idl_ref import backends
    from idl_ref.backends.numba import compiling

    def fail(i):
        raise RuntimeError("LLVM ERROR: no target")

    for double, words in ((fail, "RuntimeError: LLVM ERROR: no target"), (lambda i: i, "computes wrong results")):
        monkeypatch.setattr(compiling, "double", double)
        backends._numba_reason.cache_clear()
        try:
            assert words in backends.available_backends()["numba"]
            assert backends.resolve("auto") == "numpy"
        finally:
            backends._numba_reason.cache_clear()


def test_a_list_of_backends_is_refused():
    with pytest.raises(ValueError, match=r"backend must be one of .*; got \['numpy'\]"):
        idl_ref.solve_equilibrium(np.eye(1) / 2, np.ones((1, 1)), backend=["numpy"])
