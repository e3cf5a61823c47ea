"""The ONNX export as a backend for the conformance kit: every problem is exported, and answered by ONNX Runtime."""

import tempfile

import numpy as np
import onnxruntime
from c_export_backend import MOST, modelled

from idl_ref.export import export


class OnnxExport:
    """Exports to ONNX, whose loop has the number of iterations that suffices for the range of the inputs."""

    name, capabilities = "ONNX export", {"vjp": False, "X": False}

    def forward(self, problem):
        model, U = modelled(problem.arrays, problem.settings), np.ascontiguousarray(problem.U.T)
        high = min(MOST, max(1.0, float(np.abs(U[np.isfinite(U)]).max(initial=0.0))))
        with tempfile.TemporaryDirectory() as folder:
            (path,) = export(model, "onnx", folder, (-high, high)).files
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return {"Y": session.run(None, {"U": U})[0].T}
