"""This module says what Ctrl-C and SIGTERM do while a command runs.

No signal is lost. An exception that a signal raises may disappear inside a library, for example while it is imported;
the number of the signal is therefore noted, too, and the exit status of the command tells it.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from idl_ref.training.interrupts import Terminated, terminate

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Stopping:
    """A context in which SIGINT and SIGTERM are handled, at first by exceptions.

    A signal that was ignored before, as SIGINT is by what a shell starts in the background, remains ignored.

    Attributes
    ----------
    caught : int or None
        The number of the first signal that came.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self.before: dict[int, Any] = {}
        self.ours = threading.current_thread() is threading.main_thread()  # Signals arrive only there.

    def __enter__(self) -> Stopping:
        if self.ours:
            found = {number: signal.getsignal(number) for number in WORDS}
            self.before = {number: handler for number, handler in found.items() if handler != signal.SIG_IGN}
        self._handle(self._raise, self._raise)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @property
    def status(self) -> int | None:
        """The exit status of a command that a signal has stopped: 130 or 143; None if none came."""
        return None if self.caught is None else 128 + self.caught

    @property
    def word(self) -> str:
        """Whether the command was interrupted or terminated."""
        return WORDS[signal.Signals(self.caught)] if self.caught is not None else "not stopped"

    def as_before(self) -> None:
        """From now on, signals do what they did before the command.

        In a process of its own, they end it at once: an exception in the middle of an import, or of the compilation of
        a kernel, may be swallowed there, or print a traceback.
        """
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def leave_to_fit(self) -> None:
        """From now on, the handlers are those that `fit` replaces by its own. A signal that came before is raised."""
        if self.caught is not None:
            self._raise(self.caught, None)
        self._handle(signal.default_int_handler, terminate)

    def hold(self, caught: int | None = None) -> None:
        """From now on, signals are only noted, such as the one that `fit` has caught."""
        self._handle(self._note, self._note)
        self.caught = self.caught or caught

    def _handle(self, interrupt: Any, termination: Any) -> None:
        for number, handler in ((signal.SIGINT, interrupt), (signal.SIGTERM, termination)):
            if number in self.before:
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught = self.caught or number

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self._note(number, frame)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
