"""This module ends a long solve of the main thread when a signal arrives, so that Python can handle it.

Python handles signals in the main thread only, and not while that is in compiled code. But it writes a byte to a socket
at once, on which another thread waits here. That thread sets the flag of the solve, which a solver reads before each
application.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


class Watch:
    """A thread that waits for signals, and the socket that Python writes to."""

    def __init__(self) -> None:
        self.reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        self.flag: np.ndarray | None = None
        self.thread = threading.Thread(target=self.serve, name="idl_ref_signals", daemon=True)
        self.thread.start()

    def serve(self) -> None:
        """Set the flag of the solve that runs, for every signal, until the socket is closed."""
        while self.reader.recv(4096):
            if (flag := self.flag) is not None:
                flag[0] = 1

    def listens(self) -> bool:
        """Let Python write to the socket; return False where it cannot, or already writes to somebody else's."""
        own = self.writer.fileno()
        try:
            before = signal.set_wakeup_fd(own, warn_on_full_buffer=False)
        except ValueError:  # Only the main thread of the main interpreter is told of signals.
            return False
        if before not in (-1, own):
            signal.set_wakeup_fd(before)
        return before in (-1, own)

    def close(self) -> None:
        """Close the socket, which ends the thread."""
        self.writer.close()
        self.thread.join()
        self.reader.close()


_watches: dict[int, Watch] = {}  # by process, because a forked child has no threads but one


def watch() -> Watch | None:
    """The watch of this process, which starts when it is first needed; None if no file or thread is left for it."""
    process = os.getpid()
    if process not in _watches:
        try:
            _watches.setdefault(process, Watch())
        except (OSError, RuntimeError):
            return None
    return _watches[process]


@contextmanager
def watched(flag: np.ndarray) -> Iterator[bool]:
    """Let every signal set a flag meanwhile; False if signals cannot."""
    own = watch()
    if own is None or not own.listens():
        yield False
        return
    own.flag = flag
    try:
        yield True
    finally:
        own.flag = None
        signal.set_wakeup_fd(-1)


@atexit.register
def _close() -> None:
    if (own := _watches.pop(os.getpid(), None)) is not None:
        own.close()
