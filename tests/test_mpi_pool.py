"""MPI gives the same bits as this process, by `MPIPoolExecutor` of mpi4py and `mpiexec` with real processes."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import clusters
import pytest
import sweep_cases

from idl_ref import parallel

pytest.importorskip("mpi4py", reason="mpi4py comes with the extra mpi")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
pytestmark = [pytest.mark.engine, pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec here")]

SCRIPT = """
    import sys
    import sweep_cases
    from mpi4py.futures import MPIPoolExecutor
    from idl_ref import parallel

    if __name__ == "__main__":
        with MPIPoolExecutor() as executor:
            grid = {"kappa": [0.5, 0.9], "seed": [0, 1, 2]}
            table = parallel.sweep(
                sweep_cases.plain, grid, sweep_cases.data(), executor=executor, per_task=2, out="out", progress=False
            )
        assert not table.failed
"""


def test_a_sweep_is_the_same_on_mpi(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    command = [MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py.futures", "script.py"]
    environment = {**os.environ, **clusters.PINNED, "PYTHONPATH": clusters.PATHS}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=600)
    expected = parallel.sweep(
        sweep_cases.plain, {"kappa": [0.5, 0.9], "seed": [0, 1, 2]}, sweep_cases.data(), progress=False
    )
    assert (tmp_path / "out" / "sweep.csv").read_text(encoding="utf-8") == expected.to_csv()
