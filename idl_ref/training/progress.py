"""This module shows the progress of a training."""

from __future__ import annotations

import sys
import time
from typing import Any

from idl_ref import checks


class Progress:
    """Shows progress on standard error: one bar over all batches if tqdm is installed, else one line per epoch."""

    def __init__(self, show: bool, epochs: int, batches: int) -> None:
        self.show, self.epochs = checks.flag("progress", show), epochs
        self.bar: Any = None
        self.started, self.first = time.perf_counter(), 0
        if show:
            try:
                from tqdm import tqdm
            except ImportError:
                pass  # Without tqdm, `epoch_done` prints one line per epoch.
            else:
                self.bar = tqdm(total=epochs * batches, unit="batch", dynamic_ncols=True, desc="training")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def start(self, epochs: int, batches: int) -> None:
        """Begin after so many epochs and batches, with which a training resumes."""
        self.started, self.first = time.perf_counter(), epochs
        if self.bar is not None:
            self.bar.n = self.bar.initial = batches
            self.bar.refresh()

    def batch_done(self, epoch: int) -> None:
        """Advance the bar by one batch."""
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch}/{self.epochs}", refresh=False)
            self.bar.update()

    def epoch_done(self, epoch: int, words: dict[str, str], seconds: float) -> None:
        """Show the figures of a completed epoch."""
        if self.bar is not None:
            self.bar.set_postfix(words)
        elif self.show:
            text = ", ".join(f"{name} {value}" for name, value in words.items())
            left = (time.perf_counter() - self.started) / max(epoch - self.first, 1) * (self.epochs - epoch)
            print(
                f"epoch {epoch}/{self.epochs}: {text}, {seconds:.1f} s, {left:.0f} s left", file=sys.stderr, flush=True
            )

    def say(self, sentence: str) -> None:
        """Print one sentence, without disturbing the bar."""
        if self.bar is not None:
            self.bar.write(sentence, file=sys.stderr)
        elif self.show:
            print(sentence, file=sys.stderr, flush=True)
