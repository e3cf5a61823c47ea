"""Which kernel serves which equation, the map of its shared memory, and what it knows of its work."""

from __future__ import annotations

from typing import Any, NamedTuple

from idl_ref.backends.methods import DEPTH

UNIT = 8  # rows of a tile and of a packed factor are filled up with zeros to a multiple of this
LANES = 16  # shares in which a column is looked at: sums have one order whatever the tile and the block
SLICES = 8  # shares of the long sums in Rᵀ X, likewise
INTEGERS, REALS = 8, 5 + DEPTH + 2 * DEPTH * DEPTH  # rows of what is known of each column; see cuda_states
KEPT = REALS + 2 * LANES  # rows of it that stay from one launch to the next, with the shares of the norms of x
QUANTITIES, MIXED = 6, 2 + 2 * DEPTH  # of which a column's shares are put down side by side; the latter by Anderson
WIDTHS = (32, 16, 8, 4)  # columns of a tile
WIDE = 16  # columns of a tile of what is large
FEW, MANY = 128, 256  # threads of a block


class Row(NamedTuple):
    """A row of the table; the first one that fits serves."""

    kind: str
    low_rank: bool
    most_rows: int  # n at most, by the model of docs/gpu.md


TABLE = (
    Row("shared", False, 224),  # A and the tile stay in shared memory: no traffic but Z
    Row("streamed", False, 512),  # the tile stays in shared memory, A comes from the L2 cache each time
    Row("large", False, 1 << 30),  # a product over the whole batch, then an epilogue: two launches an iteration
    Row("low_rank", True, 1 << 30),  # the tile and Rᵀ X stay in shared memory, L and R come from the L2 cache
    Row("large", True, 1 << 30),  # two products over the whole batch, then an epilogue
)


class Places(NamedTuple):
    """Where things begin in the shared memory of a block, in numbers of the dtype; the integers are in front."""

    state: int  # REALS rows of w
    shares: int  # LANES rows of w for each quantity
    x: int
    p: int
    t: int  # Rᵀ X and its slices
    f: int  # A
    size: int


class Plan(NamedTuple):
    """How one solve is launched."""

    kind: str
    width: int
    threads: int
    grid: int
    shared: int  # bytes


def places(kind: str, method: str, n: int, r: int, w: int, threads: int, itemsize: int) -> Places:
    """The map of a block's shared memory. For Picard and low rank, P is a block of rows only; X changes in place."""
    end, narrow, mixing = filled(n), filled(r), method == "anderson"
    state = INTEGERS * w * 4 // itemsize
    shares = state + REALS * w
    x = shares + (MIXED if mixing else QUANTITIES) * LANES * w
    resident = kind != "large"
    in_place = kind == "low_rank" and not mixing
    p = x + (end * w if resident else 0)
    t = p + (0 if not resident else threads * 32 if in_place else end * w)
    f = t + ((1 + SLICES) * narrow * w if kind == "low_rank" else 0)
    size = f + (end * end if kind == "shared" else 0)
    return Places(state, shares, x, p, t, f, size)


def filled(entries: int) -> int:
    """`entries` rounded up to a multiple of UNIT."""
    return (entries + UNIT - 1) & -UNIT


def plan(
    method: str, sizes: tuple[int, int, int], itemsize: int, limit: int, multiprocessors: int, tile: int | None
) -> Plan:
    """The first row of the table that fits, with the widest tile that keeps every multiprocessor busy.

    sizes: n, r (0 for a dense A), m. limit: bytes of shared memory that a block may have. tile: columns that the caller
    asked for, or None.
    """
    n, r, _ = sizes
    in_global_memory = method in ("newton", "substitution")
    for row in TABLE:
        if row.low_rank != (r > 0) or n > row.most_rows or (in_global_memory and row.kind != "large"):
            continue
        widths = (WIDE,) if row.kind == "large" else WIDTHS
        fitting = [p for w in widths if (p := _fixed(row.kind, method, sizes, w, itemsize)).shared <= limit]
        if fitting:
            good = (p for p in fitting if (p.grid >= multiprocessors if tile is None else p.width <= tile))
            return next(good, fitting[-1])
    raise ValueError(f"no kernel fits: n = {n}, r = {r} need more than the {limit} bytes of shared memory of a block.")


def _fixed(kind: str, method: str, sizes: tuple[int, int, int], w: int, itemsize: int) -> Plan:
    n, r, m = sizes
    threads = max(w, FEW if filled(n) * w <= FEW * 32 else MANY)  # an owner per column
    shared = places(kind, method, n, r, w, threads, itemsize).size * itemsize
    return Plan(kind, w, threads, -(-m // w), shared)


def check(plan: Plan, limit: int) -> None:
    """Refuse a launch that the device would refuse."""
    if plan.shared > limit:
        raise ValueError(
            f"a block of the {plan.kind} kernel needs {plan.shared} bytes of shared memory for {plan.width} columns; "
            f"this device has {limit}: pass a smaller tile in SolveOptions."
        )


# --- what kernels know of their work ----------------------------------------------------------------------------------
# Named tuples cost nothing: a kernel gets their entries one by one, and what it does not use is not compiled.


class Task(NamedTuple):
    """One equation for some of its columns, and where its answer goes. Numbers that are not whole are of the dtype."""

    Z: Any  # matrices, see cuda_api
    S: Any  # empty for the forward equation
    X0: Any  # empty where there is none
    columns: Any  # which ones, (k,) int32
    n: int
    r: int  # 0 for a dense A
    end: int  # n, and r, filled up to multiples of 8
    narrow: int
    m: int
    code: int  # of the activation
    max_iter: int
    slow_steps: int  # in a row, after which Picard lets a column go
    tol: Any
    ratio: Any  # SLOW for Picard, DECREASE for trial points; see methods
    eps: Any
    lipschitz: Any  # of the activation
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
