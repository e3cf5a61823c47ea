"""This example verifies torchidl 0.0.4 with the conformance kit, which finds and names its differences.

In the first run, torchidl gets the tolerance and the iteration limit of each problem. In the second run, it solves the
slowly converging equations with its default settings, which allow 300 iterations. The example needs torch and torchidl.
"""

import importlib.util
import sys

from idl_ref.conformance import check_backend

SLOW = ["contraction-perron-0.99*", "contraction-permutation-0.99*", "contraction-perron-0.999*"]


def main():
    missing = [name for name in ("torch", "torchidl") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"this example needs {' and '.join(missing)}, not installed here: pip install torch torchidl")
        return 0
    from backends.torchidl_as_it_is import TorchIdl

    found = set()
    for backend, groups in ((TorchIdl(), None), (TorchIdl(defaults=True), SLOW)):
        report = check_backend(backend, groups)
        print(f"{report}\n")
        found |= {cause for cause, _ in report.causes}
    assert any("straight-through" in cause for cause in found)  # ∂A is wrong for a dense A with ‖A‖∞ > κ.
    assert any("300 iterations" in cause for cause in found)  # The slowly converging equations are not solved.
    return 0


if __name__ == "__main__":
    sys.exit(main())
