"""This module is the command line, with the commands train, predict, check, conformance, export, bench and info."""

from __future__ import annotations

import argparse
import math
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import idl_ref
from idl_ref import activations, bench, checks, classes, datasets, export, factors, labels, npz, train, wellposed
from idl_ref.backends import resolve
from idl_ref.choices import BACKENDS
from idl_ref.conformance import command as conformance
from idl_ref.functions import FUNCTIONS
from idl_ref.gradcheck import check_gradients
from idl_ref.model import ImplicitModel
from idl_ref.optim import SGD
from idl_ref.preprocessing import Standardise
from idl_ref.training import evaluation

DIVERGED = 2.0  # A training has diverged if it makes the loss this many times larger than that of equal outputs.
STANDARDISE = {"auto": None, "features": True, "all": False}  # The argument per_feature of Standardise.fit.
REFUSED = (ValueError, TypeError, OSError, ImportError, ArithmeticError, RuntimeError, MemoryError)


class _Parser(argparse.ArgumentParser):
    """A parser whose error messages are safe to print, whatever names of files the arguments hold."""

    def error(self, message: str) -> NoReturn:
        super().error(checks.printable(message))


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default value of an option in its help, unless the option is left out by default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status.

    The status is 0 if the command succeeded, 1 if a check failed, 2 if the input was refused, and 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # A terminal that cannot encode ‖ or ₀ must not make a command fail.
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("idl-ref: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # The reader of our output has closed the pipe. This keeps Python from printing a traceback.
        return 0
    except REFUSED as reason:
        print(f"idl-ref: error: {checks.printable(reason) or type(reason).__name__}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = _Parser(
        prog="idl-ref",
        description="Train and use implicit models, whose hidden state X solves the equation X = φ(A X + B U).",
        epilog="Start with: idl-ref train    (without arguments it trains on handwritten digits for a few seconds)",
    )
    parser.add_argument("--version", action="version", version=f"idl-ref {idl_ref.__version__}")
    names = "{train,predict,check,conformance,export,bench,info}"
    commands = parser.add_subparsers(title="commands", required=True, metavar=names)
    _add_train(commands.add_parser("train", help="train a classifier and save it", formatter_class=_Help))
    _add_predict(commands.add_parser("predict", help="predict with a saved model", formatter_class=_Help))
    _add_check(
        commands.add_parser("check", help="check well-posedness and gradients of a model", formatter_class=_Help)
    )
    conformance.add(commands, _Help)
    export.add(commands, _Help)
    bench.add(commands, _Help)
    info = commands.add_parser("info", help="show versions, and which backends work here")
    info.set_defaults(run=_info)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command `train`."""
    parser.description = (
        "Train an implicit model to classify samples, print its test accuracy, and write model.npz, history.json and, "
        "where matplotlib is installed, training.png."
    )
    add = parser.add_argument
    data = "file with the arrays x_train, y_train, x_test, y_test; without it, the embedded 8×8 digits are used"
    add("--data", type=Path, metavar="FILE.npz", help=data)
    add("--hidden", type=int, default=64, metavar="N", help="size n of the hidden state")
    add("--rank", type=int, metavar="R", help="number of columns of L and R in A = L Rᵀ; without it, A is dense")
    constraint = "constraint that keeps the model well posed; none leaves A unconstrained"
    add("--f", choices=list(FUNCTIONS), default="inf", help=constraint)
    add("--activation", choices=list(activations.TABLE), default="relu", help="activation φ")
    add("--epochs", type=int, default=20, metavar="E", help="number of passes over the training samples")
    add("--batch-size", type=int, default=32, metavar="M", help="number of samples per training step")
    scales = "one mean and scale per feature, or one for all; auto is one for all for images, else per feature"
    add("--standardise", choices=list(STANDARDISE), default="auto", help=scales)
    rate = "learning rate of the first step; the rate then decreases to 0 along a half cosine"
    add("--lr", type=float, default=0.01, metavar="RATE", help=rate)
    add("--seed", type=int, default=0, metavar="S", help="seed of the initial weights and of the order of the samples")
    solver = "what solves the equations; idl-ref info lists what works here"
    add("--backend", choices=BACKENDS, default="auto", help=solver)
    add("--out", type=Path, default=Path(), metavar="DIR", help="folder for the files, created if it does not exist")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    """Run the command `train`."""
    resolve(options.backend)
    x_train, y_train, x_test, y_test = datasets.digits() if options.data is None else _labelled(options.data)
    found = classes.find("y_train", y_train)
    classes.index("y_test", y_test, found)
    per_feature = STANDARDISE[options.standardise]
    if options.data is None and per_feature is None:
        per_feature = False  # The rows of the digits are images, whose pixels have one common scale.
    preprocessing = Standardise.fit(x_train, per_feature)
    model = ImplicitModel(
        input_dim=math.prod(x_train.shape[1:]),
        output_dim=len(found),
        hidden_dim=options.hidden,
        f=FUNCTIONS[options.f],
        bias=True,
        is_low_rank=options.rank is not None,
        rank=options.rank,
        activation=options.activation,
        seed=options.seed,
        backend=options.backend,
    )
    model.preprocessing, model.classes = preprocessing, found
    optimizer = SGD(options.lr, schedule="cosine")
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{model}: {len(x_train)} training samples of {len(found)} classes, {len(x_test)} test samples")
    before = evaluation.measure(model, x_train, y_train)
    try:
        history = train.fit(
            model,
            x_train,
            y_train,
            optimizer=optimizer,
            epochs=options.epochs,
            batch_size=options.batch_size,
            validation=(x_test, y_test) if len(x_test) else None,
            seed=options.seed,
        )
    except FloatingPointError as reason:
        print(f"idl-ref: error: {reason} The training diverged, and no model was written.", file=sys.stderr)
        return 1
    after, test = (evaluation.measure(model, *data) for data in ((x_train, y_train), (x_test, y_test)))
    diverged = not after.loss <= DIVERGED * max(before.loss, math.log(model.output_dim))  # This is true for NaN.
    written = [] if diverged else [options.out / "model.npz"]
    if not diverged:
        model.save(written[0])
        if history.interrupted:
            print(f"interrupted after {len(history.loss)} epochs; the model is saved with the weights it has now")
    history.save(options.out / "history.json")
    written += [options.out / "history.json", *_plot(history, options.out / "training.png")]
    if len(x_test):
        print(f"test {labels.accuracy(test.accuracy or 0.0, test.failed, len(x_test))}")
    print(f"wrote {checks.printable(', '.join(map(str, written)))}")
    faults = _faults(history, before, after, diverged)
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults or test.failed else 0


def _faults(
    history: train.History, before: evaluation.Measured, after: evaluation.Measured, diverged: bool
) -> list[str]:
    """Return sentences about what went wrong in a training."""
    found = []
    if unconverged := sum(history.unconverged[-1:]):
        found.append(
            f"{unconverged} samples did not converge in the last epoch, forward or adjoint, so that its gradients are "
            "inexact: choose another --f than none, or lower --lr."
        )
    if diverged:
        found.append(
            f"the training diverged: the loss of the training samples was {before.loss:.3g} before it and is "
            f"{after.loss:.3g} now. model.npz was not written: lower --lr."
        )
    elif after.failed:
        found.append(f"{after.failed} training samples have no answer with the final weights: lower --lr.")
    return found


def _plot(history: train.History, path: Path) -> list[Path]:
    """Draw the training curves, if there are any and matplotlib is installed, and return the files written."""
    from idl_ref import plots

    if not history.loss:
        return []
    try:
        figure = plots.training_curves(history)
    except ImportError:
        print(f'{path.name} was not written: plots need matplotlib (pip install "idl-ref[plot]")')
        return []
    figure.savefig(path, dpi=120)
    return [path]


def _add_predict(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command `predict`."""
    parser.description = (
        "Predict labels with a saved model. A sample that does not converge, or is not finite, has no label, and then "
        "the exit status is 1."
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a .npz or .safetensors file that train wrote")
    data = "file with the array x_test, and y_test if accuracy is to be shown; without it, the digits' test set is used"
    add("--data", type=Path, metavar="FILE.npz", help=data)
    table = "write a table with the columns sample, label and the outputs y0, y1, …; a sample that failed has no label"
    add("--out", type=Path, metavar="FILE.csv", help=table)
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    """Run the command `predict`."""
    model = idl_ref.load(options.model)
    x, y = _samples(model, options.data)
    forward = model.forward_pass(x)
    Y, known = forward.Y.T, labels.has_class(forward)
    found = np.arange(model.output_dim) if model.classes is None else model.classes
    predicted, failed = Y.argmax(axis=1), int((~known).sum())
    words = [str(label) if ok else "" for label, ok in zip(found[predicted].tolist(), known, strict=True)]
    right = None if y is None else (predicted == classes.index("y_test", y, found)) & known
    if options.out is not None:
        labels.write_table(options.out, words, Y)
    else:
        shown = " ".join(label or "(failed)" for label in words[:40])
        print(shown + (f" … ({len(words)} in all)" if len(words) > 40 else ""))
    if right is not None and right.size:
        print(labels.accuracy(float(right.mean()), failed, right.size))
    if options.out is not None:
        print(f"wrote {checks.printable(options.out)}")
    if failed:
        first = int(np.argmin(known))
        print(
            f"{failed} of {len(words)} samples failed and have no label; the first is sample {first}: "
            f"{labels.reason(forward.solution.status[first])}."
        )
    return 1 if failed else 0


def _samples(model: ImplicitModel, path: Path | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return samples x (m, …) that the model takes, and their labels (m,) where the data has any."""
    if path is None:
        _, _, x, digits = datasets.digits()
        if model.input_dim != x.shape[1]:
            raise ValueError(
                f"--data is needed, because the model takes {model.input_dim} features; "
                f"got the embedded digits, which have {x.shape[1]}: pass a file with x_test."
            )
        y: np.ndarray | None = digits
    else:
        arrays = npz.arrays(path, ["x_test"], ["y_test"])
        x, y = arrays["x_test"], arrays.get("y_test")
        if x.ndim < 2 or (y is not None and y.shape != (len(x),)):
            got = f"{x.shape}" + ("" if y is None else f" and {y.shape}")
            raise ValueError(
                f"x_test must be samples of shape (m, …) and y_test, if there is one, labels of shape (m,); "
                f"got {got} in {path}."
            )
    x = checks.real_array("x_test", x)
    rows = x.reshape(len(x), math.prod(x.shape[1:]))
    return checks.samples("x_test", rows, "p", model.input_dim, x.dtype), y


def _labelled(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x_train, y_train, x_test and y_test of a data file, and refuse arrays that do not fit together."""
    names = ("x_train", "y_train", "x_test", "y_test")
    found = npz.arrays(path, names)
    x_train, x_test = (checks.real_array(name, found[name]) for name in ("x_train", "x_test"))
    y_train, y_test = found["y_train"], found["y_test"]
    for x, y, part in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
            raise ValueError(
                f"x_{part} must be samples of shape (m, …) and y_{part} labels of shape (m,); "
                f"got {x.shape} and {y.shape} in {path}."
            )
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(f"x_train and x_test must have samples of one shape; got {x_train.shape} and {x_test.shape}.")
    if not len(x_train):
        raise ValueError(f"x_train must hold at least one sample; got {x_train.shape} in {path}.")
    return x_train, y_train, x_test, y_test


def _add_check(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command `check`."""
    parser.description = (
        "Report whether a saved model is well posed, which error bound its hidden states have, and whether its "
        "gradients agree with the complex step and central differences. The exit status is 1 if the model could not be "
        "shown to be well posed, if a sample does not converge, or if a gradient is wrong or cannot be judged."
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a .npz or .safetensors file")
    add(
        "--data",
        type=Path,
        metavar="FILE.npz",
        help="file with the array x_test; without it, the digits are used if they fit, else normal random inputs",
    )
    add("--samples", type=int, default=8, metavar="M", help="number of samples to check with")
    add("--entries", type=int, default=32, metavar="K", help="number of entries to check per parameter")
    parser.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    """Run the command `check`."""
    model = idl_ref.load(options.model)
    checks.integer("--samples", options.samples, 1)
    rng = np.random.default_rng(0)
    if options.data is None and model.input_dim != 64:
        U, pre = rng.standard_normal((options.samples, model.input_dim)), model.preprocessing
        U = U if pre is None else pre.inverse(U)
    else:
        U = _samples(model, options.data)[0][: options.samples]
    weights = model.effective_weights()
    norm, root = factors.norm_inf(weights.factors), wellposed.perron_root(weights.A)
    limit = 1 / activations.get(model.activation).lipschitz
    solution = model.equilibrium(U)
    sign = "≤" if model.is_low_rank else "="
    print(model)
    print(
        f"‖A‖∞ {sign} {norm:.6f}   Perron root of |A| ≤ {root.upper:.6f}   "
        f"the model is well posed if one of them is below {limit:g}"
    )
    print(
        f"{int(solution.succeeded.sum())} of {len(U)} samples converged in at most "
        f"{int(solution.iterations.max(initial=0))} iterations; "
        f"the error of X is at most {solution.error_bound.max(initial=0.0):.1e} in the ∞-norm"
    )
    well_posed = root.upper < limit and solution.converged
    if solution.converged:
        targets = rng.integers(0, model.output_dim, len(U))
        targets = targets if model.classes is None else model.classes[targets]
        report = check_gradients(model, U, targets, entries=options.entries)
        print(report)
        gradients = report.verdict
    else:
        gradients = "not checked, because not every sample converged"
    print(f"well-posedness: {'ok' if well_posed else 'NOT SHOWN'}; gradients: {gradients}")
    return 0 if well_posed and gradients == "ok" else 1


def _info(options: argparse.Namespace) -> int:
    """Run the command `info`."""
    print(f"idl-ref {idl_ref.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in ("numpy", "numba", "scipy", "matplotlib", "tqdm", "safetensors"):
        print(f"{package:<12}{_version(package)}")
    for name, state in idl_ref.available_backends().items():
        print(f"backend {name:<8}{checks.printable(state)}")
    print(f"backend auto is {resolve('auto')}")
    return 0


def _version(package: str) -> str:
    """Return the version of an installed package, or the words "not installed"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def entry() -> Any:
    """Run `main` as the console script `idl-ref` and exit with its status."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
