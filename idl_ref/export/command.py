"""The command `export`: a saved model as code for another place."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import idl_ref
from idl_ref.export import TARGETS, export
from idl_ref.export.plan import Plan


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
    model = idl_ref.load(options.model)
    written = export(model, options.to, options.out, options.range)
    print(model)
    print(_promise(written.plan, options.to))
    for path in written.files:
        print(f"wrote {path} ({path.stat().st_size:,} bytes)")
    return 0


def _promise(plan: Plan, to: str) -> str:
    bound = f"to within {plan.error_bound:.2g}" if np.isfinite(plan.error_bound) else "with no bound on the error"
    sweep = plan.triangle is not None and to != "onnx"
    text = f"for inputs in [{plan.low:g}, {plan.high:g}]: "
    text += "one sweep, " if sweep else f"at most {plan.iterations} iterations, "
    if to == "c":
        from idl_ref.export import c_

        size = plan.dtype.itemsize
        constant = sum(len(values) for values in c_.weights(plan).values())
        return f"{text}{bound}; arena {size * sum(c_.arena(plan).values()):,} bytes, weights {size * constant:,} bytes"
    return text + bound
