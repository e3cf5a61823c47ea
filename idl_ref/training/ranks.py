"""This module has the processes that train one model together, the ranks of an MPI communicator, or a process alone.

What one rank alone meets, an exception or a signal, all ranks learn at the same place, so that none of them waits for
another one that has gone.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class RankError(RuntimeError):
    """Another rank has failed. The message says which one, and why."""


class Outcome(NamedTuple):
    """What a rank has computed, or the sentence that says why it has not."""

    value: Any
    failure: str | None


class Ranks:
    """The processes of a communicator, or this one alone.

    Parameters
    ----------
    comm : MPI communicator, optional
        An object with the methods Get_rank, Get_size, allgather, bcast and Abort of mpi4py.

    Raises
    ------
    TypeError
        An object that lacks one of these methods.
    """

    def __init__(self, comm: Any = None) -> None:
        methods = ("Get_rank", "Get_size", "allgather", "bcast", "Abort")
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

        If it raises an exception on some ranks, these raise it, and all others raise RankError.
        """
        if self.size == 1:
            return [function()]
        reason: Exception | None = None
        try:
            mine = Outcome(function(), None)
        except Exception as caught:
            reason, mine = caught, Outcome(None, f"{type(caught).__name__}: {caught}")
        outcomes: list[Outcome] = [Outcome(*outcome) for outcome in self.comm.allgather(tuple(mine))]
        if reason is not None:
            raise reason
        for rank, outcome in enumerate(outcomes):
            if outcome.failure is not None:
                raise RankError(f"rank {rank} of {self.size} failed: {outcome.failure}")
        return [outcome.value for outcome in outcomes]

    def on_each(self, function: Callable[[], T]) -> T:
        """Call a function on every rank, and return its value there, if it has succeeded on all of them."""
        found: list[T] = []
        self.each(lambda: found.append(function()))
        return found[0]

    def once(self, function: Callable[[], T]) -> T:
        """Call a function on the first rank, and return its value on every rank; an exception is one on all of them."""
        return self.each(lambda: function() if self.first else None)[0]  # type: ignore[return-value]

    def agreed(self, signal: int | None) -> int | None:
        """Return the signal that has come to some rank, or None if none has."""
        if self.size == 1:
            return signal
        return max((found for found in self.comm.allgather(signal) if found is not None), default=None)

    def compare(self, what: str, value: str, way_out: str) -> None:
        """Refuse a value that is not the same on all ranks."""
        if self.size == 1:
            return
        found = self.comm.allgather((value, processor()))
        for rank, (other, kind) in enumerate(found):
            if other != found[0][0]:
                raise ValueError(
                    f"all ranks must have the same {what}; got {found[0][0]} on rank 0 ({found[0][1]}), and {other} on "
                    f"rank {rank} ({kind}): {way_out}."
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
