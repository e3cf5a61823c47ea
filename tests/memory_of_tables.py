"""Print how much memory it takes to read a table of numbers and to make the inputs of a model of it, per reader.

    python tests/memory_of_tables.py [rows] [columns]

Each figure is the largest resident size of a process, less what it had before, in units of the float32 data.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

MEASURE = """\
import sys, threading, time, os
import numpy as np
from idl_ref import tables
from idl_ref.columns import Columns
{before}
PAGE, peak, going = os.sysconf("SC_PAGE_SIZE"), [0], [True]
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE
def watch():
    while going:
        peak[0] = max(peak[0], resident())
        time.sleep(0.002)
base = resident()
threading.Thread(target=watch, daemon=True).start()
start = time.perf_counter()
table = tables.read({path!r})
columns = Columns.fit(table, ["x0"])
U, bad = columns.matrix(table, np.float32, consume=True)
peak[0] = max(peak[0], resident())
assert not bad.any()
print((peak[0] - base) / (4 * {cells}), time.perf_counter() - start)
"""
BY_PANDAS = "tables._parquet = tables._parquet_by_pandas; import pandas"
BY_PYARROW = "import pyarrow.parquet"


def write(path, rows, columns):
    """Write normal random numbers with six digits; the same ten thousand rows are repeated."""
    numbers = np.random.default_rng(0).standard_normal((min(rows, 10_000), columns))
    block = "".join(",".join(f"{value:.6f}" for value in row) + "\n" for row in numbers.tolist())
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(",".join(f"x{i}" for i in range(columns)) + "\n")
        for _ in range(-(-rows // 10_000)):
            stream.write(block)


def measure(path, rows, columns, before=""):
    """Return the memory in units of the float32 data, and the seconds."""
    program = MEASURE.format(path=str(path), cells=rows * columns, before=before)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return tuple(map(float, done.stdout.split()))


def main():
    rows, columns = (*map(int, sys.argv[1:]), 1_000_000, 64)[:2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write(path, rows, columns)
        cases = [("a .csv file", path, "")]
        try:
            from pyarrow import csv, parquet

            parquet.write_table(csv.read_csv(path), path.with_suffix(".parquet"))
            cases += [("a .parquet file, by pyarrow", path.with_suffix(".parquet"), BY_PYARROW),
                      ("a .parquet file, by pandas", path.with_suffix(".parquet"), BY_PANDAS)]  # fmt: skip
        except ImportError:
            print("without pyarrow, no .parquet file can be written")
        for name, file, before in cases:
            memory, seconds = measure(file, rows, columns, before)
            print(f"{name:<28}{rows:>10,} x {columns}: {memory:.2f} times the float32 data, {seconds:.1f} s")


if __name__ == "__main__":
    main()
