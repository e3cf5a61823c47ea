"""PTX text to a list of instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

GUARDED = re.compile(r"^(?:@(!?)(%\w+)\s+)?([a-z][\w.]*)\s*(.*)$")


class PTXError(RuntimeError):
    """What a kernel did that ends it, or an instruction that is not known here."""


@dataclass(frozen=True)
class Instruction:
    """`@[!]guard opcode operands`"""

    opcode: str  # "ld.shared.v4.f32"
    parts: tuple[str, ...]  # ("ld", "shared", "v4", "f32")
    operands: tuple[str, ...]
    guard: str | None
    negated: bool
    text: str


@dataclass
class Program:
    """A kernel: its parameters, registers, labels and instructions."""

    name: str
    parameters: dict[str, str]  # name -> type
    registers: dict[str, str] = field(default_factory=dict)  # name, or what its number follows on -> type
    labels: dict[str, int] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    shared: frozenset[str] = frozenset()  # names of the dynamic shared memory, which all begin at 0

    def kind(self, register: str) -> str:
        """The type that a register was declared with."""
        if register in self.registers:
            return self.registers[register]
        return self.registers[register.rstrip("0123456789")]


def parse(ptx: str) -> Program:
    """The one kernel in a PTX file."""
    ptx = re.sub(r"//[^\n]*", "", ptx)
    entry = re.search(r"\.entry\s+(\w+)\s*\(", ptx)
    if entry is None:
        raise PTXError("no kernel in this PTX")
    if ".local" in ptx or re.search(r"^\s*\.shared", ptx, re.M) or re.search(r"^\s*call", ptx, re.M):
        raise PTXError("local memory, static shared memory and calls are not known here")
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
    """What stands between the brace at `start` and the one that closes it."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[start + 1 : i]
    raise PTXError("a brace is not closed")


def _open_scopes(body: str, program: Program) -> str:
    """Give the registers of inner scopes, { .reg … }, names of their own and drop the braces."""
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
    if not statement or statement.startswith("."):
        return
    if statement.endswith(":"):
        program.labels[statement[:-1]] = len(program.instructions)
        return
    match = GUARDED.match(statement)
    if match is None:
        raise PTXError(f"cannot read {statement!r}")
    negated, guard, opcode, operands = match.groups()
    parts, split = tuple(opcode.split(".")), tuple(_split(operands))
    program.instructions.append(Instruction(opcode, parts, split, guard, bool(negated), statement))


def _split(operands: str) -> list[str]:
    """At the commas outside of braces."""
    return [o.strip() for o in re.split(r",(?![^{]*\})", operands) if o.strip()]
