"""Which checks detect which planted bugs and mutants, and what each case is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from idl_ref.conformance.bugs import KINDS, diagnosis
from idl_ref.conformance.bugs.equivalent import EQUIVALENT
from idl_ref.conformance.bugs.mutants import mutants
from idl_ref.conformance.judge.finders import FIRST
from idl_ref.conformance.judge.protocols import GROUP
from idl_ref.conformance.judge.quick import work
from idl_ref.conformance.judge.relations import RELATIONS
from idl_ref.conformance.judge.report import FAILED, Result
from idl_ref.conformance.judge.runner import checks, select
from idl_ref.conformance.truth import vectors
from idl_ref.conformance.truth.backend import Backend
from idl_ref.conformance.truth.problem import Case

DEAR = 5e6  # A check that takes more multiplications, about 0.1 s, is made only for bugs that no cheaper one finds.
MANY = 40  # A bug that so many checks find is found by all cases of some kind, and tells nothing of the worth of one.


class Hunt:
    """The search for the checks that a broken backend fails: cheap cases first, and first those that found most so far.

    Parameters
    ----------
    cases : iterable of Case, optional
        Default: all frozen cases. Relations and protocols are always among the checks.
    """

    def __init__(self, cases: Iterable[Case] | None = None) -> None:
        cases = sorted(vectors.load() if cases is None else cases, key=work)
        self.chosen = select(cases, None)
        self.dear = {case.id for case in cases if work(case) > DEAR}
        self.kills = Counter(FIRST)

    def first(self, backend: Backend) -> Result | None:
        """The first check that a backend fails, if there is one."""
        order = sorted(checks(backend, self.chosen), key=lambda check: -self.kills[check[0]])
        failure = next((result for _, run in order if (result := run()).outcome == FAILED), None)
        if failure is not None:
            self.kills[failure.id] += 1
        return failure

    def failures(self, backend: Backend) -> list[Result]:
        """The checks that a backend fails, MANY at most, whatever was found before."""
        found: list[Result] = []
        for ident, run in checks(backend, self.chosen):
            dear = found and ident.partition(":")[0] in self.dear
            if len(found) < MANY and not dear and (result := run()).outcome == FAILED:
                found.append(result)
        return found


class Broken(NamedTuple):
    """A backend with one bug: of what kind the bug is, what it is, and what makes the backend."""

    kind: str
    diagnosis: str
    make: Callable[[], Backend]


def broken() -> dict[str, Broken]:
    """Every planted bug, and every mutant that is not known to be equivalent, by name."""
    bugs = {
        name: Broken(kind, diagnosis(name), bug) for kind, module in KINDS.items() for name, bug in module.BUGS.items()
    }
    machine = {name: mutant for name, mutant in mutants().items() if name not in EQUIVALENT}
    return bugs | {name: Broken("changes by machine", f"`{name}`", mutant.make) for name, mutant in machine.items()}


def detected(everything: bool = False) -> Iterator[tuple[str, list[Result]]]:
    """Each planted bug and mutant by name, with the checks that it fails: one, or with `everything` MANY of them."""
    hunt = Hunt()
    for name, bug in broken().items():
        if everything:
            yield name, hunt.failures(bug.make())
        else:
            failure = hunt.first(bug.make())
            yield name, [] if failure is None else [failure]


# --- tables -----------------------------------------------------------------------------------------------------------


def table(found: Mapping[str, list[Result]], everything: bool) -> str:
    """Tables in Markdown: what finds each bug first, and which mutants are equivalent.

    With `everything`, which says that all checks were made, also how many find it, and what each case is worth.
    """
    bugs, lines = broken(), []
    columns = ["bug", "first found by", *["checks", "in the groups"] * everything]
    for kind in dict.fromkeys(bug.kind for bug in bugs.values()):
        names = [name for name in found if bugs[name].kind == kind]
        if names:
            lines += _head(f"Bugs: {kind}", *columns)
            lines += [_row(bugs[name].diagnosis, found[name], everything) for name in names]
    if everything:
        title = f"What each case is worth: of the bugs that fewer than {MANY} checks find"
        lines += _head(title, "case", "bugs that it finds", "that nothing else finds")
        lines += [f"| `{case}` | {kills} | {alone} |" for case, (kills, alone) in worth(found).items()]
    if EQUIVALENT:
        lines += _head("Mutants that change no answer by more than its bound", "mutant", "why")
        lines += [f"| `{_cell(name)}` | {reason} |" for name, reason in EQUIVALENT.items()]
    return "\n".join(lines) + "\n"


def worth(found: Mapping[str, list[Result]]) -> dict[str, tuple[int, int]]:
    """For every case, relation and protocol: how many bugs it finds, and how many of them nothing else does.

    Bugs that MANY checks find are left out, and so are protocols whose first call alone is wrong.
    """
    finders = {}
    for name, failures in found.items():
        kept = {_judged(result) for result in failures if result.causes or result.group != GROUP}
        finders[name] = kept if len(failures) < MANY else set()
    cases = dict.fromkeys(case.id for case in vectors.load()) | dict.fromkeys(sorted(set().union(*finders.values())))
    result = {}
    for case in cases:
        names = [name for name, of in finders.items() if case in of]
        result[case] = len(names), sum(finders[name] == {case} for name in names)
    return result


def _judged(result: Result) -> str:
    """The case of a result; for a relation its name."""
    case, _, check = result.id.rpartition(":")
    return f"relation-{check}" if check in (*RELATIONS, "adjoint") and result.group != GROUP else case


def _head(title: str, *columns: str) -> list[str]:
    return ["", f"## {title}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]


def _cell(text: str) -> str:
    return text.replace("|", "∣")


def _row(title: str, failures: list[Result], everything: bool) -> str:
    first = f"`{failures[0].id}`" if failures else "**nothing**"
    count = f"{len(failures)}{'+' * (len(failures) == MANY)}"
    groups = ", ".join(dict.fromkeys(result.group for result in failures))
    return f"| {' | '.join([_cell(title), first, *[count, groups] * everything])} |"
