"""Export a trained model to where this library is not, as one NumPy file, C99 or ONNX; and the command `export`."""

from __future__ import annotations

import argparse
import os
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from idl_ref import checks
from idl_ref.export import plan
from idl_ref.model import ImplicitModel

__all__ = ["Export", "export"]

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


def add(commands: Any, formatter: type[argparse.HelpFormatter]) -> None:
    """Register the command."""
    parser = commands.add_parser("export", help="write a saved model as NumPy, C99 or ONNX", formatter_class=formatter)
    parser.description = (
        "Write a saved model, its preprocessing included, as code for another place: one NumPy file and its arrays, "
        "C99 without malloc, or ONNX. The iterations it takes are bounded before it runs."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .npz or .safetensors file that train wrote")
    parser.add_argument("--to", choices=TARGETS, required=True, help="what to write")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of the inputs as they come, before preprocessing; for these the iterations and the error are bounded. "
        "Default: 8 standard deviations around the mean, or -8 8 where the model does not standardise",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    model = ImplicitModel.load(options.model)
    written = export(model, options.to, options.out, options.range)
    made = written.plan
    print(model)
    promise = f"for inputs in [{made.low:g}, {made.high:g}]: {made.promise(sweeps=options.to != 'onnx')}"
    if options.to == "c":
        from idl_ref.export import c_

        arena, weights = c_.sizes_in_bytes(made)
        promise += f"; arena {arena:,} bytes, weights {weights:,} bytes"
    print(promise)
    for path in written.files:
        print(f"wrote {path} ({path.stat().st_size:,} bytes)")
    return 0
