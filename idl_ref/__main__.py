"""This module starts the command line; everything else is in `idl_ref.commands`, which is imported after this.

Until a command runs, Ctrl-C and SIGTERM end the process at once: an exception in the middle of an import leads to a
traceback, or to half a module.
"""

import os
import signal
import sys
from types import FrameType


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status; see `idl_ref.commands.program`."""
    from idl_ref.commands import program

    return program.main(arguments)


def entry() -> None:
    """Run `main` as the console script `idl-ref` and exit with its status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as a shell starts what runs in the background
            signal.signal(number, _leave)
    sys.exit(main())


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"idl-ref: interrupted\n" if number == signal.SIGINT else b"idl-ref: terminated\n")
    os._exit(128 + number)


if __name__ == "__main__":
    entry()
