"""Seconds of the first call in this process, after the imports: `python first.py idl_ref`, or `smallest` for the
smallest function that Numba compiles, which shows what of it is Numba's own."""

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
    start = time.perf_counter()
    if sys.argv[1] == "smallest":
        smallest(ones[0])
    else:
        idl_ref.solve_equilibrium(half, ones, backend="numba")
    print(time.perf_counter() - start)


main()
