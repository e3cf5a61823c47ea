"""These tests run the examples of deployment with a small trained model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import idl_ref
from idl_ref.__main__ import main

ROOT = Path(__file__).parents[1]
LAMBDA, C = ROOT / "examples" / "deploy_lambda", ROOT / "examples" / "deploy_c"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with model.npz, which was trained on the digits for two epochs."""
    path = tmp_path_factory.mktemp("deploy")
    assert main(["train", "--epochs", "2", "--out", str(path)]) == 0
    return path


def expected(folder, x):
    return idl_ref.load(folder / "model.npz")(x)


def test_lambda(folder):
    package = folder / "package"
    assert main(["export", str(folder / "model.npz"), "--to", "numpy", "-o", str(package)]) == 0
    shutil.copy(LAMBDA / "handler.py", package)
    _, _, x, _ = idl_ref.datasets.digits()
    bodies = [{"samples": x[:9].tolist()}, {"samples": [x[0].tolist(), [float("nan")] * 64]}]
    bodies += [{"samples": [[1, 2]]}, {"samples": "x"}, {"samples": [[0] * 64] * 1001}, {}]
    events = [{"body": json.dumps(body)} for body in bodies]
    code = (
        "import json, sys, handler\n"
        "answers = [handler.handler(event) for event in json.load(sys.stdin)]\n"
        "answers.append(handler.handler({'body': 'no JSON'}))\n"
        "assert not {'idl_ref', 'numba', 'scipy'} & set(sys.modules)\n"
        "print(json.dumps(answers))\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=package, input=json.dumps(events), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    good, half, *bad = json.loads(done.stdout)
    assert half["statusCode"] == 200
    assert json.loads(half["body"])["labels"] == [json.loads(good["body"])["labels"][0], None]
    assert json.loads(half["body"])["outputs"][1] is None
    answer, Y = json.loads(good["body"]), expected(folder, x[:9])
    assert good["statusCode"] == 200
    np.testing.assert_allclose(answer["outputs"], Y, atol=1e-3)
    assert answer["labels"] == Y.argmax(axis=1).tolist()
    assert [response["statusCode"] for response in bad] == [400] * 5
    assert all("error" in json.loads(response["body"]) for response in bad)


@pytest.mark.skipif(
    os.name != "posix" or not (shutil.which("make") and shutil.which("cc")), reason="there is no make or no C compiler"
)
def test_c(folder, tmp_path):
    for name in ("main.c", "Makefile"):
        shutil.copy(C / name, tmp_path)
    shutil.copy(folder / "model.npz", tmp_path)
    tool = tmp_path / "bin" / "idl-ref"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m idl_ref "$@"\n')
    tool.chmod(0o755)
    path = os.pathsep.join([str(tool.parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    subprocess.run(["make"], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=600)
    _, _, x, _ = idl_ref.datasets.digits()
    text = "\n".join(" ".join(f"{pixel:.9g}" for pixel in row) for row in x.tolist())
    done = subprocess.run([tmp_path / "predict"], input=text, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0
    Y = np.array([line.split() for line in done.stdout.splitlines()], float)
    np.testing.assert_allclose(Y, expected(folder, x), atol=1e-3)
    assert subprocess.run([tmp_path / "predict"], input="1 2 x", capture_output=True, text=True).returncode == 1
