"""A first step of a training, which compiles kernels and imports modules before its time is taken."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import replace

import numpy as np

from idl_ref import checks
from idl_ref.backends import resolve
from idl_ref.choices import Loss
from idl_ref.commands.data import Data
from idl_ref.model import ImplicitModel
from idl_ref.optim import SGD
from idl_ref.train import fit

PATIENCE = 3.0  # The seconds after which a wait for the compiler is explained.


def take(model: ImplicitModel, found: Data, options: argparse.Namespace) -> None:
    """Take a step with a copy of the model, which compiles kernels and imports what a training imports."""
    with suppress(ImportError):
        import tqdm  # noqa: F401
    copy = deepcopy(model)
    copy.settings = replace(model.settings, on_failure="ignore")
    m = checks.integer("batch_size", options.batch_size, 1)
    loss: Loss = "cross_entropy" if found.classifies else "mse"
    with _explained(model), suppress(FloatingPointError), np.errstate(over="ignore", invalid="ignore"):
        fit(copy, found.x_train[:m], found.y_train[:m], loss=loss, optimizer=SGD(0.0), epochs=1, progress=False)


@contextmanager
def _explained(model: ImplicitModel) -> Iterator[None]:
    """Say what is going on if the body takes long with a compiled backend."""
    twin = resolve(model.settings.backend)
    text = f"compiling functions of the {twin} twin for this kind of model; they are kept for the next time"
    waiting = threading.Timer(PATIENCE, print, [text], {"file": sys.stderr, "flush": True})
    waiting.daemon = True
    if twin != "numpy":
        waiting.start()
    try:
        yield
    finally:
        waiting.cancel()
