"""Text of foreign origin, made safe and short: messages, names and standard error of backends."""

from __future__ import annotations

from typing import Any

from idl_ref.checks import printable

LIMIT = 400  # characters of a message


def short(text: Any, limit: int = LIMIT) -> str:
    """Text as one printable line of at most `limit` characters, of which the last is … if something was cut off.

    An object whose own text fails is named by its type.

    Examples
    --------
    >>> short("two" + chr(10) + "lines and " + chr(27) + "[31mred", 20)
    'two lines and \\\\x1b[…'
    """
    try:
        line = printable(str(text)[: 8 * limit])
    except (Exception, SystemExit, GeneratorExit):
        line = f"({type(text).__name__} without a text)"
    return line if len(line) <= limit else line[: limit - 1] + "…"


def tail(data: bytes, limit: int = LIMIT) -> str:
    """The end of some output as one printable line, where the reason of a crash stands."""
    line = printable(data.decode("utf-8", "replace"))
    return line if len(line) <= limit else "…" + line[1 - limit :]
