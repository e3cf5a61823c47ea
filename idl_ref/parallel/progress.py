"""This module shows how far a long computation is, on standard error."""

from __future__ import annotations

import sys
import time
from typing import Any

from idl_ref import checks

PAUSE = 10.0  # Without tqdm, a line is printed after so many seconds.


class Progress:
    """A context with a bar if tqdm is installed, else a line now and then.

    Parameters
    ----------
    show : bool
        Whether anything is shown.
    total, done : int
        How much there is to do in all, and how much of it is done already.
    unit, what : str
        What is counted, such as "rows", and what is done.
    """

    def __init__(self, show: bool, total: int, done: int, unit: str, what: str) -> None:
        self.show, self.total, self.done, self.unit, self.what = checks.flag("progress", show), total, done, unit, what
        self.bar: Any = None
        self.begun, self.first, self.said = time.perf_counter(), done, time.perf_counter()
        if show:
            try:
                from tqdm import tqdm
            except ImportError:
                pass  # Without tqdm, `add` prints lines.
            else:
                self.bar = tqdm(total=total, initial=done, unit=unit, unit_scale=True, dynamic_ncols=True, desc=what)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def add(self, count: int) -> None:
        """Tell that so many more are done."""
        self.done += count
        now = time.perf_counter()
        if self.bar is not None:
            self.bar.update(count)
        elif self.show and (now - self.said > PAUSE or self.done == self.total):
            left = (now - self.begun) / max(self.done - self.first, 1) * (self.total - self.done)
            print(
                f"{self.what}: {self.done} of {self.total} {self.unit}, {left:.0f} s left", file=sys.stderr, flush=True
            )
            self.said = now
