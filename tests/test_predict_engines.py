"""`predict_file` on MPI, on a Dask cluster by the command line, and in whole runs that are killed at random."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import clusters
import numpy as np
import pytest
from test_predict_file import MODEL, ROOT, digest

from idl_ref.__main__ import main
from idl_ref.parallel import predict_file

M = 20_003
BY_MPI = (
    "import sys\n"
    "from mpi4py.futures import MPIPoolExecutor\n"
    "from idl_ref.parallel import predict_file\n"
    "if __name__ == '__main__':\n"
    "    with MPIPoolExecutor() as executor:\n"
    "        predict_file(*sys.argv[1:], executor=executor, per_task=1, progress=False)\n"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, a source with a NaN row, and its outputs by one process."""
    folder = tmp_path_factory.mktemp("files")
    U = np.random.default_rng(1).standard_normal((M, 6))
    U[4321, 2] = np.nan
    np.save(folder / "U.npy", U)
    MODEL.save(folder / "model.npz")
    predict_file(MODEL, folder / "U.npy", folder / "whole", progress=False)
    assert list(np.flatnonzero(np.load(folder / "whole" / "status.npy") > 1)) == [4321]
    return folder


@pytest.mark.engine
@pytest.mark.parametrize("ranks", [2, 3])
def test_mpi(files, tmp_path, ranks):
    pytest.importorskip("mpi4py")
    mpiexec = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if mpiexec is None:
        pytest.skip("mpiexec is not there")
    (tmp_path / "by_mpi.py").write_text(BY_MPI, encoding="utf-8")
    words = [
        "-n",
        str(ranks),
        sys.executable,
        "-m",
        "mpi4py.futures",
        "by_mpi.py",
        *map(str, arguments(files, tmp_path)),
    ]
    environment = {**os.environ, **clusters.PINNED, "PYTHONPATH": str(ROOT)}
    subprocess.run([mpiexec, *words], cwd=tmp_path, env=environment, check=True, timeout=600)
    assert digest(tmp_path / "out") == digest(files / "whole")


def arguments(files, tmp_path):
    return files / "model.npz", files / "U.npy", tmp_path / "out"


@pytest.mark.engine
def test_dask_by_the_command_line(files, tmp_path, capsys):
    pytest.importorskip("distributed")
    model, U, out = map(str, arguments(files, tmp_path))
    with clusters.local() as client:
        assert main(["predict", model, "--data", U, "--out", out, "--dask", client.scheduler.address]) == 1
    assert "1 of 20003 rows failed and have no answer; the first is row 4321" in capsys.readouterr().out
    assert digest(tmp_path / "out") == digest(files / "whole")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX")
def test_whole_runs_that_are_killed_at_random(files, tmp_path):
    """Killed three times, at random, and called again: the same bytes. `predict_millions.py` does it 30 times."""
    model, U, out = map(str, arguments(files, tmp_path))
    words = [sys.executable, "-m", "idl_ref", "predict", model, "--data", U, "--out", out, "--workers", "2"]
    environment, rng = {**os.environ, "PYTHONPATH": str(ROOT)}, random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(words, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.5, 3))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run(words, env=environment, stderr=subprocess.DEVNULL, timeout=600).returncode == 1
    assert digest(tmp_path / "out") == digest(files / "whole")
