"""Data-parallel training by processes that mpiexec starts: the command, kills, and a resumed training.

The package mpi4py and an mpiexec beside this Python, as `pip install "idl-ref[mpi]"` gives them, are needed.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

MPIEXEC = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not (MPIEXEC and find_spec("mpi4py")), reason="mpi4py or mpiexec is not installed"),
]
TRAIN = [sys.executable, "-m", "idl_ref", "train", "--hidden", "32", "--lr", "0.1", "--micro-batch", "4"]
RUN = """
import sys, numpy as np, idl_ref
from mpi4py import MPI
comm = MPI.COMM_WORLD
x, y, _, _ = idl_ref.datasets.digits()
model = idl_ref.ImplicitModel(64, 10, 32, seed=0, dtype=sys.argv[1], backend=sys.argv[2], kappa=0.9,
                              is_low_rank=sys.argv[3] == "low", rank=4 if sys.argv[3] == "low" else None)
T = np.eye(10)[y[:303]] if sys.argv[4] == "mse" else y[:303]
idl_ref.fit(model, x[:303], T, loss=sys.argv[4], epochs=2, batch_size=100, micro_batch=16, comm=comm,
            optimizer=idl_ref.SGD(0.1), progress=False)
if comm.Get_rank() == 0:
    model.save(sys.argv[5])
"""


def mpi(count, command, **options):
    """Run a command on some ranks."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    whole = [MPIEXEC, "-n", str(count), *command]
    options = {"timeout": 200, "capture_output": True, "text": True, "env": environment, **options}
    return subprocess.run(whole, **options)


def digest(path):
    with np.load(path) as stored:
        return hashlib.sha256(b"".join(stored[name].tobytes() for name in sorted(stored.files))).hexdigest()


@pytest.mark.parametrize(
    "case",
    [
        ("float32", "numba", "dense", "cross_entropy"),
        ("float64", "numba", "low", "mse"),
        ("float32", "numpy", "low", "cross_entropy"),
        ("float64", "numpy", "dense", "mse"),
    ],
    ids=" ".join,
)
def test_one_digest_on_1_2_3_and_5_ranks(case, tmp_path):
    found = set()
    for count in (1, 2, 3, 5):
        path = tmp_path / f"{count}.npz"
        done = mpi(count, [sys.executable, "-c", RUN, *case, str(path)])
        assert done.returncode == 0, done.stderr
        found.add(digest(path))
    assert len(found) == 1


def test_the_command_speaks_with_one_voice_and_has_the_bits_of_one_process(tmp_path):
    done = mpi(3, [*TRAIN, "--epochs", "2", "--out", str(tmp_path / "three")])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote ") == 1
    alone = subprocess.run(
        [*TRAIN, "--epochs", "2", "--out", str(tmp_path / "one")], capture_output=True, text=True, timeout=600
    )
    assert alone.returncode == 0, alone.stderr
    assert digest(tmp_path / "three" / "model.npz") == digest(tmp_path / "one" / "model.npz")


def test_an_error_is_told_once(tmp_path):
    done = mpi(3, [*TRAIN, "--data", str(tmp_path / "nothing.csv"), "--target", "y"])
    assert done.returncode != 0
    assert done.stderr.count("there is no file") == 1
    assert "Traceback" not in done.stderr


def test_killed_on_two_ranks_and_resumed_on_three(tmp_path):
    whole = [*TRAIN, "--epochs", "30", "--out", str(tmp_path / "whole")]
    assert mpi(1, whole).returncode == 0
    part = [*TRAIN, "--epochs", "30", "--out", str(tmp_path / "part"), "--resume"]
    checkpoint = tmp_path / "part" / "checkpoint.npz"
    process = subprocess.Popen(
        [MPIEXEC, "-n", "2", *part], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    started = time.monotonic()
    while not checkpoint.exists() and process.poll() is None and time.monotonic() - started < 120:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    done = mpi(3, part)
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "part" / "model.npz") == digest(tmp_path / "whole" / "model.npz")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_ranks(number, tmp_path):
    command = [*TRAIN, "--epochs", "100000", "--out", str(tmp_path), "--resume"]
    process = subprocess.Popen([MPIEXEC, "-n", "2", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    started = time.monotonic()
    while not (tmp_path / "checkpoint.npz").exists() and time.monotonic() - started < 120:
        time.sleep(0.02)
    process.send_signal(number)
    try:
        process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode != 0
