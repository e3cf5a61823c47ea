"""A parser of PTX: from the text of a kernel to a list of instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# A statement: perhaps a guard, @%p1 or @!%p1; the opcode; the operands.
GUARDED = re.compile(r"^(?:@(!?)(%\w+)\s+)?([a-z][\w.]*)\s*(.*)$")


class PTXError(RuntimeError):
    """An error that would abort a kernel on a GPU, or PTX that this interpreter does not support."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of PTX, `@[!]guard opcode operands`."""

    opcode: str  # "ld.shared.v4.f32"
    parts: tuple[str, ...]  # ("ld", "shared", "v4", "f32")
    operands: tuple[str, ...]
    guard: str | None  # the predicate register without which a thread skips the instruction
    negated: bool  # whether the guard is negated
    text: str  # the whole statement


@dataclass
class Program:
    """The parameters, registers, labels and instructions of a kernel."""

    name: str
    parameters: dict[str, str]  # name -> type
    # Name -> type. A declaration of a range, %r<9>, is here under the name without the number, %r.
    registers: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)  # name -> number of the instruction that follows
    instructions: list[Instruction] = field(default_factory=list)
    shared: frozenset[str] = frozenset()  # names for dynamic shared memory; each stands for its address 0

    def kind(self, register: str) -> str:
        """Return the type that a register was declared with."""
        if register in self.registers:
            return self.registers[register]
        return self.registers[register.rstrip("0123456789")]


def parse(ptx: str) -> Program:
    """Parse PTX that contains one kernel."""
    ptx = re.sub(r"//[^\n]*", "", ptx)
    entry = re.search(r"\.entry\s+(\w+)\s*\(", ptx)
    if entry is None:
        raise PTXError("there is no kernel in this PTX")
    if ".local" in ptx or re.search(r"^\s*\.shared", ptx, re.M) or re.search(r"^\s*call", ptx, re.M):
        raise PTXError("local memory, static shared memory and calls are not supported by the interpreter")
    end = ptx.index(")", entry.end())
    parameters = {name: kind for kind, name in re.findall(r"\.param \.(\w+) (\w+)", ptx[entry.end() : end])}
    program = Program(entry[1], parameters)
    program.shared = frozenset(re.findall(r"\.extern \.shared \.align \d+ \.b8 (\w+)\[", ptx))
    body = _braces(ptx, ptx.index("{", end))
    body = _open_scopes(body, program)
    for kind, name, _ in re.findall(r"\.reg \.(\w+)\s+(%\w+)<(\d+)>;", body):
        program.registers[name] = kind
    for kind, name in re.findall(r"\.reg \.(\w+)\s+(%\w+);", body):
        program.registers[name] = kind
    for statement in re.split(r";", re.sub(r"(\$\w+):", r"\1:;", body)):
        _add(program, " ".join(statement.split()))
    return program


def _braces(text: str, start: int) -> str:
    """Return the text between the opening brace at `start` and its closing brace."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[start + 1 : i]
    raise PTXError("a brace is not closed")


def _open_scopes(body: str, program: Program) -> str:
    """Remove the braces of inner scopes, { .reg … }, and rename the registers that are declared there uniquely."""
    number = 0
    while scope := re.search(r"\{\s*\.reg", body):
        inside = _braces(body, scope.start())
        end, number = scope.start() + len(inside) + 2, number + 1
        for kind, name in re.findall(r"\.reg \.(\w+)\s+(%?\w+);", inside):
            new = f"%scope{number}_{name.lstrip('%')}"
            program.registers[new] = kind
            inside = re.sub(rf"\.reg \.\w+\s+{re.escape(name)};", "", inside)
            inside = re.sub(rf"{re.escape(name)}(?!\w)", new, inside)
        body = body[: scope.start()] + inside + body[end:]
    return body


def _add(program: Program, statement: str) -> None:
    """Add a label or an instruction to the program; skip directives."""
    if not statement or statement.startswith("."):
        return
    if statement.endswith(":"):
        program.labels[statement[:-1]] = len(program.instructions)
        return
    match = GUARDED.match(statement)
    if match is None:
        raise PTXError(f"cannot parse {statement!r}")
    negated, guard, opcode, operands = match.groups()
    parts, split = tuple(opcode.split(".")), tuple(_split(operands))
    program.instructions.append(Instruction(opcode, parts, split, guard, bool(negated), statement))


def _split(operands: str) -> list[str]:
    """Split operands at the commas outside of braces."""
    return [o.strip() for o in re.split(r",(?![^{]*\})", operands) if o.strip()]
