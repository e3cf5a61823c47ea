"""Grade your file: for each exercise it says «right», or in one sentence what is wrong.

Run it anywhere; NumPy is all it needs: python grade.py FILE [FILE …]
"""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent))

from checks import LESSONS
from checks.common import Wrong, called

SECONDS = 60.0  # The solutions need less than one.


def load(path):
    """The names that a file defines."""
    names = {"__name__": Path(path).stem, "__file__": str(path)}
    exec(compile(Path(path).read_text(encoding="utf-8"), str(path), "exec"), names)
    return SimpleNamespace(**names)


def verdict(check, student):
    """«right», or what is wrong with the function of a student's file that has the name of the check."""
    function = getattr(student, check.__name__, None)
    if function is None:
        return f"the file defines no function {check.__name__}"
    said = []

    def judge():
        try:
            check(called(function))
        except Wrong as wrong:
            said.append(str(wrong))
        except Exception as reason:  # What a function returns may be of any kind.
            said.append(f"its answers cannot be checked: {type(reason).__name__}: {reason}")
        else:
            said.append("right")

    thread = threading.Thread(target=judge, daemon=True)  # Python ends without waiting for it.
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        return f"it had not ended after {SECONDS:.0f} seconds: does its loop end for every input?"
    return said[0]


def grade(student):
    """The verdict of each exercise by its name, of the lesson from which the file defines the most functions."""
    checks = max(LESSONS.values(), key=lambda checks: sum(hasattr(student, check.__name__) for check in checks))
    return {check.__name__: verdict(check, student) for check in checks}


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("usage: python grade.py FILE [FILE …], with the files that hold your functions")
    right = True
    for file in sys.argv[1:]:
        try:
            student = load(file)
        except Exception as reason:
            sys.exit(f"{file} cannot be run: {type(reason).__name__}: {reason}")
        for exercise, found in grade(student).items():
            print(f"{exercise}: {found}")
            right = right and found == "right"
    sys.exit(not right)
