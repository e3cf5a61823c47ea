"""The command `check`: whether a saved model is well posed, and its gradients right."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from idl_ref import activations, certificate, checks, factors, reasons, wellposed
from idl_ref.commands import rows
from idl_ref.gradcheck import check_gradients
from idl_ref.interface import by_monotonicity
from idl_ref.model import load


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = (
        "Report whether a saved model is well posed, and why; which error bound its hidden states have; and whether "
        "its gradients agree with the complex step and central differences. The exit status is 1 if the model could "
        "not be shown to be well posed, if a sample does not converge, or if a gradient is wrong or cannot be judged."
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a .npz or .safetensors file")
    add(
        "--data",
        type=Path,
        metavar="FILE",
        help="data as for predict; without it, the digits are used if they fit, else normal random inputs",
    )
    add("--samples", type=int, default=8, metavar="M", help="number of samples to check with")
    add("--entries", type=int, default=32, metavar="K", help="number of entries to check per parameter")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    model = load(options.model)
    checks.integer("--samples", options.samples, 1)
    rng = np.random.default_rng(0)
    if options.data is None and model.input_dim != 64:
        U, pre = rng.standard_normal((options.samples, model.input_dim)), model.preprocessing
        U = U if pre is None else pre.inverse(U)
    else:
        U = _first(rows.source(model, options.data), options.samples)
    if not len(U):
        raise ValueError(
            f"--data must have a sample that the model can take; got none in {checks.printable(options.data)}: nothing "
            "would be checked."
        )
    weights = model.effective_weights()
    phi = activations.get(model.activation)
    scaled = certificate.contracting(weights.factors, phi)  # by Lip(φᵢ)/Lip(φ), if rows have different φ
    norm = factors.norm_inf(scaled)
    root = wellposed.perron_root(scaled[0] if len(scaled) == 1 else (scaled[0], scaled[1].T))
    name = "A" if scaled is weights.factors else "diag(Lip(φᵢ)/Lip(φ)) A"
    reason = reasons.strongest(weights.factors, phi)
    solution = model.equilibrium(U)
    error = float(solution.error_bound.max(initial=0.0))
    if not np.isfinite(error):
        error = float(by_monotonicity(model.forward_pass(U), phi, model.preprocessing is not None).max(initial=0.0))
    sign = "≤" if model.is_low_rank else "="
    known = f"is at most {certificate.upward(error, 2)} in the ∞-norm" if np.isfinite(error) else "has no bound"
    print(model)
    print(
        f"‖{name}‖∞ {sign} {norm:.6f}   Perron root of |{name}| ≤ {root.upper:.6f}   "
        f"the model is well posed if one of them is below {1 / phi.lipschitz:g}"
    )
    print(f"strongest reason: {f'{reason.name}; {reason.text}' if reason else 'none was found'}")
    print(
        f"{int(solution.succeeded.sum())} of {len(U)} samples converged in at most "
        f"{int(solution.iterations.max(initial=0))} iterations; "
        f"the error of X {known}"
    )
    well_posed = reason is not None and solution.converged
    if solution.converged:
        if model.output_dim == 1 or (model.columns is not None and model.classes is None):
            Y = model(U)
            targets = Y + np.abs(Y).max(initial=1.0) * rng.standard_normal(Y.shape)  # So rounding of Y does not matter.
            report = check_gradients(model, U, targets, loss="mse", entries=options.entries)
        else:
            drawn: np.ndarray = rng.integers(0, model.output_dim, len(U))
            targets = drawn if model.classes is None else model.classes[drawn]
            report = check_gradients(model, U, targets, entries=options.entries)
        print(report)
        gradients = report.verdict
    else:
        gradients = "not checked, because not every sample converged"
    print(f"well-posedness: {'ok' if well_posed else 'NOT SHOWN'}; gradients: {gradients}")
    return 0 if well_posed and gradients == "ok" else 1


def _first(source: rows.Source, most: int) -> np.ndarray:
    """Return the first samples that the model can take."""
    found, count = [], 0
    for part in source.rows():
        good = [j for j in range(len(part.U)) if j not in part.faults]
        found.append(part.U[good][: most - count])
        count += len(found[-1])
        if count == most:
            break
    return np.concatenate(found)
