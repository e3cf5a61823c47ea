"""What torchidl 0.0.4 does differently, found and named by the conformance kit.

First it is given the tolerance and the limit of every problem; then it solves the slow equations as it comes, with at
most 300 iterations. Needs torch and torchidl.
"""

import importlib.util
import sys

from idl_ref.conformance import check_backend

SLOW = ["contraction-perron-0.99*", "contraction-permutation-0.99*", "contraction-perron-0.999*"]


def main():
    missing = [name for name in ("torch", "torchidl") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"nothing to verify: {' and '.join(missing)} not installed; pip install torch torchidl")
        return 0
    from backends.torchidl_as_it_is import TorchIdl

    found = set()
    for backend, groups in ((TorchIdl(), None), (TorchIdl(defaults=True), SLOW)):
        report = check_backend(backend, groups)
        print(f"{report}\n")
        found |= {cause for cause, _ in report.causes}
    assert any("straight-through" in cause for cause in found)  # ∂A of a dense A beyond the ball
    assert any("300 iterations" in cause for cause in found)  # the slow equations, unsolved
    return 0


if __name__ == "__main__":
    sys.exit(main())
