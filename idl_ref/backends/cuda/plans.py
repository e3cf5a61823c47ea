"""The choice of a kernel for an equation, the layout of its shared memory, and the records that kernels take.

A block of threads solves a tile: `width` columns of the equation. Everything here is computed on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from idl_ref.backends.methods import DEPTH

UNIT = 8  # The rows of tiles and of packed factors are padded with zeros to a multiple of this.
# Norms and inner products of a column are computed as LANES partial reductions: lane l takes the rows l, l + LANES, …;
# a single thread joins the results. So every sum has the same order of terms for every tile width and block size.
LANES = 16
SLICES = 8  # The sums over n in Rᵀ X are split into SLICES partial sums, also in an order that nothing else changes.
# Rows of the state of a column, which is stored as integers and as reals of the dtype; `states` names the rows.
INTEGERS, REALS = 11, 8 + DEPTH + 2 * DEPTH * DEPTH
# Rows of reals that kernels with one step per launch keep in between: the state and the partial norms ‖x‖∞ and ‖x‖₁.
KEPT = REALS + 2 * LANES
# How many quantities of a column are reduced at the same time, each with LANES partial results in shared memory.
QUANTITIES, ANDERSON_QUANTITIES = 6, 2 + 2 * DEPTH
WIDTHS = (32, 16, 8, 4)  # the possible numbers of columns of a tile
WIDE = 16  # columns of a tile in the kernels that keep X in global memory
FEW, MANY = 128, 256  # threads of a block for small and for large tiles
APPLY_ROWS = 128  # rows of the product that one block of `kernels.apply` computes


class Row(NamedTuple):
    """One kind of kernel and the equations that it is meant for; `plan` takes the first row of TABLE that fits."""

    kind: str
    low_rank: bool  # whether it is for A = L Rᵀ; otherwise it is for a dense A
    most_rows: int  # the largest n for which it is used, from the model in docs/gpu.md


TABLE = (
    Row("shared", False, 224),  # A and the tile stay in shared memory; only Z is read from global memory
    Row("streamed", False, 512),  # the tile stays in shared memory; every iteration reads A from the L2 cache
    Row("large", False, 1 << 30),  # an iteration is two launches: a product for all tiles, then an epilogue
    Row("low_rank", True, 1 << 30),  # the tile and Rᵀ X stay in shared memory; L and R are read from the L2 cache
    Row("large", True, 1 << 30),  # an iteration is three launches: two products for all tiles, then an epilogue
)


class Places(NamedTuple):
    """The layout of the shared memory of a block: where each part begins, as an index of numbers of the dtype.

    The integers of the state come first, from byte 0: INTEGERS rows of w.
    """

    state: int  # the reals of the state: REALS rows of w
    partials: int  # the partial reductions: LANES rows of w for each quantity
    x: int  # the tile X (end, w), in kernels that keep it in shared memory
    p: int  # the product P (end, w), which g(x) overwrites
    t: int  # low rank: Rᵀ X (narrow, w), then its SLICES partial sums
    f: int  # "shared": A, packed (end, end)
    size: int  # of everything


class Plan(NamedTuple):
    """How the columns of one solve are distributed over a launch."""

    kind: str  # that of the row of TABLE
    width: int  # columns of a tile
    threads: int  # of a block
    grid: int  # number of tiles, one for each block
    shared: int  # bytes of shared memory of a block


def places(kind: str, method: str, n: int, r: int, w: int, itemsize: int) -> Places:
    """Return the layout of the shared memory of a block for tiles of w columns.

    The kernels that keep X in shared memory keep g(X) there as well, because the change g(x) − x of a column is judged
    row by row.
    """
    end, narrow, mixing = filled(n), filled(r), method == "anderson"
    state = INTEGERS * w * 4 // itemsize
    partials = state + REALS * w
    x = partials + (ANDERSON_QUANTITIES if mixing else QUANTITIES) * LANES * w
    resident = kind != "large"
    p = x + (end * w if resident else 0)
    t = p + (end * w if resident else 0)
    f = t + ((1 + SLICES) * narrow * w if kind == "low_rank" else 0)
    size = f + (end * end if kind == "shared" else 0)
    return Places(state, partials, x, p, t, f, size)


def filled(entries: int) -> int:
    """Return `entries` rounded up to a multiple of UNIT."""
    return (entries + UNIT - 1) & -UNIT


def plan(
    method: str, sizes: tuple[int, int, int], itemsize: int, limit: int, multiprocessors: int, tile: int | None
) -> Plan:
    """Choose the first row of TABLE that fits, with the widest tile for which every multiprocessor gets a block.

    Parameters
    ----------
    method : str
        The method that solves the columns, or "auto".
    sizes : (int, int, int)
        n, r (0 for a dense A) and m, the number of columns.
    itemsize : int
        Bytes of a number.
    limit : int
        Bytes of shared memory that a block may use.
    multiprocessors : int
        How many the device has.
    tile : int or None
        The most columns of a tile that the caller wants; the narrowest possible tile may still have more. None leaves
        the choice to this function.
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
    """Return the plan for one kind of kernel and one tile width, whether or not the device has the shared memory."""
    n, r, m = sizes
    threads = max(w, FEW if filled(n) * w <= FEW * 32 else MANY)  # at least w, because thread c judges column c
    shared = places(kind, method, n, r, w, itemsize).size * itemsize
    return Plan(kind, w, threads, -(-m // w), shared)


def check(plan: Plan, limit: int) -> None:
    """Raise ValueError for a plan that needs more shared memory per block than the device has."""
    if plan.shared > limit:
        raise ValueError(
            f"a block of the {plan.kind} kernel needs {plan.shared} bytes of shared memory for {plan.width} columns; "
            f"this device has {limit}: pass a smaller tile in SolveOptions."
        )


# --- records that kernels take as arguments ---------------------------------------------------------------------------
# A named tuple costs a kernel nothing: numba.cuda passes its fields as separate parameters and drops the unused ones.


class Levels(NamedTuple):
    """The numbers that steer an iteration, as scalars of the dtype.

    Those that follow from others are here, too: a kernel that computed them would keep them in registers.
    """

    tol: Any
    ratio: Any  # SLOW for Picard and DECREASE for trial points, from `methods`
    other: Any  # the cost of another method in applications; inf if there is none
    rate: Any  # the cost of a window of applications of Anderson's method, in applications of Picard's
    eps: Any  # the distance from 1 to the next number of the dtype
    root: Any  # the square root of eps
    rounded: Any  # ROUNDED·eps, from `certificate`
    tiny: Any  # the smallest normal number of the dtype
    underflow: Any  # a bound of the absolute error of a sum whose terms underflow to subnormal numbers
    gamma: Any  # STALLED times the bound of the relative error of the inner products, both from `certificate`
    lipschitz: Any  # of the activation
    steepest: Any  # g is a contraction in the columns whose slope s has s·‖A‖∞ < 1: s is at most this number
    gap: Any  # 1 − ‖A‖∞
    at_zero: Any  # φ(0)


class Task(NamedTuple):
    """One equation, which of its columns are to be solved, and the arrays that receive the answer.

    Z, S and X0 are of type `api.Matrix`.
    """

    Z: Any  # (n, m)
    S: Any  # (n, m); empty for the forward equation
    X0: Any  # (n, m), where to start; empty to start from 0
    F: Any  # (n, m), row by row: X0 − x where X0 is g(x), else NaN; Picard writes it for Anderson; empty for others
    columns: Any  # (k,) int32, the columns to solve
    n: int
    r: int  # 0 for a dense A
    end: int  # n rounded up to a multiple of UNIT
    narrow: int  # r rounded up to a multiple of UNIT
    m: int  # columns of Z
    code: int  # of the activation, see `activations`; MIXED if each row has its own
    codes: Any  # (n,) int32, those of the rows; empty if all have the same
    max_iter: int
    slow_steps: int  # After this many slow steps in a row Picard stops and leaves the column to another method.
    enough: int  # After this many applications a column is left to another method in any case, if there is one.
    window: int  # after how many applications Anderson's method is compared with another method
    levels: Levels
    places: Places
    out: Any  # (n, m), row by row: receives the solution, and before that an earlier iterate of Picard
    status: Any  # (m,) int32
    iterations: Any  # (m,) int32; kernels add to the counts that are already there
    numbers: Any  # (7, m), row by row: the rows STEP … FIRST of `states`, most of them for the certificate


class Kept(NamedTuple):
    """The state of all columns in global memory, for kernels with one step per launch. Tiles are WIDE columns wide."""

    integers: Any  # (tiles, INTEGERS, WIDE) int32, flat
    reals: Any  # (tiles, KEPT, WIDE) of the dtype, flat
    running: Any  # (tiles,) int32, the number of columns of each tile that are not done


class Team(NamedTuple):
    """A thread as one of those that compute a product together."""

    tid: int  # number of the thread in its block
    threads: int  # of the block
    w: int  # columns of the tile


class Block(NamedTuple):
    """A thread, its block, and the tile of the block. The last tile has fewer than w columns if w does not divide k."""

    N: Any  # the shared memory of the block, as int32
    M: Any  # the same memory, as numbers of the dtype
    tid: int  # number of the thread in its block
    threads: int  # of the block
    first: int  # place of the first column of the tile in `Task.columns`
    used: int  # how many columns the tile has
    w: int  # how many columns there is room for


class Rows(NamedTuple):
    """A matrix that begins at array[at]. The functions that use it know its layout and the distance of its rows."""

    array: Any
    at: int
