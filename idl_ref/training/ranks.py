"""This module has the processes that train one model together, the ranks of an MPI communicator, or a process alone.

What one rank alone meets, an exception or a signal, all ranks learn at the same place, so that none of them waits for
another one that has gone.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from idl_ref.training import tree

T = TypeVar("T")


class RankError(RuntimeError):
    """Another rank has failed. The message says which one, and why."""


class Outcome(NamedTuple):
    """What a rank has computed, or the sentence that says why it has not."""

    value: Any
    failure: str | None
    diverged: bool = False  # whether the failure is a FloatingPointError, after which a training may go on


class Ranks:
    """The processes of a communicator, or this one alone.

    Parameters
    ----------
    comm : MPI communicator, optional
        An object with the methods Get_rank, Get_size, allgather, bcast, send, recv and Abort of mpi4py.

    Raises
    ------
    TypeError
        An object that lacks one of these methods.
    """

    def __init__(self, comm: Any = None) -> None:
        methods = ("Get_rank", "Get_size", "allgather", "bcast", "send", "recv", "Abort")
        if comm is not None and not all(callable(getattr(comm, name, None)) for name in methods):
            raise TypeError(
                f"comm must be a communicator of MPI, with the methods {', '.join(methods)}; got "
                f"{type(comm).__name__}: pass mpi4py.MPI.COMM_WORLD."
            )
        self.comm = comm
        self.rank, self.size = (0, 1) if comm is None else (int(comm.Get_rank()), int(comm.Get_size()))

    @property
    def first(self) -> bool:
        """Whether this is the rank that prints, and writes files."""
        return self.rank == 0

    def each(self, function: Callable[[], T]) -> list[T]:
        """Call a function on every rank, and return the values of all ranks on each of them.

        If it raises an exception on some ranks, these raise it, and all others raise RankError. A FloatingPointError
        is one on all ranks, if there is no other: all of them then take the same way back.
        """
        if self.size == 1:
            return [function()]
        reason: Exception | None = None
        try:
            mine = Outcome(function(), None)
        except Exception as caught:
            known = isinstance(caught, FloatingPointError)
            reason, mine = caught, Outcome(None, str(caught) if known else f"{type(caught).__name__}: {caught}", known)
        outcomes: list[Outcome] = [Outcome(*outcome) for outcome in self.comm.allgather(tuple(mine))]
        failed = [(rank, outcome) for rank, outcome in enumerate(outcomes) if outcome.failure is not None]
        grave = [(rank, outcome) for rank, outcome in failed if not outcome.diverged]
        if grave and (reason is None or mine.diverged):
            raise RankError(f"rank {grave[0][0]} of {self.size} failed: {grave[0][1].failure}")
        if grave and reason is not None:
            raise reason
        if failed:
            raise FloatingPointError(failed[0][1].failure) from reason
        return [outcome.value for outcome in outcomes]

    def on_each(self, function: Callable[[], T]) -> T:
        """Call a function on every rank, and return its value there, if it has succeeded on all of them."""
        found: list[T] = []
        self.each(lambda: found.append(function()))
        return found[0]

    def once(self, function: Callable[[], T]) -> T:
        """Call a function on the first rank, and return its value on every rank; an exception is one on all of them."""
        return self.each(lambda: function() if self.first else None)[0]  # type: ignore[return-value]

    def total(self, leaves: int, mine: Mapping[tree.Node, T], add: Callable[[T, T], T]) -> T:
        """Return the sum of all leaves on every rank; `mine` has the largest nodes among the leaves of this one.

        The sum of a node is made where its first leaf is. The longest chain of messages has ⌈log₂ P⌉ of them, and as
        many for the way back.
        """
        if self.size == 1:
            return tree.total((0, leaves), mine, add)

        def of(node: tree.Node) -> T | None:
            """Return the sum of a node, if this rank makes it."""
            if node in mine:
                return mine[node]
            if node[1] - node[0] == 1:
                return None
            one, other = tree.children(node)
            left, right = of(one), of(other)
            here, there = (tree.owner(child[0], leaves, self.size) for child in (one, other))
            if here == self.rank:
                assert left is not None
                return add(left, self.comm.recv(source=there) if there != here else right)  # type: ignore[arg-type]
            if there == self.rank:
                self.comm.send(right, dest=here)
            return None

        whole: T = self.comm.bcast(of((0, leaves)), root=tree.owner(0, leaves, self.size))
        return whole

    def agreed(self, signal: int | None) -> int | None:
        """Return the signal that has come to some rank, or None if none has."""
        if self.size == 1:
            return signal
        return max((found for found in self.comm.allgather(signal) if found is not None), default=None)

    def compare(self, what: str, value: str, way_out: str, beside: str = "") -> None:
        """Refuse a value that is not the same on all ranks; `beside` is what the message tells of a rank, too."""
        if self.size == 1:
            return
        found = self.comm.allgather((value, f"{value} {beside}".strip()))
        for rank, (other, text) in enumerate(found):
            if other != found[0][0]:
                raise ValueError(
                    f"all ranks must have the same {what}; got {found[0][1]} on rank 0, and {text} on rank {rank}: "
                    f"{way_out}."
                )

    def abort(self, sentence: str) -> None:
        """End all ranks, where this one has to go and the others would wait for it for ever."""
        if self.size > 1:
            print(f"idl_ref: rank {self.rank} of {self.size} {sentence}", file=sys.stderr, flush=True)
            self.comm.Abort(1)


ALONE = Ranks()


def processor() -> str:
    """Return the kind of the processor, as the system names it."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8", errors="replace").splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
