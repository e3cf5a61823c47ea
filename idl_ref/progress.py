"""Progress of a long loop, on standard error."""

from __future__ import annotations

import sys
from typing import Any

from idl_ref import checks


class Progress:
    """One bar over all batches where tqdm is installed, a line per epoch elsewhere; on standard error."""

    def __init__(self, show: bool, epochs: int, batches: int) -> None:
        self.show, self.epochs = checks.flag("progress", show), epochs
        self.bar: Any = None
        if show:
            try:
                from tqdm import tqdm
            except ImportError:
                pass  # the lines below do without it
            else:
                self.bar = tqdm(total=epochs * batches, unit="batch", dynamic_ncols=True, desc="training")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def batch_done(self, epoch: int) -> None:
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.bar.update()

    def epoch_done(self, epoch: int, words: dict[str, str], seconds: float) -> None:
        if self.bar is not None:
            self.bar.set_postfix(words)
        elif self.show:
            text = ", ".join(f"{name} {value}" for name, value in words.items())
            print(f"epoch {epoch}/{self.epochs}: {text}, {seconds:.1f} s", file=sys.stderr, flush=True)
