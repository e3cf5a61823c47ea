"""The command line, with the commands train, predict, check, conformance, export, bench and info."""

from __future__ import annotations

import argparse
import platform
import re
import sys
from importlib import metadata
from typing import NoReturn

from idl_ref import bench, checks, export
from idl_ref._version import __version__
from idl_ref.backends import available_backends, resolve
from idl_ref.commands import check, predict, train
from idl_ref.commands.stopping import Stopping
from idl_ref.conformance import command as conformance
from idl_ref.training.interrupts import Terminated

REFUSED = (ValueError, TypeError, OSError, ImportError, ArithmeticError, RuntimeError, MemoryError)


class _Parser(argparse.ArgumentParser):
    """A parser whose error messages are safe to print, whatever names of files the arguments hold."""

    def error(self, message: str) -> NoReturn:
        super().error(checks.printable(message))


# A negative number with an exponent, which argparse takes for an option, but not with a space before it.
NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default value of an option in its help, unless the option is left out by default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status.

    The status is 0 if the command succeeded, 1 if a check failed, 2 if the input was refused, 130 after Ctrl-C, and 143
    after SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # A terminal that cannot encode ‖ or ₀ must not make a command fail.
    with Stopping() as stopping:
        try:
            given = sys.argv[1:] if arguments is None else arguments
            options = parser().parse_args([f" {word}" if NEGATIVE.fullmatch(word) else word for word in given])
            options.stopping = stopping
            status = options.run(options)
            if sys.stdout is not None:  # It is None if it was closed before.
                sys.stdout.flush()
        except (KeyboardInterrupt, Terminated) as signal:
            stopping.hold(None if isinstance(signal, Terminated) else 2)
            print(f"idl-ref: {stopping.word}", file=sys.stderr)
            return stopping.status or 130
        except BrokenPipeError:
            sys.stderr.close()  # The reader of our output has closed the pipe. This keeps Python from a traceback.
            return 0
        except REFUSED as reason:
            print(f"idl-ref: error: {checks.printable(reason) or type(reason).__name__}", file=sys.stderr)
            return stopping.status or 2
        if stopping.status:
            print(f"idl-ref: {stopping.word}", file=sys.stderr)
        return stopping.status or status


def parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    whole = _Parser(
        prog="idl-ref",
        description="Train and use implicit models, whose hidden state X solves the equation X = φ(A X + B U).",
        epilog="Start with: idl-ref train    (without arguments it trains on handwritten digits for a few seconds)",
    )
    whole.add_argument("--version", action="version", version=f"idl-ref {__version__}")
    names = "{train,predict,check,conformance,export,bench,info}"
    commands = whole.add_subparsers(title="commands", required=True, metavar=names)
    train.add(commands.add_parser("train", help="train a model on your data and save it", formatter_class=_Help))
    predict.add(commands.add_parser("predict", help="predict with a saved model", formatter_class=_Help))
    check.add(commands.add_parser("check", help="check well-posedness and gradients of a model", formatter_class=_Help))
    conformance.add(commands, _Help)
    export.add(commands, _Help)
    bench.add(commands, _Help)
    info = commands.add_parser("info", help="show versions, and which backends work here")
    info.set_defaults(run=_info)
    return whole


def _info(options: argparse.Namespace) -> int:
    """Run the command `info`."""
    print(f"idl-ref {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in ("numpy", "numba", "scipy", "matplotlib", "tqdm", "safetensors"):
        print(f"{package:<12}{_version(package)}")
    for name, state in available_backends().items():
        print(f"backend {name:<8}{checks.printable(state)}")
    print(f"backend auto is {resolve('auto')}")
    return 0


def _version(package: str) -> str:
    """Return the version of an installed package, or the words "not installed"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
