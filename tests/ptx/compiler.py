"""Compile kernels to PTX and to machine code without a driver, and report properties of the machine code."""

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

BINARIES = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin"  # where pip installs ptxas and nvdisasm
# A line of nvdisasm: an address, perhaps a predicate, the opcode, the operands.
INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*?);")


def argument(value: Any) -> Any:
    """Return the Numba type of an argument that is not an array."""
    return cuda.dispatcher.typeof(value)


def ptx(kernel: Any, arguments: tuple[Any, ...], cc: tuple[int, int] = (8, 0)) -> str:
    """Compile a kernel to PTX for the Numba types of its arguments and a compute capability.

    No driver is needed: the only thing that numba.cuda asks the driver is the compute capability of the device, when it
    compiles a device function, and `_ptx` answers in its place.
    """
    return _ptx(kernel.py_func, types.void(*arguments), cc, kernel.targetoptions.get("launch_bounds"))


@cache
def _ptx(function: Any, signature: Any, cc: tuple[int, int], bounds: Any) -> str:
    """Compile a Python function as a kernel with these launch bounds."""
    with mock.patch.object(dispatcher, "get_current_device", return_value=SimpleNamespace(compute_capability=cc)):
        how: dict[str, Any] = {"device": False, "abi": "numba", "output": "ptx", "launch_bounds": bounds}
        return cuda.compile(function, signature, cc=cc, **how)[0]


@dataclass(frozen=True)
class Report:
    """The properties of the machine code of a kernel, as ptxas and nvdisasm print them."""

    registers: int  # per thread
    stack: int  # bytes of the stack frame, of spill stores and of spill loads
    static_shared: int  # bytes
    instructions: list[tuple[str, str]]  # opcode and operands
    loops: list[list[str]]  # the opcodes of each innermost loop

    def product_loops(self) -> list[Counter[str]]:
        """Count the opcodes of each loop of a matrix product: one where most instructions are multiply-adds."""
        loops = [Counter(opcodes) for opcodes in self.loops]
        return [loop for loop in loops if 2 * multiplications(loop) > loop.total()]


def multiplications(loop: Counter[str]) -> int:
    """Return the number of fused multiply-adds in a loop."""
    return sum(count for op, count in loop.items() if op[:4] in ("FFMA", "DFMA"))


def assemble(text: str, arch: str, folder: Path) -> Report:
    """Assemble PTX to machine code for an architecture such as "sm_90", and report its properties.

    `folder` receives the files of ptxas.
    """
    source, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(text, encoding="utf-8")
    said = _run(BINARIES / "ptxas", "-v", f"-arch={arch}", source, "-o", cubin).stderr
    stack = [int(n) for n in re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", said)]
    registers, shared = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes smem", said)
    if len(stack) != 3 or registers is None:
        raise RuntimeError(f"cannot parse the output of ptxas: {said}")
    instructions, loops = _loops(_run(BINARIES / "nvdisasm", "-c", cubin).stdout)
    return Report(int(registers[1]), sum(stack), int(shared[1]) if shared else 0, instructions, loops)


def _run(*command: Any) -> subprocess.CompletedProcess:
    """Run a program, and raise RuntimeError with its error output if it fails."""
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{Path(command[0]).name}: {result.stderr.strip()[:500]}")
    return result


def _loops(listing: str) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Parse the output of nvdisasm into all instructions and the opcodes of each innermost loop.

    A loop extends from a label to a branch back to it; it is innermost if no other loop lies inside.
    """
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
