"""The roofline model of docs/gpu.md: the time of an iteration of the CUDA twin, for the kernels that `plans` chooses.

This is a model, not a measurement: no device was available. `python docs/gpu_model.py` prints the table and, with
matplotlib, draws docs/gpu.png, a diagram of one iteration.
"""

from __future__ import annotations

from pathlib import Path

from idl_ref.backends.cuda import plans as cuda_plans
from idl_ref.backends.cuda.plans import APPLY_ROWS, SLICES, Plan, filled

# Properties of an H100 SXM, from its data sheet.
CLOCK = 1.7e9  # Hz
MULTIPROCESSORS = 132
FMA = 128  # float32 multiply-adds per clock and multiprocessor
PORT = 128  # bytes per clock and multiprocessor from shared memory or the L1 cache
L2 = 5.5e12  # bytes per second from the L2 cache, for all multiprocessors together
SHARED = 227 << 10  # bytes of shared memory per block
# Assumptions.
ISSUE = 0.75  # the share of multiply-adds among the instructions of the inner loop; compiled kernels have 0.75 … 0.84
BARRIERS = 1.0e-6  # seconds per iteration for 5 barriers, joining 16 partial reductions, and the count of columns
LAUNCH = 2.5e-6  # seconds per launch


def product(rows: int, inner: int, width: int, threads: int, streamed: bool, busy: int) -> float:
    """Return the seconds that one block needs for F X while `busy` blocks work at the same time.

    F (rows, inner), X (inner, width); streamed: whether F is read from the L2 cache, not from shared memory.
    """
    items = rows // 8 * (width // 4)  # A thread keeps 8 × 4 sums, and loads 8 + 4 numbers for 32 multiply-adds.
    turns = -(-items // threads)
    active = min(items, threads)
    issue = 32 / ISSUE * max(1.0, active * turns / FMA)  # clocks for one k: a warp issues one instruction per clock
    port = active * turns * 48 / PORT  # clocks for one k: a thread loads 12 numbers of 4 bytes
    clocks = inner * max(issue, port)
    traffic = rows * inner * 4 * busy / L2 if streamed else 0.0
    return max(clocks / CLOCK, traffic)


def iteration(n: int, r: int, m: int) -> tuple[Plan, float]:
    """Return the plan of float32 Picard for these sizes, and the seconds of an iteration."""
    plan = cuda_plans.plan("picard", (n, r, m), 4, SHARED, MULTIPROCESSORS, None)
    end, w = filled(n), plan.width
    waves = -(-plan.grid // MULTIPROCESSORS)
    busy = min(plan.grid, MULTIPROCESSORS)
    entries = end * w * 24 / FMA / CLOCK  # φ, the step and the norms take about 24 instructions per entry
    if plan.kind == "large":
        blocks = plan.grid * -(-end // APPLY_ROWS)
        rounds = -(-blocks // MULTIPROCESSORS)
        one = product(min(end, APPLY_ROWS), end, w, plan.threads, True, min(blocks, MULTIPROCESSORS))
        return plan, rounds * one + 2 * LAUNCH + waves * entries
    if plan.kind == "low_rank":
        slices = product(filled(r) * SLICES, end // SLICES, w, plan.threads, True, busy)
        wide = product(end, filled(r), w, plan.threads, True, busy)
        return plan, waves * (slices + wide + entries + 2 * BARRIERS)
    return plan, waves * (product(end, end, w, plan.threads, plan.kind == "streamed", busy) + entries + BARRIERS)


def table() -> str:
    """Return the table of microseconds per iteration, in Markdown."""
    lines = [
        "| n | m | dense: kernel, columns × blocks | µs | low rank, r = 16: columns × blocks | µs |",
        "|" + "---|" * 6,
    ]
    for n in (128, 512, 1024, 4096):
        for m in (64, 512, 4096):
            (dense, a), (low, b) = iteration(n, 0, m), iteration(n, 16, m)
            lines.append(
                f"| {n} | {m} | {dense.kind}, {dense.width} × {dense.grid} | {1e6 * a:.1f} "
                f"| {low.kind.replace('_', ' ')}, {low.width} × {low.grid} | {1e6 * b:.1f} |"
            )
    return "\n".join(lines)


def draw(path: Path) -> None:
    """Draw the diagram of one iteration of a kernel that keeps its tile in shared memory."""
    from matplotlib import pyplot as plt
    from matplotlib.patches import FancyArrowPatch, Rectangle

    figure, axes = plt.subplots(figsize=(9.2, 4.9))
    axes.set(xlim=(0, 92), ylim=(0, 49))
    axes.axis("off")

    def box(x: float, y: float, w: float, h: float, text: str, colour: str, size: float = 9) -> None:
        """Draw a box with centred text; (x, y) is its lower left corner."""
        axes.add_patch(Rectangle((x, y), w, h, facecolor=colour, edgecolor="#333333", linewidth=0.9))
        axes.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=size)

    def arrow(a: tuple[float, float], b: tuple[float, float], text: str = "", dy: float = 1.2) -> None:
        """Draw an arrow from a to b, with text above its middle."""
        axes.add_patch(FancyArrowPatch(a, b, arrowstyle="-|>", mutation_scale=11, color="#333333", linewidth=1.1))
        axes.text((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 + dy, text, ha="center", fontsize=8.5)

    title = "A block of threads solves w columns, and iterates until all of them are done"
    axes.text(1, 46.3, title, fontsize=11, weight="bold")
    axes.text(1, 43.4, "global memory, L2 cache", fontsize=9, color="#555555")
    box(1, 26, 15, 15.5, "A packed by\ncolumns (n, n),\nor L and Rᵀ", "#dfe8f3")
    box(1, 1, 20, 9, "X, status, iterations,\nnorms for the certificate", "#dfe8f3", 8.5)
    box(66, 0.5, 22, 6, "Z, S: (n, w of m)", "#dfe8f3")
    axes.add_patch(Rectangle((24, 9.5), 67, 34.5, facecolor="none", edgecolor="#555555", linestyle="--"))
    axes.text(53, 41.3, "one block: shared memory and registers", fontsize=9, color="#555555")
    box(27, 25, 12, 10, "X (n, w)", "#f7e6c4")
    box(48, 25, 18, 12, "8 × 4 sums per thread,\nin registers:\n16-byte loads,\n70–84 % multiply-adds", "#d9ead3", 8)
    box(74, 25, 14, 12, "P = A X,\nthen G\n(n, w)", "#f7e6c4")
    box(66, 12, 22, 8, "G = S ∘ φ(P + Z)\n16 partial reductions\nof ‖G − X‖ and ‖G‖", "#d9ead3", 8.5)
    box(36, 12, 22, 8, "one thread per column:\ndone? slow? trial point?", "#d9ead3", 8.5)
    arrow((39, 29), (48, 29))
    arrow((66, 31), (74, 31))
    arrow((16, 39), (48, 35.5))
    axes.text(26, 39.6, "every iteration, or once for n ≤ 224", fontsize=8.5)
    arrow((81, 25), (81, 20))
    axes.text(82, 22, "barrier", fontsize=8.5)
    arrow((77, 6.5), (77, 12))
    arrow((66, 16), (58, 16))
    axes.text(62, 17, "barrier", fontsize=8.5, ha="center")
    arrow((66, 19.5), (39, 26))
    axes.text(52, 23.3, "x ← g(x)", fontsize=8.5)
    arrow((36, 17), (31, 25))
    axes.text(25, 20, "columns\nleft", fontsize=8.5)
    arrow((40, 12), (21, 6))
    axes.text(30, 5, "the answers of columns that are done", fontsize=8.5)
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    print(table())
    draw(Path(__file__).with_name("gpu.png"))
