"""Export a trained model as NumPy, C99, ONNX or JavaScript that runs without this library; the command `export`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

from idl_ref import checks
from idl_ref.choices import TARGETS, Target
from idl_ref.export import plan
from idl_ref.model import ImplicitModel

__all__ = ["Export", "export"]


class Export(NamedTuple):
    """The files that were written, and the plan that they implement."""

    files: list[Path]
    plan: plan.Plan


def export(
    model: ImplicitModel,
    to: Target,
    directory: str | os.PathLike[str],
    bounds: tuple[Any, Any] | None = None,
    name: str | None = None,
) -> Export:
    """Write a model, preprocessing included, as code that runs without this library.

    Parameters
    ----------
    model : ImplicitModel
    to : {"numpy", "c", "onnx", "js"}
        "numpy" writes predict.py and weights.npz, "c" writes idl_model.h and idl_model.c, "onnx" writes model.onnx,
        "js" writes model.mjs, an ECMAScript module.
    directory : path
        The folder for the files. It is made if it does not exist; files of these names in it are replaced.
    bounds : (low, high), optional
        The range of the inputs, before preprocessing, as two numbers or two arrays (p,). Inside it, no sample fails,
        and the number of iterations and the error of the outputs are bounded. Default: 8 standard deviations around
        the mean, for each feature its own, if the model standardises its inputs, else −8 … 8.
    name : str, optional
        For "c": what the files, and all that the header declares, are called in the place of idl, so that a program
        can hold several models.

    Returns
    -------
    Export
        `files`, and `plan` with `iterations` and `error_bound`, those of the target.

    Raises
    ------
    ValueError
        If a weight is not finite, if the number of iterations cannot be bounded by 100,000, if numbers may overflow
        inside the range, or if the dtype cannot hold `tol` or the ends of the range.
    ImportError
        If `to` is "onnx" and the package onnx is not installed.

    Notes
    -----
    The exported code finds hidden states by Picard's iteration, whatever `method` the model has, because its number of
    iterations can be bounded beforehand; all but ONNX make one sweep if A is strictly triangular. Outputs agree
    with those of the model within the error bounds of both. The outputs of a sample that fails, because it is not
    finite or out of range, are NaN, and those of other samples are not touched; JavaScript takes one sample, and throws
    an error if it is not finite.

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
    if name is not None and to != "c":
        raise ValueError(f'name is for to="c", whose names meet in one program; got to={to!r}: leave name out.')
    made = plan.make(model, to, bounds)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    return Export(_write(made, to, folder, "idl" if name is None else name), made)


def _write(made: plan.Plan, to: str, folder: Path, name: str) -> list[Path]:
    """Write the files of one target; the modules of the other targets are not imported."""
    if to == "c":
        from idl_ref.export import c

        return c.write(made, folder, name)
    if to == "numpy":
        from idl_ref.export import numpy

        return numpy.write(made, folder)
    if to == "js":
        from idl_ref.export import js

        return js.write(made, folder)
    from idl_ref.export import onnx

    return onnx.write(made, folder)


def add(commands: Any, formatter: type[argparse.HelpFormatter]) -> None:
    """Add the command `export` to the subparsers `commands`."""
    parser = commands.add_parser(
        "export", help="write a saved model as NumPy, C99, ONNX or JavaScript", formatter_class=formatter
    )
    parser.description = (
        "Write a saved model, its preprocessing included, as code that runs without this library: one NumPy file and "
        "its arrays, C99 without malloc, ONNX, or a module of JavaScript. The number of its iterations is bounded "
        "before it runs."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .npz or .safetensors file that train wrote")
    parser.add_argument("--to", choices=TARGETS, required=True, help="what to write")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="the range of the inputs, before preprocessing, for which the iterations and the error are bounded. "
        "Default: 8 standard deviations around the mean, or -8 8 if the model does not standardise its inputs",
    )
    parser.add_argument("--name", help="for c: what every file, macro and function begins with, in the place of idl")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    model = ImplicitModel.load(options.model)
    written = export(model, options.to, options.out, options.range, options.name)
    made = written.plan
    print(model)
    promise = f"for inputs in {made.inputs.text()}: {made.promise()}"
    if options.to == "c":
        from idl_ref.export import c

        arena, weights = c.sizes_in_bytes(made)
        promise += f"; arena {arena:,} bytes, weights {weights:,} bytes"
    print(promise)
    for path in written.files:
        print(f"wrote {checks.printable(path)} ({path.stat().st_size:,} bytes)")
    return 0
