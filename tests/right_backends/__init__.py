"""Right backends of styles other than the kit's own: the conformance kit must accuse none of them.

`RIGHT` holds their classes by name. `python -m right_backends`, run in the folder tests, checks all of them.
"""

from right_backends import arithmetic, derivatives, interfaces, methods, scipy_solvers
from right_backends.base import RIGHT

__all__ = ["RIGHT", "arithmetic", "derivatives", "interfaces", "methods", "scipy_solvers"]
