"""Measure idl_ref against its peers, in alternating runs, and write docs/benchmarks.md and docs/benchmarks.png.

Beside them, docs/benchmarks.json keeps the ratios of every kind of processor that was measured, for the page's table.

    pip install -r tests/benchmarks/requirements.txt      (see the remarks in that file)
    python tests/benchmarks/run.py

Every contestant is a process that sleeps until its turn. A round gives each contestant one turn, of as many calls as
fill about 50 ms and at least one. The time of a turn is the median of its calls, the time of a contestant the median
of its turns, and a ratio the median of the ratios within the rounds, so that a machine that slows down affects all
alike.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from contestants import COPIED
from workloads import WORKLOADS, Workload, data, truth

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TURN = 0.05  # seconds of a turn, about
REST = 0.25  # between turns: threads of OpenMP and BLAS that wait for work go on spinning, some for 0.2 s
OURS, OURS_NUMPY, GEMM, COPY = "idl_ref", "idl_ref_numpy", "gemm", "copy"
LABELS = {
    OURS: "idl_ref",
    OURS_NUMPY: "idl_ref, NumPy twin",
    "torchidl": "torchidl",
    "jax": "JAX `while_loop`",
    "jaxopt": "jaxopt",
    "jaxopt_anderson": "jaxopt Anderson",
    "torchdeq": "torchdeq",
    "torchdeq_anderson": "torchdeq Anderson",
}
FIRST_CALL, SMALLEST = "first call in a process", "smallest"
FIRST_BARS = {"nothing compiled": 3.0, "from the cache": 0.4}  # seconds
PACKAGES = ("numpy", "numba", "torch", "torchidl", "jax", "jaxopt", "torchdeq")


def surroundings() -> dict[str, str]:
    """The environment of every process that is measured."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    return {**environment, "PYTHONPATH": os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])}


class Contestant:
    """A process of contestants.py, with one workload at a time."""

    def __init__(self, name: str) -> None:
        self.name, self.calls = name, 1
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "contestants.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=surroundings(),
        )

    def ask(self, **request: object) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended on {request}; its last output is above.")
        return json.loads(answer)

    def prepare(self, number: int, answer: Path) -> int:
        """Build and compile; returns the applications of the map, summed over columns, where they are known."""
        applications = self.ask(prepare=number, answer=str(answer))["applications"]
        self.calls = 3 if WORKLOADS[number].kind != "epoch" else 1
        self.calls = max(1, min(500, int(TURN / max(1e-6, self.turn()))))
        return applications

    def turn(self) -> float:
        """Seconds of one call. The first call of a turn wakes the process up, and counts only if it is the only one."""
        seconds = self.ask(run=self.calls)
        return statistics.median(seconds[1:] or seconds)

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@dataclass
class Result:
    """One row: seconds of every turn, and how far each answer is from the truth."""

    workload: Workload
    turns: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    applications: int = 0  # of ours
    parts: dict[str, float] = field(default_factory=dict)  # seconds of ours: all, compiled

    def seconds(self, name: str) -> float:
        return statistics.median(self.turns[name])

    def ratio(self, name: str) -> float:
        """How many times longer than ours."""
        return statistics.median(theirs / ours for theirs, ours in zip(self.turns[name], self.turns[OURS], strict=True))

    def best_other(self) -> str | None:
        """The fastest peer except torchidl; on the slow matrix, only those whose error is small enough count."""
        others = [name for name in self.turns if name in self.workload.peers and name != "torchidl"]
        if self.workload.hard:
            others = [name for name in others if self.errors[name] <= max(2 * self.errors[OURS], 1e-4)]
        return min(others, key=self.seconds, default=None)

    def limit(self) -> float | None:
        """Seconds of the flops at the rate of the GEMM, or of the bytes at that of a copy, whichever is longer."""
        if GEMM not in self.turns or COPY not in self.turns:
            return None
        flops, size = self.workload.least(self.applications)
        return max(flops * self.seconds(GEMM) / (2 * 2048**3), size * self.seconds(COPY) / (2 * COPIED))

    def share(self) -> float | None:
        """The machine's limit as a share of our time; A·0 is neither computed nor counted."""
        limit = self.limit()
        return None if limit is None else limit / self.seconds(OURS)

    def asked(self) -> float | None:
        """Seconds in which ours would have to be done to reach both aims; None where they are reached."""
        best, (seed, other) = self.best_other(), self.workload.bars
        factors = [seed / self.ratio("torchidl")] if "torchidl" in self.turns and seed is not None else []
        factors += [other / self.ratio(best)] if best is not None and other is not None else []
        worst = max(factors, default=0.0)
        return self.seconds(OURS) / worst if worst > 1 else None

    def needed(self) -> float | None:
        """The share of the machine's limit that both aims together ask for."""
        share, best, (seed, other) = self.share(), self.best_other(), self.workload.bars
        if share is None or best is None or other is None or seed is None or "torchidl" not in self.turns:
            return None
        return share * max(1.0, seed / self.ratio("torchidl"), other / self.ratio(best))


@contextmanager
def neighbour() -> Iterator[None]:
    """Let another process burn one core."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burning:
        time.sleep(REST)
        try:
            yield
        finally:
            burning.kill()


def measure(number: int, rounds: int, only: list[str] | None, folder: Path) -> Result:
    """All contestants of one workload, turn by turn."""
    workload = WORKLOADS[number]
    names = [OURS, OURS_NUMPY, *workload.peers, GEMM, COPY]
    names = [name for name in names if only is None or name in (OURS, *only)]
    result, contestants, anatomies = Result(workload), [], []
    exact = truth(workload, data(workload)) if workload.kind in ("solve", "low_rank") else None
    try:
        for name in names:
            contestants.append(Contestant(name))
            answer = folder / f"{name}.npy"
            applications = contestants[-1].prepare(number, answer)
            if name == OURS:
                result.applications = applications
            if exact is not None and name not in (GEMM, COPY):
                result.errors[name] = float(np.abs(np.load(answer) - exact).max())
        result.turns = {name: [] for name in names}
        for turn in range(min(rounds, workload.rounds or rounds)):
            for contestant in contestants if turn % 2 == 0 else reversed(contestants):
                time.sleep(REST)
                with neighbour() if workload.neighbour and contestant.name not in (GEMM, COPY) else nullcontext():
                    result.turns[contestant.name].append(contestant.turn())
            time.sleep(REST)
            anatomies.append(contestants[0].ask(anatomy=contestants[0].calls))
        result.parts = {part: statistics.median(a[part] for a in anatomies) for part in anatomies[0]}
    finally:
        for contestant in contestants:
            contestant.stop()
    return result


def first_calls(rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of the first call in fresh processes, medians: ours and the smallest compiled function, in turns."""
    seconds: dict[str, dict[str, list[float]]] = {name: {when: [] for when in FIRST_BARS} for name in (SMALLEST, OURS)}
    for _ in range(rounds):
        for name in seconds:
            with tempfile.TemporaryDirectory() as cache:
                for when in FIRST_BARS:  # the second process finds what the first one compiled
                    command = [sys.executable, str(HERE / "first.py"), name]
                    environment = {**surroundings(), "NUMBA_CACHE_DIR": cache}
                    done = subprocess.run(command, capture_output=True, text=True, env=environment)
                    if done.returncode != 0:
                        raise RuntimeError(f"first.py {name} failed: {done.stderr}")
                    seconds[name][when].append(float(done.stdout))
    return {name: {when: statistics.median(seconds[name][when]) for when in FIRST_BARS} for name in seconds}


# --- what is written --------------------------------------------------------------------------------------------------


def spoken(seconds: float) -> str:
    """With three digits, in µs, ms or s."""
    for unit, name in ((1e-6, "µs"), (1e-3, "ms")):
        if seconds < 1000 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def times(ratio: float) -> str:
    """With two digits, and never a power of ten."""
    return f"{ratio:.0f}×" if ratio >= 100 else f"{ratio:.2g}×"


def processor() -> str:
    """The name of the CPU, its family, and the size of its vectors."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        wide = "AVX-512" if "avx512f" in facts.get("flags", "") else "AVX2" if "avx2" in facts.get("flags", "") else ""
        cpu = ", ".join(
            part for part in (facts.get("model name", cpu), f"family {facts.get('cpu family')}", wide) if part
        )
    return cpu


def machine() -> str:
    """CPU, cores, and the versions of all packages."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{processor()}; {os.cpu_count()} cores; Python {platform.python_version()}; {', '.join(versions)}"


def verdict(got: float | None, bar: float | None, label: str = "") -> str:
    """A ratio beside the one it is meant to reach."""
    if got is None:
        return "—"
    if bar is None:
        return f"{times(got)}{label}"
    return f"{times(got)}{label} ({'≥' if got >= bar else '**below**'} {bar:g})"


EARLIER = """
## On another processor

{machine}; measured on {date}, with the library as it was then.

{ratios}
"""


def ratios(results: list[Result]) -> str:
    """A table in Markdown: our time, the ratios to it, and what the machine would need."""
    lines = [
        "| workload | ours | torchidl / ours | best other peer / ours | of the machine's limit | the aims would need |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        seed, other = r.workload.bars
        best = r.best_other()
        share, need = r.share(), r.needed()
        worth = "—" if share is None else f"{share:.0%}"
        if share is not None and r.workload.peak_share is not None:
            worth += f" ({'≥' if share >= r.workload.peak_share else '**below**'} {r.workload.peak_share:.0%})"
        lines.append(
            f"| {r.workload.name} | {spoken(r.seconds(OURS))} "
            f"| {verdict(r.ratio('torchidl') if 'torchidl' in r.turns else None, seed)} "
            f"| {verdict(r.ratio(best) if best else None, other, f' {LABELS[best]}' if best else '')} | {worth} "
            f"| {'—' if need is None else f'{need:.0%}'} |"
        )
    return "\n".join(lines)


def table(results: list[Result]) -> str:
    """Two tables in Markdown: the ratios, and the times and errors behind them."""
    lines = [
        ratios(results),
        "",
        "| workload | contestant | median | ours is faster | fastest turn | ‖X − X*‖∞ |",
        "|---" * 6 + "|",
    ]
    for r in results:
        for name in (name for name in r.turns if name not in (GEMM, COPY)):
            error = f"{r.errors[name]:.1e}" if name in r.errors else "—"
            median, least = spoken(r.seconds(name)), spoken(min(r.turns[name]))
            lines.append(
                f"| {r.workload.name} | {LABELS[name]} | {median} | {times(r.ratio(name))} | {least} | {error} |"
            )
    return "\n".join(lines)


def anatomy_table(results: list[Result]) -> str:
    """Where our time goes, what the missed aims would leave for it, and what the machine would need."""
    lines = ["| workload | ours | compiled | the rest | the aims leave | the machine's limit |", "|---" * 6 + "|"]
    for r in results:
        p, asked, limit = r.parts, r.asked(), r.limit()
        cells = [p["all"], p["compiled"], max(0.0, p["all"] - p["compiled"])]
        lines.append(
            f"| {r.workload.name} | {' | '.join(spoken(s) for s in cells)} "
            f"| {'reached' if asked is None else spoken(asked)} | {'—' if limit is None else spoken(limit)} |"
        )
    return "\n".join(lines)


def first_table(seconds: dict[str, dict[str, float]]) -> str:
    """The first calls in Markdown."""
    lines = [f"| {FIRST_CALL} | {' | '.join(FIRST_BARS)} |", "|---" * 3 + "|"]
    lines.append(f"| the smallest compiled function | {' | '.join(spoken(s) for s in seconds[SMALLEST].values())} |")
    verdicts = [
        f"{spoken(s)} ({'≤' if s <= bar else '**above**'} {bar:g} s)"
        for s, bar in zip(seconds[OURS].values(), FIRST_BARS.values(), strict=True)
    ]
    return "\n".join([*lines, f"| idl_ref, one solve | {' | '.join(verdicts)} |"])


LIMITS = """\
Some aims are missed, or met in some runs only, for these reasons:

- **Random A, n ≥ 512.** All contestants spend their time in the same few products, which torchidl leaves to BLAS. Three
  times torchidl's speed would be faster than the machine multiplies: the last column of the first table is near 100 %
  or above.
- **n = 100.** One core has half of the rate of both. What a second thread would save is what it takes to start it, and
  to move A and half of the columns to its core and back.
- **n = 32.** Two thirds of the time are Python: the checks of the input, packing A, and the arrays of the answer and of
  its certificate, which no peer gives.
- **A ≥ 0, row sums 0.99.** jaxopt's Anderson takes as few steps as ours. A method that knows A by its products alone
  needs about seven of them for six digits here.
- **Low rank.** Z is read once and X written once. These are 8 MB each, which takes as long as the products, because
  each entry of a product is a sum of only r = 10 terms.
- **One sample.** `model(u)` compares A with a copy, because it may have changed, checks u, and returns statuses that
  are judged; `model.freeze()` does this once.
- **Training.** A step runs on one core: each step changes B, and to move what changed to a second core takes longer
  than that core saves. Six to nine tenths of a step are compiled. The rest is
  Python between the stages: gathering the samples, the map `f` and its pullback, and the record of statuses. Nothing
  of it waits for another thread, which is why a busy neighbour costs next to nothing.
"""


def others(kinds: dict[str, dict[str, str]]) -> str:
    """What was measured earlier on other kinds of processors."""
    here = processor()
    return "".join(EARLIER.format(**kind) for name, kind in kinds.items() if name != here)


def page(
    results: list[Result], first: dict[str, dict[str, float]], rounds: int, kinds: dict[str, dict[str, str]]
) -> str:
    """docs/benchmarks.md. kinds: by the name of a processor, what `others` writes about it"""
    return f"""# Benchmarks

This page was written by `python tests/benchmarks/run.py --rounds {rounds} --out docs` on {date.today().isoformat()}.
The machine: {machine()}.

Every contestant is a process of its own. They take turns in {rounds} rounds (at most 5 on the slow matrix and 3 for an
epoch), and a ratio is the median of the ratios within the rounds. All of them solve in float32 with tol 3e-6.

JAX is jitted and keeps its arrays on its side, and torch has all threads. The ratio that was aimed at is in brackets.
The error is against a float64 solution; on the slow matrix a peer only counts as the best one if its error is at most
1e-4 or twice ours.

![How many times longer each peer takes](benchmarks.png)

{table(results)}

The machine's limit is the time that the operations of all products take at the rate of NumPy's product of two 2048 ×
2048 matrices, or that all arrays take to be read and written once at the rate of a copy of 64 MB, whichever is longer;
both rates are those of the same rounds, with all cores. Weights that stay in a cache are read faster than a copy, so
that the frozen call may exceed 100 %. The last column of the first table is the share of the limit
that would be needed to reach both aims: above 100 %, a solver would have to be faster than the machine.

## Where the time goes

{anatomy_table(results)}

What is compiled solves, multiplies, packs A wherever A is new, and takes the step of SGD. The rest is Python and
NumPy's passes over arrays. The last column but one is the time that both aims of a row would leave for everything.

{LIMITS}
## The first call

{first_table(first)}

The times are medians of {min(rounds, 5)} fresh processes, after the imports. The smallest compiled function shows how
long Numba itself takes to start. `idl_ref.warmup()` compiles ahead, for the cache.
{others(kinds)}"""


def draw(results: list[Result], path: Path) -> None:
    """Bars: how many times longer each contestant takes than idl_ref, one group per workload."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 + 1.1 * len(results)), layout="constrained")
    axes = figure.add_subplot()
    names = [name for name in LABELS if name != OURS]
    place, ticks, labels, seen = 0.0, [], [], set()
    for r in results:
        here = [name for name in names if name in r.turns]
        for i, name in enumerate(here):
            label = None if name in seen else LABELS[name].replace("`", "")
            seen.add(name)
            ratio = r.ratio(name)
            axes.barh(place + i, ratio - 1, left=1, height=0.8, color=f"C{names.index(name)}", label=label)
            axes.text(max(1, ratio) * 1.05, place + i, times(ratio), va="center", fontsize="x-small")
        ticks.append(place + (len(here) - 1) / 2)
        labels.append(r.workload.name.replace(", ", ",\n", 1))
        place += len(here) + 1
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(ticks, labels, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.set_xlabel("time / time of idl_ref (log scale; right of the line, idl_ref is faster)")
    figure.legend(fontsize="small", loc="outside upper center", ncols=4)
    axes.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contestant (default: 9)")
    parser.add_argument("--only", default="", help=f'workloads whose name contains this, or "{FIRST_CALL}"')
    parser.add_argument("--contestants", nargs="*", help=f"besides idl_ref: {', '.join(LABELS)}, {GEMM} (default: all)")
    parser.add_argument("--out", type=Path, help="folder for benchmarks.md and benchmarks.png (default: print only)")
    arguments = parser.parse_args()
    chosen = [i for i, workload in enumerate(WORKLOADS) if arguments.only in workload.name]
    named = arguments.only in FIRST_CALL
    if not chosen and (arguments.out is not None or not named):  # a page has at least one workload
        parser.error(f"--only must be a part of a workload's name; got {arguments.only!r}.")
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)  # before minutes of measurement, not after
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for number in chosen:
            results.append(measure(number, arguments.rounds, arguments.contestants, Path(folder)))
            print(table(results[-1:]), flush=True)
    if arguments.out is None and not named:
        return
    seconds = first_calls(min(arguments.rounds, 5))
    print(first_table(seconds), flush=True)
    if arguments.out is not None:
        kept = arguments.out / "benchmarks.json"
        kinds = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        kinds[processor()] = {"machine": machine(), "date": date.today().isoformat(), "ratios": ratios(results)}
        kept.write_text(json.dumps(kinds, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (arguments.out / "benchmarks.md").write_text(page(results, seconds, arguments.rounds, kinds), encoding="utf-8")
        draw(results, arguments.out / "benchmarks.png")


if __name__ == "__main__":
    main()
