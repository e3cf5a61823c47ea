"""Which checks detect which planted bugs and mutants, and what each case is worth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import log

from idl_ref.conformance.bugs import BUGS, KINDS, diagnosis
from idl_ref.conformance.bugs.equivalent import EQUIVALENT
from idl_ref.conformance.bugs.mutants import mutants
from idl_ref.conformance.judge.report import FAILED, Result
from idl_ref.conformance.judge.runner import checks, select
from idl_ref.conformance.truth import vectors
from idl_ref.conformance.truth.backend import Backend
from idl_ref.conformance.truth.problem import Case

DEAR = 3e7  # A check that costs more, in about a second, is made only for bugs that no cheaper one finds.


def cost(case: Case) -> float:
    """About how many flops plain iteration spends on a case, where one of its steps costs at least 10⁴."""
    n, _, _, m = case.problem.sizes
    rate = min(case.facts["perron"], case.facts["norm"])
    steps = case.problem.max_iter if rate >= 1 else log(max(case.problem.tol, 1e-16)) / log(max(rate, 1e-3))
    return min(case.problem.max_iter, steps) * (1e4 + 2.0 * n * n * m)


class Hunt:
    """The search for the checks that a broken backend fails: cheap cases first, and first those that found most so far.

    Parameters
    ----------
    cases : iterable of Case, optional
        Default: all frozen cases. Relations and protocols are always among the checks.
    """

    def __init__(self, cases: Iterable[Case] | None = None) -> None:
        cases = sorted(vectors.load() if cases is None else cases, key=cost)
        self.chosen = select(cases, None)
        self.dear = {case.id for case in cases if cost(case) > DEAR}
        self.kills: Counter[str] = Counter()

    def failures(self, backend: Backend) -> Iterator[Result]:
        """The checks that a backend fails, one after the other."""
        runs = sorted(checks(backend, self.chosen), key=lambda check: -self.kills[check[0]])
        found = False
        for ident, run in runs:
            if not (found and ident.partition(":")[0] in self.dear) and (result := run()).outcome == FAILED:
                self.kills[ident], found = self.kills[ident] + (not found), True
                yield result


def broken() -> dict[str, tuple[str, Callable[[], Backend]]]:
    """Every planted bug, and every mutant that is not known to be equivalent: its diagnosis, and what makes it."""
    planted = {name: (diagnosis(name), bug) for name, bug in BUGS.items()}
    return planted | {name: (name, mutant.make) for name, mutant in mutants().items() if name not in EQUIVALENT}


def detected(everything: bool = False) -> Iterator[tuple[str, list[Result]]]:
    """Each planted bug and mutant by name, with the checks that it fails: one, or with `everything` all of them."""
    hunt = Hunt()
    for name, (_, make) in broken().items():
        failures = hunt.failures(make())
        yield name, list(failures) if everything else [result for result, _ in zip(failures, "1", strict=False)]


# --- tables -----------------------------------------------------------------------------------------------------------


def table(found: Mapping[str, list[Result]]) -> str:
    """Tables in Markdown: what finds each bug, what each case is worth, and which mutants are equivalent."""
    about, known = broken(), {name for kind in KINDS.values() for name in kind.BUGS}
    kinds = {kind: [name for name in module.BUGS if name in found] for kind, module in KINDS.items()}
    kinds["changed by machine"] = [name for name in found if name not in known]
    lines = []
    for kind, names in kinds.items():
        if names:
            lines += ["", f"## Bugs: {kind}", "", "| bug | found by | checks | in the groups |", "|---|---|---|---|"]
            lines += [_row(about[name][0], found[name]) for name in names]
    lines += [
        "",
        "## What each case is worth",
        "",
        "| case | bugs that it finds | that no other case finds |",
        "|---|---|---|",
    ]
    lines += [f"| `{case}` | {kills} | {alone} |" for case, (kills, alone) in worth(found).items()]
    lines += ["", "## Mutants that change no answer by more than its bound", "", "| mutant | why |", "|---|---|"]
    lines += [f"| `{_cell(name)}` | {reason} |" for name, reason in EQUIVALENT.items()]
    return "\n".join(lines[1:]) + "\n"


def worth(found: Mapping[str, list[Result]]) -> dict[str, tuple[int, int]]:
    """For every case, relation and protocol: how many bugs it finds, and how many of them nothing else does."""
    finders = {name: {result.case for result in failures} for name, failures in found.items()}
    by_case: dict[str, list[str]] = defaultdict(list)
    for case in (
        *(case.id for case in vectors.load()),
        *sorted({case for cases in finders.values() for case in cases}),
    ):
        by_case[case] = [name for name, cases in finders.items() if case in cases]
    return {case: (len(names), sum(finders[name] == {case} for name in names)) for case, names in by_case.items()}


def _cell(text: str) -> str:
    return text.replace("|", "∣")


def _row(title: str, failures: list[Result]) -> str:
    groups = ", ".join(dict.fromkeys(result.group for result in failures))
    first = f"`{failures[0].id}`" if failures else "**nothing**"
    return f"| {_cell(title)} | {first} | {len(failures)} | {groups} |"
