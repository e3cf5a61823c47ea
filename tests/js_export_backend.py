"""The JavaScript export as a backend for the conformance kit: every problem is exported, and answered by Node.js."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from c_export_backend import MOST, modelled

from idl_ref.export import export

NODE = shutil.which("node")
# JSON has neither NaN nor infinities: they cross as words in one direction, and as null in the other one.
PROGRAM = """
import { readFileSync } from "node:fs";
const { url, U, trajectory } = JSON.parse(readFileSync(0));
const { predict } = await import(url);
const plain = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
const answer = (u) => {
  try {
    return predict(u.map((value) => (typeof value === "string" ? Number(value) : value)), { trajectory });
  } catch (error) {
    return { error: error.message, kind: error.name };
  }
};
console.log(JSON.stringify(U.map(answer), plain));
"""


def predictions(path, U, trajectory=False):
    """Return what predict of an exported module says to each row of U: an object, or its error."""
    U = [[value if np.isfinite(value) else str(value).replace("inf", "Infinity").replace("nan", "NaN") for value in u]
         for u in np.asarray(U, np.float64).tolist()]  # fmt: skip
    asked = json.dumps({"url": Path(path).resolve().as_uri(), "U": U, "trajectory": trajectory})
    command = [NODE, "--input-type=module", "-e", PROGRAM]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True, timeout=600)
    return json.loads(done.stdout)


def outputs(found, q):
    """Return the outputs (m, q) of predictions, with NaN for those that failed."""
    Y = [[np.nan if y is None else y for y in one.get("outputs") or [None] * q] for one in found]
    return np.array(Y, np.float64).reshape(len(found), q)


class JsExport:
    """The backend for the conformance runner."""

    name, capabilities = "JavaScript export", {"vjp": False, "X": False}

    def forward(self, problem):
        model, U = modelled(problem.arrays, problem.settings), problem.U.T
        high = min(MOST, max(1.0, float(np.abs(U[np.isfinite(U)]).max(initial=0.0))))
        with tempfile.TemporaryDirectory() as folder:
            (path,) = export(model, "js", folder, (-high, high)).files
            found = predictions(path, U)
        # The module has its own limit of iterations. A sample that took more than the problem allows counts as not
        # converged.
        good = [one.get("status") in ("CONVERGED", "PRECISION_LIMIT") for one in found]
        few = [one.get("iterations", 0) <= problem.settings["max_iter"] for one in found]
        Y = outputs(found, problem.arrays["C"].shape[0]).T.astype(U.dtype)
        return {"Y": Y, "converged": np.array(good, bool) & np.array(few, bool)}
