"""This module tells whether a command was started by mpiexec, as one of several processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from idl_ref.training.ranks import Ranks

# The launchers of MPI name the number of processes by one of these.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def ranks() -> Ranks:
    """Return the processes that mpiexec started with this one, or this process alone."""
    count = max((int(text) for text in map(os.environ.get, SIZES) if text and text.isdigit()), default=1)
    if count == 1:
        return Ranks()
    try:
        from mpi4py import MPI
    except ImportError:
        raise ImportError(
            f"{count} processes were started by a launcher of MPI, but mpi4py is not installed, so that they cannot "
            'work together: pip install "idl-ref[mpi]", or start one process.'
        ) from None
    return Ranks(MPI.COMM_WORLD)


@contextmanager
def one_voice(processes: Ranks) -> Iterator[None]:
    """Let only the first process print, and tell the others' errors: an error of one is one of all."""
    if processes.first:
        yield
        return
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        sys.stdout = sys.stderr = nothing
        try:
            yield
        except Exception:  # The first process raises it too, or the RankError that names it.
            raise SystemExit(2) from None
        finally:
            sys.stdout, sys.stderr = before


def micro_batch(asked: Any, batch_size: int, processes: Ranks) -> int | None:
    """Return the number of samples of a leaf: what was asked for, else an eighth of a batch for several processes."""
    if asked is not None or processes.size == 1:
        return None if asked is None else int(asked)
    return max(1, -(-batch_size // 8))
