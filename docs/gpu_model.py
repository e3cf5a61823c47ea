"""The roofline model of docs/gpu.md: time of an iteration of the CUDA twin, computed from its own table of kernels.

The times are those of a model, not measured, because no device was at hand. `python docs/gpu_model.py` prints the table
and draws docs/gpu.png, the kernel in one picture; it needs matplotlib.
"""

from __future__ import annotations

from pathlib import Path

from idl_ref.backends.cuda import plans as cuda_plans
from idl_ref.backends.cuda.plans import SLICES, Plan, filled

# An H100 SXM by its data sheet.
CLOCK = 1.7e9  # Hz
MULTIPROCESSORS = 132
FMA = 128  # float32 multiply-adds a clock and multiprocessor
PORT = 128  # bytes a clock and multiprocessor out of shared memory or the L1 cache
L2 = 5.5e12  # bytes/s, all multiprocessors together
SHARED = 227 << 10
# Assumptions.
ISSUE = 0.75  # share of multiply-adds in the inner loop; the machine code has 0.76 … 0.84
BARRIERS = 0.9e-6  # s an iteration of a resident kernel: 3 barriers, a sum of 16 shares, a vote
LAUNCH = 2.5e-6  # s a launch


def product(rows: int, inner: int, width: int, threads: int, streamed: bool, busy: int) -> float:
    """Seconds of F X for one block, `busy` blocks working at the same time."""
    items = rows // 8 * (width // 4)  # a thread keeps 8 × 4 sums and loads 8 + 4 numbers for 32 multiply-adds
    turns = -(-items // threads)
    active = min(items, threads)
    issue = 32 / ISSUE * max(1.0, active * turns / FMA)  # clocks for one k: a warp issues one instruction a clock
    port = active * turns * 48 / PORT
    clocks = inner * max(issue, port)
    traffic = rows * inner * 4 * busy / L2 if streamed else 0.0
    return max(clocks / CLOCK, traffic)


def iteration(n: int, r: int, m: int) -> tuple[Plan, float]:
    """The plan that float32 Picard takes, and the seconds of an iteration."""
    plan = cuda_plans.plan("picard", (n, r, m), 4, SHARED, MULTIPROCESSORS, None)
    end, w = filled(n), plan.width
    waves = -(-plan.grid // MULTIPROCESSORS)
    busy = min(plan.grid, MULTIPROCESSORS)
    entries = end * w * 24 / FMA / CLOCK  # φ, step and norms, about 24 instructions an entry
    if plan.kind == "large":
        blocks = plan.grid * -(-end // 128)
        rounds = -(-blocks // MULTIPROCESSORS)
        one = product(min(end, 128), end, w, plan.threads, True, min(blocks, MULTIPROCESSORS))
        return plan, rounds * one + 2 * LAUNCH + waves * entries
    if plan.kind == "low_rank":
        slices = product(filled(r) * SLICES, end // SLICES, w, plan.threads, True, busy)
        wide = product(end, filled(r), w, plan.threads, True, busy)
        return plan, waves * (slices + wide + entries + 2 * BARRIERS)
    return plan, waves * (product(end, end, w, plan.threads, plan.kind == "streamed", busy) + entries + BARRIERS)


def table() -> str:
    """The microseconds of an iteration as a table in Markdown."""
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
    """Draw the kernel in one picture."""
    from matplotlib import pyplot as plt
    from matplotlib.patches import FancyArrowPatch, Rectangle

    figure, axes = plt.subplots(figsize=(9.2, 4.9))
    axes.set(xlim=(0, 92), ylim=(0, 49))
    axes.axis("off")

    def box(x: float, y: float, w: float, h: float, text: str, colour: str, size: float = 9) -> None:
        axes.add_patch(Rectangle((x, y), w, h, facecolor=colour, edgecolor="#333333", linewidth=0.9))
        axes.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=size)

    def arrow(a: tuple[float, float], b: tuple[float, float], text: str = "", dy: float = 1.2) -> None:
        axes.add_patch(FancyArrowPatch(a, b, arrowstyle="-|>", mutation_scale=11, color="#333333", linewidth=1.1))
        axes.text((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 + dy, text, ha="center", fontsize=8.5)

    axes.text(1, 46.3, "A block owns w columns and iterates until each of them is done", fontsize=11, weight="bold")
    axes.text(1, 43.4, "global memory, L2 cache", fontsize=9, color="#555555")
    box(1, 26, 15, 15.5, "Aᵀ packed\n(n, n)\n\nor Rᵀ and L", "#dfe8f3")
    box(1, 1, 20, 9, "X, status, iterations,\nnorms for the certificate", "#dfe8f3", 8.5)
    box(66, 0.5, 22, 6, "Z, S: (n, w of m)", "#dfe8f3")
    axes.add_patch(Rectangle((24, 9.5), 67, 34.5, facecolor="none", edgecolor="#555555", linestyle="--"))
    axes.text(53, 41.3, "one block: shared memory and registers", fontsize=9, color="#555555")
    box(27, 25, 12, 10, "X (n, w)\nin place", "#f7e6c4")
    box(48, 25, 18, 12, "8 × 4 sums a thread,\nin registers:\n16-byte loads,\n74–84 % multiply-adds", "#d9ead3", 8)
    box(74, 25, 14, 12, "P = A X\n(n, w)", "#f7e6c4")
    box(66, 12, 22, 8, "φ(P + Z) · S\n16 shares of ‖step‖, ‖x‖", "#d9ead3", 8.5)
    box(36, 12, 22, 8, "a thread per column:\ndone? slow? a trial?", "#d9ead3", 8.5)
    arrow((39, 29), (48, 29))
    arrow((66, 31), (74, 31))
    arrow((16, 39), (48, 35.5))
    axes.text(26, 39.6, "each time, or once for n ≤ 224", fontsize=8.5)
    arrow((81, 25), (81, 20))
    axes.text(82, 22, "barrier", fontsize=8.5)
    arrow((77, 6.5), (77, 12))
    arrow((66, 16), (58, 16))
    axes.text(62, 17, "barrier", fontsize=8.5, ha="center")
    arrow((66, 19.5), (39, 26))
    axes.text(52, 23.3, "x ← g(x)", fontsize=8.5)
    arrow((36, 17), (31, 25))
    axes.text(25, 20, "vote: who\ngoes on", fontsize=8.5)
    arrow((40, 12), (21, 6))
    axes.text(30, 5, "a column that is done leaves with its answer", fontsize=8.5)
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    print(table())
    draw(Path(__file__).with_name("gpu.png"))
