"""The page on scale: its programs run, its table is that of the model, and the model is that of a tree of messages."""

import importlib
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import clusters
import numpy as np
import pytest

import idl_ref

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "scale.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"```\{code-block\} python\n:caption: (\S+)\n\n(.*?)```", PAGE, re.S))
ENGINE = pytest.mark.engine
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.fixture(scope="module")
def model():
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("scale_model")
    sys.path.remove(str(DOCS))
    sys.modules.pop("scale_model", None)


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder with the files that the first block of the page writes, but smaller."""
    idl_ref.ImplicitModel(6, 3, 12, seed=0).save(tmp_path / "model.npz")
    np.save(tmp_path / "U.npy", np.random.default_rng(0).standard_normal((20_000, 6)))
    return tmp_path


def run(folder, name, *arguments, before=()):
    (folder / name).write_text(PROGRAMS[name], encoding="utf-8")
    environment = {**os.environ, **clusters.PINNED, "PYTHONPATH": clusters.PATHS}
    environment["DASK_DISTRIBUTED__DASHBOARD__LINK"] = "http://127.0.0.1"
    command = [*before, name, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_program_is_run_by_a_test():
    assert sorted(PROGRAMS) == ["big_machine.py", "cluster.py", "laptop.py", "lazy.py", "mpi.py", "training.py"]


@pytest.mark.slow
def test_laptop(folder):
    assert run(folder, "laptop.py", before=[sys.executable]) == "True\n"


@pytest.mark.slow
@ENGINE
def test_big_machine(folder):
    pytest.importorskip("distributed")
    assert run(folder, "big_machine.py", before=[sys.executable]).endswith("True\n")


@pytest.mark.slow
@ENGINE
def test_cluster(folder):
    pytest.importorskip("distributed")
    with clusters.commands(folder, 1):
        assert run(folder, "cluster.py", str(folder / "scheduler.json"), before=[sys.executable]) == "True\n"


@pytest.mark.slow
@ENGINE
def test_lazy(folder):
    pytest.importorskip("dask")
    assert run(folder, "lazy.py", before=[sys.executable]) == "(20000, 3) True\n"


@pytest.mark.slow
@ENGINE
@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec here")
def test_mpi(folder):
    pytest.importorskip("mpi4py")
    before = [MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py.futures"]
    assert run(folder, "mpi.py", before=before) == "True\n"


@pytest.mark.slow
@ENGINE
@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec here")
def test_training(folder):
    pytest.importorskip("mpi4py")
    run(folder, "training.py", before=[MPIEXEC, "-n", "2", sys.executable])
    _, _, x, y = idl_ref.datasets.digits()
    assert (idl_ref.load(folder / "trained.npz")(x).argmax(axis=1) == y).mean() > 0.9


# --- the model --------------------------------------------------------------------------------------------------------


def test_the_table_is_that_of_the_script(model):
    assert model.table(model.Step(), model.NETWORKS) in PAGE


def simulated(batch, workers, step, network):
    """The time of a step, worker by worker: leaves, sums that go up a tree, the result that comes down, the update."""
    leaves = [min(step.micro, batch - first) for first in range(0, batch, step.micro)]
    workers = min(workers, len(leaves))
    own = [leaves[len(leaves) * r // workers : len(leaves) * (r + 1) // workers] for r in range(workers)]
    now = [sum(step.leaf + count * step.sample for count in part) for part in own]
    message = network.alpha + step.gradients / network.beta
    width = 1
    while width < workers:  # each worker waits for its own partner alone
        for rank in range(0, workers - width, 2 * width):
            now[rank] = max(now[rank], now[rank + width]) + message
        width *= 2
    while width > 1:
        width //= 2
        for rank in range(0, workers - width, 2 * width):
            now[rank + width] = now[rank] = now[rank] + message
    return max(now) + step.update


@pytest.mark.parametrize("batch", [32, 64, 1000, 1024, 8192])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7, 8, 64, 1024])
def test_the_formula_is_that_of_a_tree_of_messages(model, batch, workers):
    for network in model.NETWORKS:
        expected = simulated(batch, workers, model.Step(), network)
        found = model.seconds(batch, workers, model.Step(), network)
        assert expected <= found * (1 + 1e-12)  # a worker may have fewer leaves, or fewer messages, than the busiest
        if math.log2(workers) % 1 == 0 and batch % (32 * min(workers, batch // 32)) == 0:
            assert found == pytest.approx(expected, rel=1e-12)
        assert found < 1.35 * expected


def test_more_workers_than_leaves_change_nothing(model):
    for network in model.NETWORKS:
        assert model.seconds(64, 2, model.Step(), network) == model.seconds(64, 1000, model.Step(), network)


@pytest.mark.slow
def test_your_own_network(tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(DOCS / "scale_model.py"), "--alpha", "5e-6", "--beta", "3e9"]
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "yours: at most" in done.stdout
    assert (tmp_path / "scale.png").stat().st_size > 10_000
    refused = subprocess.run(command[:4], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--alpha and --beta belong together" in refused.stderr


@pytest.mark.slow
@ENGINE
@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec here")
def test_the_processes_that_measure_add_up_all_gradients(tmp_path):
    """The sum of what 1, 2 and 3 processes compute is the same gradient, so that what is timed is a whole step."""
    pytest.importorskip("mpi4py")
    program = f"""
import sys
sys.path.insert(0, {str(DOCS)!r})
import numpy as np
import scale_model
process = scale_model.Process(12, 16)
found = []
process.trainer.descend = found.append
process.step(100, process.size)
(b,) = found
process.comm.Barrier()
np.save(f"{{process.size}}-{{process.rank}}.npy", np.concatenate([G.ravel() for G in (*b.factors, b.B, b.C, b.D)]))
"""
    environment = {**os.environ, **clusters.PINNED, "PYTHONPATH": clusters.PATHS}
    for size in (1, 2, 3):
        command = [MPIEXEC, "-n", str(size), sys.executable, "-c", program]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=600)
    alone = np.load(tmp_path / "1-0.npy")
    for size in (2, 3):
        for rank in range(size):
            np.testing.assert_allclose(np.load(tmp_path / f"{size}-{rank}.npy"), alone, rtol=1e-4, atol=1e-6)
