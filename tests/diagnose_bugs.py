"""Run the kit on every planted bug and say whether the first cause of each report is the right one. Takes an hour.

Usage: python tests/diagnose_bugs.py FOLDER [names or kinds] [--workers 2] [--again]

Every bug is checked with `fast=True`, and with the whole kit where nothing fails then; what the report says is kept in
FOLDER/<bug>.json, so that a run that was stopped goes on where it was (`--again` checks anew). The verdicts come from
tests/causes_of_bugs.py, which says what a right first cause must say:

right          the first cause names the step that is wrong and the mistake in it
near           it names the step, or the mistake, but not both
not explained  the report says that nothing explains the failures
wrong          it names another step or another mistake
no failure     the kit did not find the bug, which counts in no share

The kind "outside" has the bugs of tests/bugs_from_outside.py, "more from outside" those of
tests/more_bugs_from_outside.py, and "from ports" those of tests/bugs_from_ports.py.
"""

import argparse
import json
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from unittest import mock

VERDICTS = "right", "near", "not explained", "wrong"
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def kinds():
    """Return the bugs of every kind by name, those from outside last."""
    import bugs_from_outside
    import bugs_from_ports
    import more_bugs_from_outside

    from idl_ref.conformance.bugs import KINDS

    outside = {
        "outside": bugs_from_outside,
        "more from outside": more_bugs_from_outside,
        "from ports": bugs_from_ports,
    }
    return {kind: module.BUGS for kind, module in (KINDS | outside).items()}


def reported(name):
    """Return what the reports of a bug say: its causes, the first one first, with the checks that they explain."""
    from idl_ref.conformance import check_backend

    (bug,) = (bugs[name] for bugs in kinds().values() if name in bugs)
    begun, found, fast = time.perf_counter(), [], True
    for fast in (True, False):
        report = check_backend(bug(), fast=fast)
        if lost := [note for note in report.notes if "please report it" in note]:
            raise AssertionError(f"{name}: {lost[0]}")
        found = report.causes
        if found:
            break
    causes = [[cause, len(results), results[0].id, results[0].message] for cause, results in found]
    return {"bug": name, "fast": fast, "seconds": round(time.perf_counter() - begun, 1), "causes": causes}


def verdict(name, causes):
    """Return the verdict on the causes of a report, given as sentences, the first one first."""
    from causes_of_bugs import NEAR, RIGHT

    if not causes:
        return "no failure"
    first = causes[0].removeprefix("error matches: ")
    if first.startswith(("not explained", "failures without numbers")):
        return "not explained"
    if re.search(RIGHT[name], first):
        return "right"
    return "near" if name in NEAR and re.search(NEAR[name], first) else "wrong"


def row(found):
    """Return the name, the verdict and the first cause of what `reported` found."""
    causes = [cause for cause, *_ in found["causes"]]
    first = causes[0].removeprefix("error matches: ") if causes else ""
    return found["bug"], verdict(found["bug"], causes), first


def chosen(words):
    """Return the names of the bugs of some kinds, or of these names; of all without any."""
    of = kinds()
    known = {name for bugs in of.values() for name in bugs}
    if unknown := [word for word in words if word not in of and word not in known]:
        raise SystemExit(f"{', '.join(unknown)} must be names of bugs, or of {', '.join(of)}.")
    return [name for word in words or of for name in of.get(word, [word])]


def run(names, folder, workers, again):
    """Check the bugs whose files are missing, or all of them."""
    left = [name for name in names if again or not (folder / f"{name}.json").exists()]
    pinned = mock.patch.dict(os.environ, ONE_THREAD)  # for the processes of the pool
    with pinned, ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for k, done in enumerate(as_completed(pool.submit(reported, name) for name in left), start=1):
            found = done.result()
            text = json.dumps(found, ensure_ascii=False, indent=1)
            (folder / f"{found['bug']}.json").write_text(text, encoding="utf-8")
            print(f"{k} of {len(left)}: {found['bug']}, {found['seconds']} s", file=sys.stderr, flush=True)


def table(names, folder):
    """Print a line for every bug, and how many have each verdict, for each kind and in all; return those in all."""
    counts = {}
    for kind, bugs in kinds().items():
        for name in (name for name in bugs if name in names and (folder / f"{name}.json").exists()):
            found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            _, judged, first = row(found)
            counts.setdefault(kind, Counter())[judged] += 1
            print(f"{name:<28}{kind:<21}{judged:<15}{first[:160]}")
    print(f"\n{'':<21}{'bugs':>6}" + "".join(f"{word:>15}" for word in VERDICTS))
    for kind, of in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        print(f"{kind:<21}{sum(of.values()):>6}" + "".join(f"{of[word]:>15}" for word in VERDICTS))
    of = sum(counts.values(), Counter())
    killed = sum(of[word] for word in VERDICTS)
    shares = ", ".join(f"{100 * of[word] / max(killed, 1):.1f} % {word}" for word in VERDICTS)
    print(f"\n{killed} bugs killed: {shares}")
    return of


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", nargs="*")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    names = chosen(options.what)
    run(names, options.folder, options.workers, options.again)
    table(names, options.folder)


if __name__ == "__main__":
    main()
