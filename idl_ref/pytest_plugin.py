"""The plugin for pytest: `pytest --idl-backend MODULE:OBJECT` runs each check of the conformance kit as a test.

It is loaded with every run of pytest where idl_ref is installed, and imports nothing, not even NumPy, unless a backend
is named.
"""

from __future__ import annotations

TYPE_CHECKING = False  # Type checkers take it for true. The module typing takes longer to import than all of this.

if TYPE_CHECKING:
    from typing import Any


def pytest_addoption(parser: Any) -> None:
    """Add the options of the kit."""
    add = parser.getgroup("idl_ref", "checks of a backend of implicit models").addoption
    add("--idl-backend", metavar="MODULE:OBJECT", help="run the conformance kit of idl_ref on this backend")
    groups = "names of groups, or ids of cases or checks, or patterns of these; give it again for more"
    add("--idl-groups", metavar="NAME", action="append", help=groups)
    add("--idl-fast", action="store_true", help="check few and small cases, with something of everything")


def pytest_configure(config: Any) -> None:
    """Register what runs the checks, if a backend is named."""
    if config.getoption("--idl-backend"):
        from idl_ref.conformance.testing import Checks

        config.pluginmanager.register(Checks(config), "idl_ref checks")
