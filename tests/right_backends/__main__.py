"""Check all right backends, or those named on the command line, and print what the kit says against them.

python -m right_backends [--fast] [NAME …]
"""

import sys
import time

from idl_ref.conformance import check_backend
from right_backends import RIGHT

FEW = ["kinks", "ranks", "stopping", "rows", "ill-posed"]


def main(arguments):
    fast, names = "--fast" in arguments, [name for name in arguments if name != "--fast"]
    for name in names or RIGHT:
        started = time.process_time()
        report = check_backend(RIGHT[name](), fast=fast)
        print(f"{report}   [{time.process_time() - started:.1f} s of the processor]", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
