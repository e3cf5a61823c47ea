"""Export a trained model to where this library is not: one NumPy file, C99, or ONNX."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from idl_ref import checks
from idl_ref.export import plan

if TYPE_CHECKING:
    from idl_ref.model import ImplicitModel

TARGETS = ("numpy", "c", "onnx")


class Export(NamedTuple):
    """What was written: the files, and the plan they follow."""

    files: list[Path]
    plan: plan.Plan


def export(
    model: ImplicitModel,
    to: str,
    directory: str | os.PathLike[str],
    bounds: tuple[float, float] | None = None,
) -> Export:
    """Write a model as code for another place, preprocessing included.

    Parameters
    ----------
    model : ImplicitModel
    to : {"numpy", "c", "onnx"}
        predict.py and weights.npz; idl_model.h and idl_model.c; or model.onnx.
    directory : path
        Made if it is not there; files of these names in it are replaced.
    bounds : (low, high), optional
        The declared range of the inputs, before preprocessing: for these the number of iterations and the error of the
        outputs are bounded. Default: 8 standard deviations around the mean where the model standardises, else −8 … 8.

    Returns
    -------
    Export
        files; and plan, with iterations and error_bound.

    Raises
    ------
    ValueError
        Weights that are not finite, or a model for which the iterations cannot be bounded.
    ImportError
        to="onnx" without the package onnx.

    Notes
    -----
    Hidden states are found by Picard's iteration, or one sweep where A is strictly triangular, whatever `method` the
    model has: what it needs is known beforehand. Outputs agree with the model's within the error bounds of both.

    Examples
    --------
    >>> import tempfile
    >>> from idl_ref import ImplicitModel
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     written = export(ImplicitModel(4, 3, 20, seed=0), "c", directory)
    ...     print([path.name for path in written.files], written.plan.iterations)
    ['idl_model.h', 'idl_model.c'] 28
    """
    checks.choice("to", to, TARGETS)
    target = import_module(f"idl_ref.export.{to}_")
    made = plan.make(model, bounds)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    return Export(target.write(made, folder), made)
