"""What the host tells the kernels of the CUDA twin, and what a thread knows of its block, as named tuples.

They cost nothing: a kernel gets their entries one by one, and what it does not use is gone when it is compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from idl_ref.backends.cuda_plans import Places


class Sizes(NamedTuple):
    """Whole numbers."""

    n: int
    r: int  # 0 for a dense A
    end: int  # n, and r, filled up to multiples of 8
    narrow: int
    m: int
    code: int  # of the activation
    max_iter: int
    slow_steps: int  # in a row, after which Picard lets a column go


class Levels(NamedTuple):
    """Numbers of the dtype of the kernel."""

    tol: Any
    ratio: Any  # SLOW for Picard, DECREASE for trial points; see methods
    eps: Any
    lipschitz: Any  # of the activation


class Where(NamedTuple):
    """How far apart the rows and the columns of Z, S and X0 are."""

    z_down: int
    z_right: int
    s_down: int
    s_right: int
    x_down: int
    x_right: int


class Task(NamedTuple):
    """One equation for some of its columns, and where its answer goes."""

    Z: Any
    S: Any  # empty for the forward equation
    X0: Any  # empty where there is none
    columns: Any  # which ones, (k,) int32
    where: Where
    sizes: Sizes
    levels: Levels
    places: Places
    out: Any  # (n, m)
    status: Any  # (m,)
    iterations: Any  # (m,), and are counted on from what stands there
    numbers: Any  # (6, m): the rows STEP … LIPSCHITZ


class Kept(NamedTuple):
    """What is known of the columns of every tile between two launches."""

    integers: Any
    reals: Any
    running: Any  # how many columns of a tile go on


class Team(NamedTuple):
    """The threads that share a product, and the width of its tile."""

    tid: int
    threads: int
    w: int


class Block(NamedTuple):
    """A thread, its block, and the columns of its tile: `used` of w, the first one at `first`."""

    N: Any  # shared memory, as integers
    M: Any  # the same memory, as reals
    tid: int
    threads: int
    first: int
    used: int
    w: int


class Rows(NamedTuple):
    """A matrix in an array: where it begins. How far apart its rows are is known to those who use it."""

    array: Any
    at: int
