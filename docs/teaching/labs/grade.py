"""Say which labs are fixed: the conformance kit puts every lab to equations whose answers are known exactly.

Run, from the root of the project: python docs/teaching/labs/grade.py [--hint]
With --hint, each line also names the planted bug of the kit that gives the same wrong numbers.
"""

import importlib
import sys
from types import SimpleNamespace

import numpy as np

from idl_ref.conformance import check_backend

LABS = ("lab1", "lab2", "lab3", "lab4", "lab5")
CAPABILITIES = {"dtypes": ["float64"], "activations": ["relu", "tanh"]}
# A dozen lines of Picard can get these cases right. Tiny inputs and reports of failure are not the lesson of the labs.
CASES = ("contraction-*-0.9-*", "ranks", "activation-relu-*", "activation-tanh-dense-*", "activation-tanh-low-rank-*")


def report(lab):
    """What the kit finds in a lab, a module with `name`, `forward` and `vjp`."""
    backend = SimpleNamespace(name=lab.name, capabilities=CAPABILITIES, forward=lab.forward, vjp=lab.vjp)
    with np.errstate(all="ignore"):
        return check_backend(backend, groups=CASES)


def verdict(found, hint=False):
    """One line: fixed, or how much is wrong, where first, and with `hint` what it looks like."""
    if found.ok:
        return f"fixed, {len(found.passed)} checks pass"
    judged = len(found.failed) + len(found.passed)
    line = f"still wrong, {len(found.failed)} of {judged} checks, the first one {found.failed[0].id}"
    return f"{line}; {found.causes[0][0]}" if hint else line


if __name__ == "__main__":
    for name in LABS:
        print(f"{name}: {verdict(report(importlib.import_module(name)), '--hint' in sys.argv)}")
