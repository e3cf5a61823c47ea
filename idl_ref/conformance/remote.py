"""Backends in other languages than Python: a process that answers requests in JSON, and a folder of answers.

`truth.files` describes the files in which problems and answers are exchanged.
"""

from __future__ import annotations

import json
import queue
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

from idl_ref import npz
from idl_ref.conformance.truth.backend import BackendError
from idl_ref.conformance.truth.files import digest, read_answer, write_problem
from idl_ref.conformance.truth.problem import Case, Problem

TEXT_LIMIT = 1 << 20  # The largest size in bytes of a text in which a program says why it has no answer.


class Command:
    """A process that reads one request per line and writes one answer per line, in JSON.

    Parameters
    ----------
    command : str
        The program and its arguments, split as a shell splits them; no shell is started.
    timeout : float
        Seconds that the process has for one answer. After them it is killed, and started again for the next request.

    Notes
    -----
    The requests are {"op": "hello"}, {"op": "forward" or "vjp", "dir": FOLDER, "out": FOLDER} and {"op": "bye"}, each
    with an "id". The answer to hello is {"name": …, "capabilities": {…}}. For forward and vjp the process reads the
    problem in "dir", writes the arrays to "out" and answers {"ok": true}; or it answers {"error": "why not"}.
    """

    one_at_a_time = "a process answers one request after the other"  # why it is not called from several threads

    def __init__(self, command: str, timeout: float = 10.0) -> None:
        self.arguments, self.timeout = shlex.split(command), timeout
        if not self.arguments:
            raise ValueError("--command must name a program; got nothing.")
        self.scratch = tempfile.TemporaryDirectory(prefix="idl-ref-")
        self.process: subprocess.Popen[str] | None = None
        self.asked = 0
        try:
            hello = self._ask({"op": "hello"})
        except BaseException:
            self.scratch.cleanup()
            raise
        self.name = str(hello.get("name", self.arguments[0]))
        self.capabilities: Any = hello.get("capabilities", {})

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", errors="replace", bufsize=1
        )
        self.lines = lines = queue.Queue[str | None]()

        def listen() -> None:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    lines.put(line)
            lines.put(None)

        self.listener = threading.Thread(target=listen, daemon=True)
        self.listener.start()
        self.process = process
        return process

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return its answer.

        After a crash, a timeout or a malformed answer the process is ended and `BackendError` raised; the next request
        starts a new process.
        """
        process = self.process or self._start()
        self.asked += 1
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({**request, "id": self.asked}) + "\n")
            process.stdin.flush()
            line = self.lines.get(timeout=self.timeout)
        except queue.Empty:
            self._end()
            raise BackendError(f"no answer within {self.timeout:g} s") from None
        except OSError:
            line = None
        if line is None:
            status = self._end()
            raise BackendError(f"the process ended with status {status} in place of an answer")
        answer = None
        with suppress(ValueError):
            answer = json.loads(line)
        if not isinstance(answer, dict):
            self._end()
            raise BackendError(f"an answer must be a JSON object on one line; got {line.strip()[:80]!r}")
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer

    def _end(self) -> int | None:
        process, self.process = self.process, None
        if process is None:
            return None
        assert process.stdin is not None
        with suppress(OSError):  # the process has closed its end: what it did not read is lost
            process.stdin.close()
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            process.kill()
        self.listener.join()
        return process.wait()

    def _solve(self, op: str, problem: Problem, G_Y: np.ndarray) -> dict[str, Any]:
        folder = Path(self.scratch.name) / str(self.asked)
        write_problem(folder / "in", problem, G_Y)
        (folder / "out").mkdir()
        answer = self._ask({"op": op, "dir": str(folder / "in"), "out": str(folder / "out")})
        out = read_answer(folder / "out", problem, op)
        return out | {name: np.asarray(answer[name]) for name in ("converged", "iterations") if name in answer}

    def forward(self, problem: Problem) -> dict[str, Any]:
        """The outputs and hidden states that the process computes."""
        return self._solve("forward", problem, np.zeros((len(problem.C), problem.U.shape[1]), problem.dtype))

    def vjp(self, problem: Problem, G_Y: np.ndarray) -> dict[str, Any]:
        """The gradients that the process computes."""
        return self._solve("vjp", problem, G_Y)

    def close(self) -> None:
        """End the process and remove the temporary files."""
        if self.process is not None and self.process.stdin is not None:
            try:
                self.process.stdin.write('{"op": "bye", "id": 0}\n')
            except OSError:
                self.process.kill()  # the process does not read any more
        self._end()
        self.scratch.cleanup()


class Answers:
    """Answers that a program wrote to a folder: one folder per case, named by its id; capabilities.json is optional."""

    def __init__(self, folder: Path, cases: Iterable[Case]) -> None:
        if not folder.is_dir():
            raise ValueError(f"RESULTS must be a folder with one folder per case; got {folder}, which is no folder.")
        self.folder, self.name = folder, str(folder)
        declared, self.capabilities = folder / "capabilities.json", cast(Any, {})
        if declared.exists():
            with npz.reading(declared, "a JSON file") as stream:
                self.capabilities = json.load(stream)
        self.known = {digest(case.problem): case.id for case in cases}

    def _answer(self, problem: Problem, what: str) -> dict[str, Any]:
        folder = self.folder / self.known[digest(problem)]
        if not folder.is_dir():
            raise BackendError("no answer was written")
        if (error := folder / "error.txt").exists():
            raise RuntimeError(npz.whole(error, TEXT_LIMIT).decode("utf-8", "replace"))
        return read_answer(folder, problem, what)

    def forward(self, problem: Problem) -> dict[str, Any]:
        """The outputs and hidden states in the folder of the case."""
        return self._answer(problem, "forward")

    def vjp(self, problem: Problem, G_Y: np.ndarray) -> dict[str, Any]:
        """The gradients in the folder of the case."""
        return self._answer(problem, "vjp")
