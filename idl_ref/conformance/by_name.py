"""The backend that a user names: MODULE:OBJECT on the command line, and in an option of pytest."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from idl_ref.conformance.judge.call import STOPS
from idl_ref.conformance.judge.text import short


def imported(name: str) -> Any:
    """The backend that MODULE:OBJECT names; an object of a class is made.

    Modules are looked for in the current folder, too. Whatever the module raises, SystemExit included, is an error.
    """
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise ValueError(f"--backend must be MODULE:OBJECT, as in my_package.backends:mine; got {name!r}.")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the console script finds modules in the current folder, as `python -m idl_ref` does
    try:
        value: Any = importlib.import_module(module)
        for part in attribute.split("."):
            if not hasattr(value, part):
                raise ValueError(f"--backend: {module} has no {attribute}.")
            value = getattr(value, part)
        value = value() if isinstance(value, type) else value
    except (ImportError, ValueError, *STOPS):
        raise
    except BaseException as reason:
        raise ValueError(f"--backend: {name} raised {type(reason).__name__}: {short(reason)}.") from None
    missing = [need for need in ("name", "forward") if not hasattr(value, need)]
    if missing:
        raise TypeError(f"--backend must have name, capabilities, forward and vjp; {name} has no {', '.join(missing)}.")
    return value
