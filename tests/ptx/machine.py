"""Execution of a kernel's PTX on the CPU, one block of threads after the other.

A register is a NumPy array with an entry per thread, or a scalar where all threads have the same value, as loop
counters do: most instructions are then much cheaper. Where the threads of a block diverge, those at the instruction
with the lowest number are executed until they reach the next group of threads: so diverged threads reconverge after a
branch. A thread at a barrier waits until all threads of the block are at a barrier or have exited.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ptx import operations as ops
from ptx.memory import GLOBAL_BASE, Global, Reports, Shared
from ptx.program import Instruction, Program, PTXError

Mask = Any  # which threads execute an instruction: (threads,) bool, or None for all of them
Step = Callable[["Block", Mask], None]  # an instruction
Read = Callable[["Block"], Any]  # an operand: its value in every thread
Write = Callable[["Block", Any, Mask], None]  # a register that an instruction writes
BARRIER, BRANCH, RETURN = "barrier", "branch", "return"  # the kinds of instructions that control the flow
# The special registers of PTX.
SPECIAL: dict[str, Callable[[Block], Any]] = {
    "%tid.x": lambda block: block.tid,
    "%ntid.x": lambda block: block.threads,
    "%ctaid.x": lambda block: block.number,
    "%nctaid.x": lambda block: block.grid,
    "%laneid": lambda block: block.tid % 32,
    "%dynamic_smem_size": lambda block: block.shared.limit,
}


class Run(NamedTuple):
    """Instructions that are executed one after the other, up to one that controls the flow or that has a label."""

    steps: list[Step]
    end: int  # the number of the next instruction
    control: str  # its kind; "" if it does not control the flow
    guard: Read | None
    target: int  # of a branch; else -1


class Kernel:
    """A program with each instruction decoded into a Python function, once for all launches."""

    def __init__(self, program: Program) -> None:
        self.program = program
        control = [_control(i) for i in program.instructions]
        after_control = {number + 1 for number, kind in enumerate(control) if kind}
        starts = sorted({0, *program.labels.values(), *after_control})
        self.runs: dict[int, Run] = {}  # by the number of the first instruction
        for first, following in zip(starts, [*starts[1:], len(control)], strict=True):
            end = following - 1 if following > first and control[following - 1] else following
            steps = [_guarded(program.instructions[number], program) for number in range(first, end)]
            last = program.instructions[end] if end < len(control) else None
            guard = None if last is None or last.guard is None else _guard(last, program)
            kind = control[end] if last is not None else ""
            target = program.labels[last.operands[0]] if last is not None and kind == BRANCH else -1
            self.runs[first] = Run(steps, end, kind, guard, target)

    def launch(self, grid: int, threads: int, shared: int, arguments: list[Any], arrays: list[Any]) -> Reports:
        """Execute a launch of `grid` blocks of `threads` threads with `shared` bytes of shared memory each.

        `arguments` are numbers and, for an array, ("array", its place in `arrays`). Raises PTXError for an error that
        would abort the kernel on a GPU, and returns reports of those that a GPU would not show.
        """
        reports = Reports()
        memory = Global(arrays, reports)
        values = [v for a in arguments for v in ([a] if not isinstance(a, tuple) else _array(a[1], memory))]
        if len(values) != len(self.program.parameters):
            raise PTXError(f"the kernel has {len(self.program.parameters)} parameters; got {len(values)}")
        parameters = dict(zip(self.program.parameters, values, strict=True))
        with np.errstate(all="ignore"):
            for number in range(grid):
                Block(self, number, grid, threads, Shared(shared, reports), memory, parameters).run()
        memory.copy_back()
        return reports


def _array(i: int, memory: Global) -> list[int]:
    """Return a flat array as the parameters that numba.cuda passes for it.

    These are two null pointers, the size, the item size, the address, the shape and the stride.
    """
    values = memory.arrays[i].values
    return [0, 0, values.size, values.itemsize, GLOBAL_BASE + memory.starts[i], values.size, values.itemsize]


def _control(instruction: Instruction) -> str:
    """Return the kind of an instruction that controls the flow; "" for any other."""
    name = instruction.parts[0]
    if name == "bar" and instruction.parts[1] == "warp":
        raise PTXError(f"not supported by the interpreter: {instruction.text}")
    return {"bra": BRANCH, "ret": RETURN, "exit": RETURN, "bar": BARRIER}.get(name, "")


class Block:
    """The threads of one block, their registers and their positions in the program, during a launch."""

    def __init__(
        self,
        kernel: Kernel,
        number: int,
        grid: int,
        threads: int,
        shared: Shared,
        memory: Global,
        parameters: dict[str, Any],
    ) -> None:
        self.kernel, self.number, self.grid, self.threads = kernel, number, grid, threads
        self.shared, self.memory, self.parameters, self.reports = shared, memory, parameters, memory.reports
        self.tid = np.arange(threads)
        self.registers: dict[str, np.ndarray] = {}
        self.at = np.zeros(threads, np.int64)  # the number of the next instruction of each thread
        self.exited, self.waiting = np.zeros(threads, bool), np.zeros(threads, bool)  # waiting: at a barrier
        self.votes = np.zeros(threads, bool)  # the predicates that threads bring to a barrier which counts them

    def run(self) -> None:
        """Execute the block until all threads have exited."""
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
        """Execute the threads of `mask` from instruction p on, all at the same instruction.

        Ends where these threads diverge, wait at a barrier, exit, or reach `stop`, where other threads are: that is the
        first instruction of a run.
        """
        everyone = np.ones(self.threads, bool) if mask is None else mask
        while True:
            steps, end, control, guard, target = self.kernel.runs[p]
            for step in steps:
                step(self, mask)
            taken = everyone if guard is None else everyone & guard(self)
            if control == BRANCH:
                count = self.threads if guard is None and mask is None else np.count_nonzero(taken)
                if count and guard is not None and count != np.count_nonzero(everyone):
                    self.at[everyone] = np.where(taken, target, end + 1)[everyone]
                    return
                p = target if count else end + 1
                if p >= stop or mask is not None:
                    self.at[everyone] = p
                    return
            elif control == RETURN:
                self.exited |= taken
                self.at[everyone] = end + 1
                return
            elif control == BARRIER:
                self._arrive(end, everyone)
                return
            else:
                p = end
                if p >= stop:
                    self.at[everyone] = p
                    return

    def _arrive(self, p: int, mask: np.ndarray) -> None:
        """Let the threads of `mask` wait at the barrier p, and record their votes if it counts a predicate."""
        instruction = self.kernel.program.instructions[p]
        if instruction.parts[1] == "red":
            vote = instruction.operands[-1]
            value = _register(vote.lstrip("!"), "pred", self.kernel.program)(self) ^ vote.startswith("!")
            self.votes[mask] = np.broadcast_to(value, mask.shape)[mask]
        self.waiting |= mask
        self.at[mask] = p

    def _release(self) -> None:
        """Let all waiting threads go on: every thread of the block is at a barrier or has exited.

        On a GPU, both exited threads and threads at different barriers would be undefined behaviour, or a deadlock.
        """
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
                    raise PTXError(f"not supported by the interpreter: {i.text}")
                _target(i.operands[0], self.kernel.program)(self, np.uint32(count), live & (self.at == p))
        self.at[live] += 1
        self.waiting[:], self.votes[:] = False, False
        self.shared.barrier()


# --- operands ---------------------------------------------------------------------------------------------------------


def _register(name: str, kind: str, program: Program) -> Read:
    """Return a function that reads a register as a type: its bits as they are, truncated, or zero-extended."""
    dtype = np.dtype(ops.TYPES[kind])
    declared = np.dtype(ops.TYPES[program.kind(name)])
    nothing = declared.type(0)
    if declared == dtype:
        return lambda block: block.registers.get(name, nothing)
    if declared.itemsize == dtype.itemsize:
        return lambda block: block.registers.get(name, nothing).view(dtype)
    unsigned = np.dtype(f"u{declared.itemsize}")
    return lambda block: block.registers.get(name, nothing).view(unsigned).astype(dtype)


def _target(name: str, program: Program) -> Write:
    """Return a function that writes bits to a register, in the type that the register is declared with."""
    if name == "_":
        return lambda block, value, mask: None
    dtype = np.dtype(ops.TYPES[program.kind(name)])
    nothing = dtype.type(0)

    def write(block: Block, value: Any, mask: Mask) -> None:
        if value.dtype != dtype:
            same = value.dtype.itemsize == dtype.itemsize and value.dtype != np.bool_
            value = value.view(dtype) if same else value.astype(dtype)
        if mask is not None:
            value = np.where(mask, value, block.registers.get(name, nothing))
        block.registers[name] = value

    return write


def _guard(instruction: Instruction, program: Program) -> Read:
    """Return a function that tells which threads execute an instruction with a guard, @%p1 or @!%p1."""
    read = _register(str(instruction.guard), "pred", program)
    return (lambda block: ~read(block)) if instruction.negated else read


def _guarded(instruction: Instruction, program: Program) -> Step:
    """Decode an instruction, which the threads whose guard forbids it skip."""
    step = _decode(instruction, program)
    if instruction.guard is None:
        return step
    guard = _guard(instruction, program)

    def guarded(block: Block, mask: Mask) -> None:
        taken = np.broadcast_to(guard(block), (block.threads,)) if mask is None else mask & guard(block)
        if taken.any():
            step(block, taken)

    return guarded


def operand(text: str, kind: str, program: Program) -> Read:
    """Return a function that reads an operand: a register, a special one, a number, or the start of shared memory."""
    dtype = ops.TYPES[kind]
    if text in SPECIAL:
        special = SPECIAL[text]
        return lambda block: np.asarray(special(block), dtype)[()]
    if text[0] == "%":
        return _register(text, kind, program)
    if text in program.shared:
        return lambda block: dtype(0)
    if text[:2] in ("0f", "0d"):
        number = struct.unpack(">f" if text[1] == "f" else ">d", bytes.fromhex(text[2:]))[0]
        return _constant(dtype(number))
    whole = int(text, 0)
    if kind[0] == "f":
        raise PTXError(f"an operand of type {kind} is expected; got the integer {text}")
    return _constant(np.array(whole & 0xFFFFFFFFFFFFFFFF, np.uint64).astype(dtype))


def _constant(value: Any) -> Read:
    """Return a function that returns a constant operand."""
    return lambda block: value


def _address(text: str, program: Program) -> tuple[Read, int]:
    """Parse an address such as "[%rd1+8]" into a function that reads the base, and the offset in bytes."""
    base, _, offset = text.strip("[]").partition("+")
    return operand(base, "s64", program), int(offset or 0)


# --- instructions -----------------------------------------------------------------------------------------------------


def _decode(instruction: Instruction, program: Program) -> Step:
    """Decode an instruction into a function of a block and the mask of the threads that execute it."""
    parts, operands = instruction.parts, instruction.operands
    name, kind = parts[0], parts[-1]
    if name == "ld" and parts[1] == "param":
        return _parameter(operands, kind, program)
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
    """Decode an instruction that computes its first operand from the others, which it reads as the types `kinds`."""
    write = _target(operands[0].split("|")[0], program)
    reads = [operand(text, kind, program) for text, kind in zip(operands[1:], kinds, strict=True)]
    if len(reads) == 1:
        (a,) = reads
        return lambda block, mask: write(block, function(a(block)), mask)
    if len(reads) == 2:
        a, b = reads
        return lambda block, mask: write(block, function(a(block), b(block)), mask)
    a, b, c = reads
    return lambda block, mask: write(block, function(a(block), b(block), c(block)), mask)


def _parameter(operands: tuple[str, ...], kind: str, program: Program) -> Step:
    """Decode ld.param: load a parameter of the kernel."""
    name, dtype, write = operands[1].strip("[]"), ops.TYPES[kind], _target(operands[0], program)

    def step(block: Block, mask: Mask) -> None:
        value = block.parameters[name]
        whole = kind[0] != "f"
        write(block, np.int64(value).astype(dtype) if whole else dtype(value), mask)

    return step


def _move(operands: tuple[str, ...], kind: str, program: Program) -> Step:
    """Decode mov, also between one 64-bit register and two 32-bit registers in braces, the lower half first."""
    if operands[0][0] == "{":  # one register into two
        low, high = (_target(name.strip(), program) for name in operands[0].strip("{} ").split(","))
        read = operand(operands[1], "b64", program)

        def split(block: Block, mask: Mask) -> None:
            value = read(block)
            low(block, (value & np.uint64(0xFFFFFFFF)).astype(np.uint32), mask)
            high(block, (value >> np.uint64(32)).astype(np.uint32), mask)

        return split
    if operands[1][0] == "{":  # two registers into one
        reads = [operand(text.strip(), "b32", program) for text in operands[1].strip("{} ").split(",")]
        whole = _target(operands[0], program)

        def join(block: Block, mask: Mask) -> None:
            low, high = (read(block).astype(np.uint64) for read in reads)
            whole(block, low | (high << np.uint64(32)), mask)

        return join
    return _pure(operands, [kind], lambda a: a, program)


def _access(instruction: Instruction, program: Program) -> Step:
    """Decode ld and st of one, two or four numbers in global or shared memory, with all checks of `memory`."""
    parts, load = instruction.parts, instruction.parts[0] == "ld"
    space = next((part for part in ("global", "shared") if part in parts), None)
    if space is None:
        raise PTXError(f"generic addresses are not supported by the interpreter: {instruction.text}")
    count = 4 if "v4" in parts else 2 if "v2" in parts else 1
    at, data = (instruction.operands[1], instruction.operands[0]) if load else instruction.operands
    base, offset = _address(at, program)
    names = [name.strip() for name in data.strip("{} ").split(",")]
    dtype, text = np.dtype(ops.TYPES[parts[-1]]), instruction.text
    reads = [] if load else [operand(name, parts[-1], program) for name in names]
    writes = [_target(name, program) for name in names] if load else []

    def step(block: Block, mask: Mask) -> None:
        addresses, lanes = np.broadcast_to(base(block) + offset, (block.threads,)), block.tid
        if mask is not None:
            addresses, lanes = addresses[mask], lanes[mask]
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
            for write, value in zip(writes, memory.get(addresses, dtype, count), strict=True):
                if mask is None:
                    write(block, value, None)
                else:
                    spread = np.zeros(block.threads, dtype)
                    spread[mask] = value
                    write(block, spread, mask)
        else:
            values = [np.broadcast_to(read(block), (block.threads,)).astype(dtype) for read in reads]
            memory.set(addresses, values if mask is None else [value[mask] for value in values])

    return step


def _shuffle(instruction: Instruction, program: Program) -> Step:
    """Decode shfl.sync: each thread reads a register of another thread of its warp."""
    target, _, other = instruction.operands[0].partition("|")
    value, by = (
        operand(text, kind, program) for text, kind in zip(instruction.operands[1:3], ("b32", "s32"), strict=True)
    )
    mode, text = instruction.parts[2], instruction.text
    write, write_inside = _target(target, program), _target(other or "_", program)

    def step(block: Block, mask: Mask) -> None:
        lane, amount = block.tid & 31, by(block)
        source = {"bfly": lane ^ amount, "down": lane + amount, "up": lane - amount, "idx": amount + 0 * lane}[mode]
        inside = (source >= 0) & (source < 32)
        source = (block.tid & ~31) + np.where(inside, source, lane)
        if mask is not None and not mask[source[mask]].all():
            block.reports.add("shuffle from a thread that does not take part", text)
        write(block, np.broadcast_to(value(block), (block.threads,))[source], mask)
        write_inside(block, inside, mask)

    return step
