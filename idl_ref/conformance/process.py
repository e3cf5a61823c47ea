"""A program that is asked line by line, and that may crash, hang, write too much or nonsense, or leave children behind.

The program gets a group of processes of its own, which is killed as a whole: a wrapper script and all that it started.
Threads read what it writes, in pieces of limited size, and stop reading while nobody takes the lines; whatever still
holds a pipe open when the group is dead, they are not waited for.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from contextlib import suppress
from typing import IO

CHUNK = 1 << 16  # Bytes are read in pieces of at most this size.
LINE_LIMIT = 1 << 22  # The largest size of a line in bytes; the longest answer of the kit has 100 kB.
WAITING = 16  # The number of lines that may wait to be taken.
TAIL = 1 << 13  # The number of bytes of standard error that are kept.
GRACE = 0.2  # Seconds in which a program may end by itself before it is killed.


class TooLongError(ValueError):
    """A line has more than LINE_LIMIT bytes."""


class Program:
    """A running program, with a line to send and a line to take.

    Attributes
    ----------
    lines : queue of bytes or None
        The lines that wait to be taken; None stands for the end of the output, an empty line for one that is too long.
    """

    def __init__(self, arguments: list[str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            arguments, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.lines = queue.Queue[bytes | None](WAITING)
        self.requests = queue.Queue[bytes | None]()
        self.errors = bytearray()
        self.over = threading.Event()
        self.threads = [
            threading.Thread(target=target, args=(stream,), daemon=True)
            for target, stream in (
                (self._listen, self.process.stdout),
                (self._overhear, self.process.stderr),
                (self._write, self.process.stdin),
            )
        ]
        for thread in self.threads:
            thread.start()

    def send(self, line: bytes) -> None:
        """Send a line, without waiting until the program reads it."""
        self.requests.put(line)

    def take(self, timeout: float) -> bytes | None:
        """The next line, or None at the end of the output; TimeoutError, or TooLongError."""
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if line == b"":
            raise TooLongError
        return line

    def end(self) -> int:
        """End the program and everything in its group, and return its status."""
        self.over.set()
        self.requests.put(None)  # closes standard input, at whose end a program stops by itself
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        self._kill()
        status = self.process.wait()
        for thread in self.threads:  # A process that has left the group may hold a pipe: such a thread is left alone.
            thread.join(GRACE)
        return status

    def _kill(self) -> None:
        if os.name == "posix":
            with suppress(ProcessLookupError, PermissionError):  # nobody is left in the group, or only zombies
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()

    # --- threads ------------------------------------------------------------------------------------------------------

    def _listen(self, stream: IO[bytes]) -> None:
        rest = b""
        with stream:
            while chunk := _some(stream):
                *lines, rest = (rest + chunk).split(b"\n")
                if not all(self._offer(line + b"\n") for line in lines):
                    return
                if len(rest) > LINE_LIMIT:
                    self._offer(b"")
                    return
        if not rest or self._offer(rest):
            self._offer(None)

    def _offer(self, line: bytes | None) -> bool:
        """Wait until there is room for a line; False if the program is to end."""
        while not self.over.is_set():
            with suppress(queue.Full):
                self.lines.put(line, timeout=GRACE)
                return True
        return False

    def _overhear(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := _some(stream):
                self.errors += chunk
                del self.errors[:-TAIL]

    def _write(self, stream: IO[bytes]) -> None:
        with suppress(OSError), stream:  # The program may close its end: what it did not read is lost.
            while (line := self.requests.get()) is not None:
                stream.write(line)


def _some(stream: IO[bytes]) -> bytes:
    """Bytes that are there, at most CHUNK; empty at the end."""
    return os.read(stream.fileno(), CHUNK)
