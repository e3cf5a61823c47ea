"""Compare what the library costs with its budgets. Usage: budgets.py WHEEL, in an environment where it is installed.

CPU time and memory are those of fresh processes that take turns. All are ratios to NumPy's own, so that the limits hold
on any machine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 9
LIMITS = {
    "import over NumPy's own import": 0.3,  # 25 ms where NumPy takes 83
    "first answer over a process that imports NumPy": 1.8,  # 1.2 to 1.5 on one machine, as its memory is busy
    "memory after an answer over that with NumPy": 1.3,  # 35 MiB where NumPy has 27
    "wheel, digits and conformance kit included, kB": 880,  # 875; the kit is a quarter of it
}
ANSWER = "import idl_ref, numpy; print(idl_ref.load('model.npz').freeze()(numpy.ones((1, 64))).shape)"


def run(program: str, folder: str) -> tuple[float, float]:
    """CPU seconds and the largest resident memory of a process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["OPENBLAS_NUM_THREADS"] = "1"  # BLAS threads that wait for work spin, which would count as CPU time
    child = subprocess.Popen([sys.executable, "-c", program], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"this program failed: {program}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


with tempfile.TemporaryDirectory() as folder:
    make = "import idl_ref; idl_ref.ImplicitModel(64, 10, 100, seed=0).save('model.npz')"
    programs = {"python": "pass", "numpy": "import numpy", "import": "import numpy, idl_ref", "answer": ANSWER}
    run(make, folder)
    for program in programs.values():
        run(program, folder)  # once without measuring, so that bytecode is written and files are in memory
    turns = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            turns[name].append(run(program, folder))
seconds = {name: statistics.median(second for second, _ in taken) for name, taken in turns.items()}
memory = {name: statistics.median(resident for _, resident in taken) for name, taken in turns.items()}
measured = dict(
    zip(
        LIMITS,
        (
            (seconds["import"] - seconds["numpy"]) / (seconds["numpy"] - seconds["python"]),
            seconds["answer"] / seconds["numpy"],
            memory["answer"] / memory["numpy"],
            Path(sys.argv[1]).stat().st_size / 1000,
        ),
        strict=True,
    )
)
for name, limit in LIMITS.items():
    print(f"{name}: {measured[name]:.2f}, at most {limit}")
if any(measured[name] > limit for name, limit in LIMITS.items()):
    raise SystemExit("over budget")
