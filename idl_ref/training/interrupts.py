"""This module makes Ctrl-C and SIGTERM wait until a training step has ended, so that weights are whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Terminated(SystemExit):
    """SIGTERM has ended a training. The exit status is 143, if nothing catches this exception."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


def terminate(number: int, frame: FrameType | None) -> None:
    """Raise Terminated: a handler for SIGTERM outside of a training, which lets every `finally` run."""
    raise Terminated


class Interrupts:
    """A context in which SIGINT, and SIGTERM if `termination` is true, are only noted in `caught`.

    The loop asks for `caught` between two steps. A second Ctrl-C raises KeyboardInterrupt at once. Handlers of other
    programs stay as they are: only those of Python, and `terminate`, are replaced, and only in the main thread, where
    signals arrive.
    """

    def __init__(self, termination: bool) -> None:
        self.caught: int | None = None
        self.replaceable: dict[int, tuple[Any, ...]] = {signal.SIGINT: (signal.default_int_handler,)}
        self.replaceable[signal.SIGTERM] = (terminate, signal.SIG_DFL) if termination else (terminate,)
        self.before: dict[int, Any] = {}

    @property
    def terminated(self) -> bool:
        """Whether SIGTERM has come."""
        return self.caught == signal.SIGTERM

    def agreed(self, ask: Callable[[int | None], int | None]) -> bool:
        """Tell whether a signal has come to some rank, which all of them then have in `caught`; `ask` asks all ranks.

        One that comes to this rank while it waits for the others stays in `caught`, and is found by the next call.
        """
        found = ask(self.caught)
        if found is not None:
            self.caught = found
        return found is not None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number, handlers in self.replaceable.items():
                if signal.getsignal(number) in handlers:
                    self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.caught == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = number  # Nothing is printed: the signal may have come in the middle of another print.
