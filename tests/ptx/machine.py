"""A launch on the CPU: the threads of a block are the lanes of NumPy arrays, block after block.

Of the threads that run, those with the lowest instruction go first and wait for the others to catch up: so they come
together again after a branch. A thread at a barrier waits until all have come there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from ptx import operations as ops
from ptx.memory import GLOBAL_BASE, Global, Reports, Shared
from ptx.program import Instruction, Program, PTXError

Mask = Any  # (threads,) bool, or None for all threads
Step = Callable[["Block", Mask], None]
Read = Callable[["Block"], Any]
BARRIER, BRANCH, RETURN = "barrier", "branch", "return"
SPECIAL: dict[str, Callable[[Block], Any]] = {
    "%tid.x": lambda block: block.tid,
    "%ntid.x": lambda block: block.threads,
    "%ctaid.x": lambda block: block.number,
    "%nctaid.x": lambda block: block.grid,
    "%laneid": lambda block: block.tid % 32,
    "%dynamic_smem_size": lambda block: block.shared.limit,
}


class Kernel:
    """A program, every instruction of it turned into a function once."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.control = [_control(i) for i in program.instructions]
        self.steps = [
            None if c else _decode(i, program) for i, c in zip(program.instructions, self.control, strict=True)
        ]
        self.guards = [
            None if i.guard is None else (_register(i.guard, "pred", program), i.negated) for i in program.instructions
        ]
        self.targets = [
            program.labels[i.operands[0]] if c == BRANCH else -1
            for i, c in zip(program.instructions, self.control, strict=True)
        ]

    def launch(self, grid: int, threads: int, shared: int, arguments: list[Any], arrays: list[Any]) -> Reports:
        """Run it. `arguments` are numbers, and for an array its place in `arrays`, as ("array", i).

        Raises PTXError for what would end it on a device; what would go unseen there is in the reports.
        """
        reports = Reports()
        memory = Global(arrays, reports)
        values = [v for a in arguments for v in ([a] if not isinstance(a, tuple) else _array(a[1], memory))]
        if len(values) != len(self.program.parameters):
            raise PTXError(f"{len(self.program.parameters)} parameters, {len(values)} given")
        parameters = dict(zip(self.program.parameters, values, strict=True))
        with np.errstate(all="ignore"):
            for number in range(grid):
                Block(self, number, grid, threads, Shared(shared, reports), memory, parameters, reports).run()
        memory.copy_back()
        return reports


def _array(i: int, memory: Global) -> list[int]:
    """How numba.cuda passes a flat array: two null pointers, size, item size, address, shape, stride."""
    values = memory.arrays[i].values
    return [0, 0, values.size, values.itemsize, GLOBAL_BASE + memory.starts[i], values.size, values.itemsize]


def _control(instruction: Instruction) -> str:
    name = instruction.parts[0]
    if name == "bar" and instruction.parts[1] == "warp":
        raise PTXError(f"not known here: {instruction.text}")
    return {"bra": BRANCH, "ret": RETURN, "exit": RETURN, "bar": BARRIER}.get(name, "")


class Block:
    """The threads of a block while they run."""

    def __init__(
        self,
        kernel: Kernel,
        number: int,
        grid: int,
        threads: int,
        shared: Shared,
        memory: Global,
        parameters: dict[str, Any],
        reports: Reports,
    ) -> None:
        self.kernel, self.number, self.grid, self.threads = kernel, number, grid, threads
        self.shared, self.memory, self.parameters, self.reports = shared, memory, parameters, reports
        self.tid = np.arange(threads)
        self.registers: dict[str, np.ndarray] = {}
        self.at = np.zeros(threads, np.int64)
        self.exited, self.waiting = np.zeros(threads, bool), np.zeros(threads, bool)
        self.votes = np.zeros(threads, bool)

    def run(self) -> None:
        while not self.exited.all():
            running = ~self.exited & ~self.waiting
            if not running.any():
                self._release()
                continue
            first = int(self.at[running].min())
            mask = running & (self.at == first)
            others = running & ~mask
            stop = int(self.at[others].min()) if others.any() else 1 << 60
            self._straight(first, stop, None if mask.all() else mask)

    def _straight(self, p: int, stop: int, mask: Mask) -> None:
        """From instruction p on, until threads part, wait, exit, or others are met at `stop`."""
        kernel = self.kernel
        everyone = np.ones(self.threads, bool) if mask is None else mask
        while True:
            control, guard = kernel.control[p], kernel.guards[p]
            taken = everyone if guard is None else everyone & (guard[0](self) ^ guard[1])
            if control == BRANCH:
                if taken.sum() not in (0, everyone.sum()):
                    self.at[everyone] = np.where(taken, kernel.targets[p], p + 1)[everyone]
                    return
                p = kernel.targets[p] if taken.any() else p + 1
                if p >= stop or mask is not None:
                    self.at[everyone] = p
                    return
                continue
            if control == RETURN:
                self.exited |= taken
                self.at[everyone] = p + 1
                return
            if control == BARRIER:
                self._arrive(p, everyone)
                return
            step = kernel.steps[p]
            if step is not None and (guard is None or taken.any()):
                step(self, mask if guard is None else taken)
            p += 1
            if p >= stop:
                self.at[everyone] = p
                return

    def _arrive(self, p: int, mask: np.ndarray) -> None:
        instruction = self.kernel.program.instructions[p]
        if instruction.parts[1] == "red":
            vote = instruction.operands[-1]
            value = _register(vote.lstrip("!"), "pred", self.kernel.program)(self) ^ vote.startswith("!")
            self.votes[mask] = value[mask]
        self.waiting |= mask
        self.at[mask] = p

    def _release(self) -> None:
        """Everyone has come to a barrier, or has exited."""
        live = ~self.exited
        places = np.unique(self.at[live])
        instruction = self.kernel.program.instructions[int(places[0])]
        if self.exited.any():
            self.reports.add("barrier without the threads that have exited", instruction.text)
        if len(places) > 1:
            self.reports.add("threads wait at different barriers", instruction.text)
        count = int(self.votes[live].sum())
        for p in places:
            i = self.kernel.program.instructions[int(p)]
            if i.parts[1] == "red":
                if i.parts[2] != "popc":
                    raise PTXError(f"not known here: {i.text}")
                self.write(i.operands[0], np.full(self.threads, count, np.uint32), live & (self.at == p))
        self.at[live] += 1
        self.waiting[:], self.votes[:] = False, False
        self.shared.barrier()

    def write(self, name: str, value: Any, mask: Mask) -> None:
        """Into a register, kept in the type that it was declared with."""
        if name == "_":
            return
        dtype = ops.TYPES[self.kernel.program.kind(name)]
        value = np.asarray(value)
        if value.dtype != dtype:
            same = value.dtype.itemsize == np.dtype(dtype).itemsize and value.dtype != np.bool_
            value = value.view(dtype) if same else value.astype(dtype)
        if mask is None:
            self.registers[name] = np.broadcast_to(value, (self.threads,))
        else:
            old = self.registers.get(name, np.zeros((), dtype))
            self.registers[name] = np.where(mask, value, old)


# --- operands ---------------------------------------------------------------------------------------------------------


def _register(name: str, kind: str, program: Program) -> Read:
    """The lanes of a register, read as a type: as it stands there, cut off, or filled up with zeros."""
    dtype = np.dtype(ops.TYPES[kind])
    declared = np.dtype(ops.TYPES[program.kind(name)])
    nothing = np.zeros((), declared)
    if declared == dtype:
        return lambda block: block.registers.get(name, nothing)
    if declared.itemsize == dtype.itemsize:
        return lambda block: np.asarray(block.registers.get(name, nothing)).view(dtype)
    unsigned = np.dtype(f"u{declared.itemsize}")
    return lambda block: np.asarray(block.registers.get(name, nothing)).view(unsigned).astype(dtype)


def operand(text: str, kind: str, program: Program) -> Read:
    """A register, a special one, a number, or the start of shared memory."""
    dtype = ops.TYPES[kind]
    if text in SPECIAL:
        special = SPECIAL[text]
        return lambda block: np.asarray(special(block)).astype(dtype)
    if text[0] == "%":
        return _register(text, kind, program)
    if text in program.shared:
        return lambda block: dtype(0)
    if text[:2] in ("0f", "0d"):
        number = struct.unpack(">f" if text[1] == "f" else ">d", bytes.fromhex(text[2:]))[0]
        return _constant(dtype(number))
    whole = int(text, 0)
    if kind[0] == "f":
        raise PTXError(f"a whole number {text} where {kind} is expected")
    return _constant(np.array(whole & 0xFFFFFFFFFFFFFFFF, np.uint64).astype(dtype))


def _constant(value: Any) -> Read:
    return lambda block: value


def _address(text: str, program: Program) -> tuple[Read, int]:
    base, _, offset = text.strip("[]").partition("+")
    return operand(base, "s64", program), int(offset or 0)


# --- instructions -----------------------------------------------------------------------------------------------------


def _decode(instruction: Instruction, program: Program) -> Step:
    """An instruction as a function of a block and the threads that carry it out."""
    parts, operands = instruction.parts, instruction.operands
    name, kind = parts[0], parts[-1]
    if name == "ld" and parts[1] == "param":
        return _parameter(operands, kind)
    if name in ("ld", "st"):
        return _access(instruction, program)
    if name == "shfl":
        return _shuffle(instruction, program)
    if name == "cvta":
        return _pure(operands, [kind], lambda a: a, program)
    if name == "mov":
        return _move(operands, kind, program)
    if name == "selp":
        return _pure(operands, [kind, kind, "pred"], lambda a, b, c: np.where(c, a, b), program)
    if name == "setp":
        return _pure(operands, [kind, kind], ops.comparison(parts), program)
    if name in ("shl", "shr"):
        return _pure(operands, [kind, "u32"], ops.shift(parts), program)
    if name == "cvt":
        return _pure(operands, [kind], ops.conversion(parts), program)
    if name == "mul" and "hi" in parts:
        return _pure(operands, [kind, kind], ops.high(kind), program)
    if name in ("mul", "mad") and "wide" in parts:
        double = ops.TYPES[kind[0] + str(2 * int(kind[1:]))]
        kinds = [kind, kind, kind[0] + str(2 * int(kind[1:]))][: len(operands) - 1]
        return _pure(operands, kinds, lambda a, b, c=double(0): a.astype(double) * b.astype(double) + c, program)
    return _pure(operands, [kind] * (len(operands) - 1), ops.arithmetic(parts), program)


def _pure(operands: tuple[str, ...], kinds: list[str], function: Callable[..., Any], program: Program) -> Step:
    target = operands[0].split("|")[0]
    reads = [operand(text, kind, program) for text, kind in zip(operands[1:], kinds, strict=True)]
    return lambda block, mask: block.write(target, function(*[read(block) for read in reads]), mask)


def _parameter(operands: tuple[str, ...], kind: str) -> Step:
    name, dtype = operands[1].strip("[]"), ops.TYPES[kind]

    def step(block: Block, mask: Mask) -> None:
        value = block.parameters[name]
        whole = kind[0] != "f"
        block.write(operands[0], np.array(value, np.int64).astype(dtype) if whole else dtype(value), mask)

    return step


def _move(operands: tuple[str, ...], kind: str, program: Program) -> Step:
    if operands[0][0] == "{":  # one register into two
        low, high = operands[0].strip("{} ").split(",")
        read = operand(operands[1], "b64", program)

        def split(block: Block, mask: Mask) -> None:
            value = np.broadcast_to(read(block), (block.threads,))
            block.write(low.strip(), (value & np.uint64(0xFFFFFFFF)).astype(np.uint32), mask)
            block.write(high.strip(), (value >> np.uint64(32)).astype(np.uint32), mask)

        return split
    if operands[1][0] == "{":  # two registers into one
        reads = [operand(text.strip(), "b32", program) for text in operands[1].strip("{} ").split(",")]

        def join(block: Block, mask: Mask) -> None:
            low, high = (np.asarray(read(block)).astype(np.uint64) for read in reads)
            block.write(operands[0], low | (high << np.uint64(32)), mask)

        return join
    return _pure(operands, [kind], lambda a: a, program)


def _access(instruction: Instruction, program: Program) -> Step:
    """ld and st of one number, two or four, in global or shared memory."""
    parts, load = instruction.parts, instruction.parts[0] == "ld"
    space = next((part for part in ("global", "shared") if part in parts), None)
    if space is None:
        raise PTXError(f"generic addresses are not known here: {instruction.text}")
    count = 4 if "v4" in parts else 2 if "v2" in parts else 1
    at, data = (instruction.operands[1], instruction.operands[0]) if load else instruction.operands
    base, offset = _address(at, program)
    names = [name.strip() for name in data.strip("{} ").split(",")]
    dtype, text = np.dtype(ops.TYPES[parts[-1]]), instruction.text
    reads = [] if load else [operand(name, parts[-1], program) for name in names]

    def step(block: Block, mask: Mask) -> None:
        lanes = block.tid if mask is None else block.tid[mask]
        addresses = np.broadcast_to(base(block), (block.threads,))[lanes] + offset
        memory = block.shared if space == "shared" else block.memory
        if space == "global":
            addresses = addresses - GLOBAL_BASE
        words = memory.words(addresses, dtype.itemsize, count, text)
        if space == "global":
            block.memory.note(words, block.number, text, not load)
        elif load:
            block.shared.note_read(words, lanes, text)
        else:
            block.shared.note_write(words, lanes, text)
        if load:
            for name, value in zip(names, memory.get(addresses, dtype, count), strict=True):
                spread = np.zeros(block.threads, dtype)
                spread[lanes] = value
                block.write(name, spread, mask)
        else:
            values = [np.broadcast_to(read(block), (block.threads,))[lanes].astype(dtype) for read in reads]
            memory.set(addresses, values)

    return step


def _shuffle(instruction: Instruction, program: Program) -> Step:
    """shfl.sync: a number from another lane of the warp."""
    target, _, other = instruction.operands[0].partition("|")
    value, by = (
        operand(text, kind, program) for text, kind in zip(instruction.operands[1:3], ("b32", "s32"), strict=True)
    )
    mode, text = instruction.parts[2], instruction.text

    def step(block: Block, mask: Mask) -> None:
        lane, amount = block.tid & 31, np.asarray(by(block))
        source = {"bfly": lane ^ amount, "down": lane + amount, "up": lane - amount, "idx": amount + 0 * lane}[mode]
        inside = (source >= 0) & (source < 32)
        source = (block.tid & ~31) + np.where(inside, source, lane)
        if mask is not None and not mask[source[mask]].all():
            block.reports.add("shuffle from a thread that does not take part", text)
        block.write(target, np.broadcast_to(value(block), (block.threads,))[source], mask)
        if other:
            block.write(other, inside, mask)

    return step
