"""Print the seconds of the first call in this process, after the imports: `python first.py idl_ref`.

`python first.py smallest` calls the smallest function that Numba compiles, which shows how much of the time is Numba's.
"""

import sys
import time

import numba
import numpy as np

import idl_ref


@numba.njit(cache=True)
def smallest(x):
    return x[0]


def main() -> None:
    half, ones = np.eye(3, dtype=np.float32) / 2, np.ones((3, 2), np.float32)
    call = {
        "idl_ref": lambda: idl_ref.solve_equilibrium(half, ones, backend="numba"),
        "smallest": lambda: smallest(ones[0]),
    }[sys.argv[1]]
    start = time.perf_counter()
    call()
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
