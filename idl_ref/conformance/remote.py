"""Backends in other languages than Python: a program that answers requests in JSON, and a folder of answers.

`truth.files` describes the files in which problems and answers are exchanged.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from idl_ref import npz
from idl_ref.conformance.judge.text import short, tail
from idl_ref.conformance.process import LINE_LIMIT, Program, TooLongError
from idl_ref.conformance.truth.backend import BackendError
from idl_ref.conformance.truth.files import digest, read_answer, write_problem
from idl_ref.conformance.truth.problem import Case, Problem

TEXT_LIMIT = 1 << 20  # The largest size in bytes of a text in which a program says why it has no answer.
SUSPECT, HOPELESS = 3, 30  # so many answers in a row that did not come in time: wait less from now on; ask no more
HURRY = 0.1  # the part of the time limit that is left then
LOGS = "write logs to standard error"


class Command:
    """A program that reads one request per line and writes one answer per line, in JSON.

    Parameters
    ----------
    command : str
        The program and its arguments, split as a shell splits them; no shell is started.
    timeout : float
        Seconds that the program has for one answer. After them it is killed with all that it has started, and started
        again for the next request.

    Notes
    -----
    The requests are {"op": "hello"}, {"op": "forward" or "vjp", "dir": FOLDER, "out": FOLDER} and {"op": "bye"}, each
    with an "id". The answer to hello is {"name": …, "capabilities": {…}}. For forward and vjp the program reads the
    problem in "dir", writes the arrays to "out" and answers {"ok": true}; or it answers {"error": "why not"}. An answer
    repeats the "id" of its request. A program whose answer to hello has none may leave it out of all of them.
    """

    one_at_a_time = "a process answers one request after the other"  # why it is not called from several threads

    def __init__(self, command: str, timeout: float = 10.0) -> None:
        self.arguments, self.timeout = shlex.split(command), timeout
        if not self.arguments:
            raise ValueError("--command must name a program; got nothing.")
        self.program: Program | None = None
        self.asked = self.late = 0
        self.numbered = False
        self.scratch = tempfile.TemporaryDirectory(prefix="idl-ref-", ignore_cleanup_errors=True)
        try:
            hello = self._ask({"op": "hello"})
        except BaseException:
            self.close()
            raise
        self.numbered = "id" in hello
        self.name = short(hello.get("name", self.arguments[0]), 100)
        self.capabilities: Any = hello.get("capabilities", {})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return its answer.

        After a crash, a timeout or anything but an answer the program is ended and `BackendError` raised; the next
        request starts it anew. Lines that nobody asked for are found before the next request, so that no answer is
        taken for that to another request.
        """
        if self.late >= HOPELESS:
            raise BackendError(f"not asked any more: {HOPELESS} answers in a row did not come in time")
        try:
            program = self.program = self.program or _started(self.arguments)
            if program.lines.qsize():
                raise BackendError(f"wrote {_quoted(program.lines.get())} without a request: {LOGS}")
            self.asked += 1
            program.send(json.dumps({**request, "id": self.asked}).encode() + b"\n")
            answer = self._checked(request["op"], self._line(program))
        except BaseException:
            self._end()
            raise
        if "error" in answer:
            raise RuntimeError(short(answer["error"]))
        return answer

    def _line(self, program: Program) -> bytes:
        limit = self.timeout * (HURRY if self.late >= SUSPECT else 1)
        try:
            line = program.take(limit)
        except TimeoutError:
            self.late += 1
            self._end()
            raise BackendError(f"no answer within {limit:g} s{_stderr(program)}") from None
        except TooLongError:
            raise BackendError(f"wrote more than {LINE_LIMIT} bytes without the end of a line") from None
        self.late = 0
        if line is None:
            status = self._end()
            raise BackendError(f"the process ended with {_status(status)} in place of an answer{_stderr(program)}")
        return line

    def _checked(self, op: str, line: bytes) -> dict[str, Any]:
        """The answer in a line; `BackendError` if it is none, or one to another request."""
        try:
            answer = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            raise BackendError(f"an answer must be in UTF-8; got {_quoted(line)}") from None
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise BackendError(f"an answer must be a JSON object on one line; got {_quoted(line)}: {LOGS}")
        if ("id" in answer or self.numbered) and answer.get("id") != self.asked:
            raise BackendError(
                f'an answer must repeat "id": {self.asked} of its request; got {_quoted(line)}: answer once, and {LOGS}'
            )
        if op != "hello" and "error" not in answer and answer.get("ok") is not True:
            raise BackendError(f'an answer must have "ok": true or "error"; got {_quoted(line)}')
        return answer

    def _end(self) -> int | None:
        program, self.program = self.program, None
        return None if program is None else program.end()

    def _solve(self, op: str, problem: Problem, G_Y: np.ndarray) -> dict[str, Any]:
        with _ours(self.scratch.name), self._folder() as name:
            given, out = Path(name) / "in", Path(name) / "out"
            write_problem(given, problem, G_Y)
            out.mkdir()
            answer = self._ask({"op": op, "dir": str(given), "out": str(out)})
            arrays = read_answer(out, problem, op)
        return arrays | {name: answer[name] for name in ("converged", "iterations") if name in answer}

    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="", dir=self.scratch.name, ignore_cleanup_errors=True)

    def forward(self, problem: Problem) -> dict[str, Any]:
        """The outputs and hidden states that the process computes."""
        return self._solve("forward", problem, np.zeros((len(problem.C), problem.U.shape[1]), problem.dtype))

    def vjp(self, problem: Problem, G_Y: np.ndarray) -> dict[str, Any]:
        """The gradients that the process computes."""
        return self._solve("vjp", problem, G_Y)

    def close(self) -> None:
        """End the program and remove the temporary files."""
        if self.program is not None:
            self.program.send(b'{"op": "bye", "id": 0}\n')
        self._end()
        self.scratch.cleanup()


@contextmanager
def _ours(folder: object = "") -> Iterator[None]:
    """Files that are missing, malformed or too many are a fault, and no report of failure by the program."""
    try:
        yield
    except (ValueError, OSError) as reason:
        words = (Path(word).name if str(folder) and str(folder) in word else word for word in str(reason).split(" "))
        raise BackendError(" ".join(words)) from None


def _started(arguments: list[str]) -> Program:
    with _ours():
        return Program(arguments)


def _quoted(line: bytes | None) -> str:
    text = (line or b"").decode("utf-8", "backslashreplace")
    return repr(short(text, 80))


def _status(status: int | None) -> str:
    try:
        return f"status {status}" if status is None or status >= 0 else f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-(status or 0)}"


def _stderr(program: Program) -> str:
    said = tail(bytes(program.errors))
    return f"; its standard error ends with: {said}" if said else ""


class Answers:
    """Answers that a program wrote to a folder: one folder per case, named by its id; capabilities.json is optional."""

    def __init__(self, folder: Path, cases: Iterable[Case]) -> None:
        if not folder.is_dir():
            raise ValueError(f"RESULTS must be a folder with one folder per case; got {folder}, which is no folder.")
        self.folder, self.name = folder, str(folder)
        declared, self.capabilities = folder / "capabilities.json", cast(Any, {})
        if declared.exists():
            with npz.reading(declared, "a JSON file") as stream:
                self.capabilities = json.loads(stream.read(TEXT_LIMIT))
        self.known = {digest(case.problem): case.id for case in cases}

    def _answer(self, problem: Problem, what: str) -> dict[str, Any]:
        with _ours():
            folder = self.folder / self.known[digest(problem)]
            if not folder.is_dir():
                raise BackendError("no answer was written")
            error = folder / "error.txt"
            if not os.path.lexists(error):
                return read_answer(folder, problem, what)
            text = npz.whole(error, TEXT_LIMIT).decode("utf-8", "replace")
        raise RuntimeError(short(text))

    def forward(self, problem: Problem) -> dict[str, Any]:
        """The outputs and hidden states in the folder of the case."""
        return self._answer(problem, "forward")

    def vjp(self, problem: Problem, G_Y: np.ndarray) -> dict[str, Any]:
        """The gradients in the folder of the case."""
        return self._answer(problem, "vjp")
