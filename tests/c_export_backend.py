"""The C export as a backend for the conformance kit: every problem is exported, compiled, and answered by that C.

As a program it answers the kit's subprocess runner: python -m idl_ref conformance run --command "python THIS_FILE"
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from idl_ref import ImplicitFunction, ImplicitModel
from idl_ref.export import export

# Windows does not delete a file while it is loaded as a library, so that the test runs on POSIX systems only.
COMPILER = (shutil.which("gcc") or shutil.which("clang")) if os.name == "posix" else None
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O0", "-fPIC", "-shared"]
CAPABILITIES = {"vjp": False, "X": False}
MOST = 1e4  # The largest |U| for which a model is exported; larger inputs may be reported as not converged.


def modelled(arrays, settings):
    """Return a model with these effective weights, of rank 1 at least."""
    low_rank = arrays.get("A") is None
    if low_rank and arrays["L"].shape[1] == 0:  # Here A = 0, but a model has at least rank 1.
        arrays = {**arrays, "L": np.zeros((len(arrays["L"]), 1)), "R": np.zeros((len(arrays["R"]), 1))}
    (n, p), q = arrays["B"].shape, len(arrays["C"])
    model = ImplicitModel(
        p,
        q,
        n,
        ImplicitFunction,
        no_D=arrays.get("D") is None,
        is_low_rank=low_rank,
        rank=arrays["L"].shape[1] if low_rank else None,
        activation=settings["activation"],
        dtype=np.dtype(settings["dtype"]).name,
        tol=settings["tol"],
        backend="numpy",
    )
    for name, parameter in model.parameters.items():
        parameter[...] = arrays[name]
    return model


def answer(arrays, settings):
    """Return a dict with Y (q, m) and converged (m,), for effective weights and U with samples as columns."""
    model = modelled(arrays, settings)
    q = len(arrays["C"])
    U = np.array(arrays["U"].T, order="C")  # One sample after the other in memory.
    finite = U[np.isfinite(U)]
    high = min(MOST, max(1.0, float(np.abs(finite).max(initial=0.0))))
    Y, iterations = np.full((len(U), q), np.nan, U.dtype), np.zeros(len(U), int)
    with tempfile.TemporaryDirectory() as folder:
        export(model, "c", folder, (-high, high))
        library = Path(folder) / "model.so"
        command = [COMPILER, *FLAGS, "-o", str(library), str(Path(folder) / "idl_model.c"), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        run = ctypes.CDLL(str(library)).idl_predict
        run.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        for j in range(len(U)):
            iterations[j] = run(U[j : j + 1].ctypes.data, 1, Y[j : j + 1].ctypes.data)
    # The exported code has its own iteration limit. A sample that took more iterations than the problem allows counts
    # as not converged.
    return {"Y": Y.T, "converged": (iterations >= 0) & (iterations <= settings["max_iter"])}


class CExport:
    """The backend for the conformance runner in this process."""

    name, capabilities = "C export", CAPABILITIES

    def forward(self, problem):
        return answer(problem.arrays, problem.settings)


def serve():
    """Answer the subprocess runner, which sends requests as lines of JSON, and arrays in files."""
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "hello":
            reply = {"name": CExport.name, "capabilities": CAPABILITIES}
        elif request["op"] == "forward":
            reply = _forward(Path(request["dir"]), Path(request["out"]))
        else:
            return
        print(json.dumps({**reply, "id": request["id"]}), flush=True)


def _forward(folder, out):
    facts = json.loads((folder / "problem.json").read_text())
    dtype = np.dtype(facts["dtype"])
    arrays = {
        name: np.fromfile(folder / entry["path"], dtype).reshape(entry["shape"])
        for name, entry in facts["arrays"].items()
    }
    try:
        given = answer(arrays, facts)
    except ValueError as reason:  # The export refuses this model.
        return {"error": str(reason)}
    given["Y"].astype(dtype).tofile(out / "Y.bin")  # tofile writes in C order, whatever the order in memory is.
    given["converged"].astype(np.uint8).tofile(out / "converged.bin")
    return {"ok": True}


if __name__ == "__main__":
    serve()
