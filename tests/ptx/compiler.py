"""PTX and machine code of the kernels without a driver, and what the machine code looks like."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from numba import cuda, types
from numba.cuda import dispatcher

BINARIES = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin"
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*?);")


def argument(value: Any) -> Any:
    """The type that numba.cuda gives an argument, flat arrays standing for themselves by their dtype."""
    return cuda.dispatcher.typeof(value)


def ptx(kernel: Any, arguments: tuple[Any, ...], cc: tuple[int, int] = (8, 0)) -> str:
    """The PTX of a kernel for the types of its arguments.

    numba.cuda asks the driver for one thing only, the compute capability when it compiles a device function.
    """
    return _ptx(kernel.py_func, types.void(*arguments), cc, kernel.targetoptions.get("launch_bounds"))


@cache
def _ptx(function: Any, signature: Any, cc: tuple[int, int], bounds: Any) -> str:
    with mock.patch.object(dispatcher, "get_current_device", return_value=SimpleNamespace(compute_capability=cc)):
        how: dict[str, Any] = {"device": False, "abi": "numba", "output": "ptx", "launch_bounds": bounds}
        return cuda.compile(function, signature, cc=cc, **how)[0]


@dataclass(frozen=True)
class Report:
    """What ptxas and nvdisasm say of a kernel."""

    registers: int
    stack: int  # bytes, spills among them
    static_shared: int
    instructions: list[tuple[str, str]]
    loops: list[list[str]]  # the innermost ones, their opcodes

    def product_loops(self) -> list[Counter[str]]:
        """The opcodes of the loops of products, in which most of the instructions multiply and add."""
        loops = [Counter(opcodes) for opcodes in self.loops]
        return [loop for loop in loops if 2 * multiplications(loop) > loop.total()]


def multiplications(loop: Counter[str]) -> int:
    """How many instructions of a loop multiply and add."""
    return sum(count for op, count in loop.items() if op[:4] in ("FFMA", "DFMA"))


def assemble(text: str, arch: str, folder: Path) -> Report:
    """Machine code for an architecture such as "sm_90"."""
    source, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(text, encoding="utf-8")
    said = _run(BINARIES / "ptxas", "-v", f"-arch={arch}", source, "-o", cubin).stderr
    stack = [int(n) for n in re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", said)]
    registers, shared = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes smem", said)
    if len(stack) != 3 or registers is None:
        raise RuntimeError(f"cannot read what ptxas says: {said}")
    instructions, loops = _loops(_run(BINARIES / "nvdisasm", "-c", cubin).stdout)
    return Report(int(registers[1]), sum(stack), int(shared[1]) if shared else 0, instructions, loops)


def _run(*command: Any) -> subprocess.CompletedProcess:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{Path(command[0]).name}: {result.stderr.strip()[:500]}")
    return result


def _loops(listing: str) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Instructions and innermost loops: from a label to the branch back to it, with no such pair inside."""
    instructions: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label[1]] = len(instructions)
        elif found := INSTRUCTION.match(line):
            instructions.append((found[2], found[3]))
    back = []
    for i, (opcode, rest) in enumerate(instructions):
        target = re.search(r"`\((\.L_\w+)\)", rest) if opcode.startswith("BRA") else None
        if target and labels.get(target[1], i + 1) <= i:
            back.append((labels[target[1]], i))
    inner = [(s, e) for s, e in back if not any(s <= t and f <= e and (s, e) != (t, f) for t, f in back)]
    return instructions, [[opcode for opcode, _ in instructions[s : e + 1]] for s, e in inner]
