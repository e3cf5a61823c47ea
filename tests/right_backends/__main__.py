"""Check all right backends, or those named on the command line, and print what the kit says against them."""

import sys
import time

from right_backends import RIGHT

from idl_ref.conformance import check_backend

for name in sys.argv[1:] or RIGHT:
    started = time.perf_counter()
    report = check_backend(RIGHT[name]())
    print(f"{report}   [{time.perf_counter() - started:.1f} s]", flush=True)
