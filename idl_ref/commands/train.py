"""The command `train`: a model is trained on a table, on arrays, or on handwritten digits, and saved."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from idl_ref import activations, checks, classes, files, report, targets
from idl_ref.backends import resolve
from idl_ref.choices import BACKENDS
from idl_ref.columns import Columns
from idl_ref.commands import data, first_step, launched, summary
from idl_ref.commands.data import Data
from idl_ref.commands.stopping import Stopping
from idl_ref.commands.summary import Quality
from idl_ref.functions import FUNCTIONS
from idl_ref.model import ImplicitModel
from idl_ref.optim import SGD, Adam, Optimizer
from idl_ref.preprocessing import Standardise, fits_float32
from idl_ref.train import History, fit
from idl_ref.training.interrupts import Terminated
from idl_ref.training.loop import DIVERGED
from idl_ref.training.ranks import Ranks

STANDARDISE = {"auto": None, "features": True, "all": False}  # The argument per_feature of Standardise.fit.
PATIENCE = 10  # The number of epochs that --early-stopping stands for.
VALIDATION = 0.1  # The share of the training samples by which --early-stopping judges.
NAMED = 10_000  # For at most so many inputs from arrays, the file has names; see `Columns.of_numbers`.
STEPS, EPOCHS, MOST_EPOCHS = 900, 20, 300  # What --epochs auto stands for.

Pair = tuple[np.ndarray, np.ndarray]  # samples and their targets


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = (
        "Train an implicit model to predict a column of a table, print how well it does on samples that it was not "
        "trained on, and write model.npz, history.json, report.html and, where matplotlib is "
        "installed, training.png."
    )
    add = parser.add_argument
    source = (
        "a table .csv, .tsv or .parquet; a .npz file with the arrays X and y, or x_train, y_train, x_test and y_test; "
        "or X.npy; without it, the embedded 8×8 digits are used"
    )
    add("--data", type=Path, metavar="FILE", help=source)
    add("--target", nargs="+", metavar="COLUMN", help="the column to predict, or columns of numbers; for X.npy, y.npy")
    task = "classify or regress; auto classifies words, and whole numbers of which there are few different ones"
    add("--task", choices=["auto", "classify", "regress"], default="auto", help=task)
    add("--test", type=Path, metavar="FILE", help="a table with the samples to test with")
    share = "without --test, the share of the samples to test with, chosen at random, of each class alike"
    add("--test-size", type=float, default=0.2, metavar="SHARE", help=share)
    add("--ignore", nargs="+", metavar="COLUMN", help="columns that are not used, such as names and numbers of rows")
    missing = (
        "refuse missing values, or fill in the mean of the column, and its most frequent word, here and in predict"
    )
    add("--missing", choices=["refuse", "mean"], default="refuse", help=missing)
    _add_model(parser)
    _add_training(parser)
    add("--out", type=Path, default=Path(), metavar="DIR", help="folder for the files, created if it does not exist")
    parser.set_defaults(run=run)


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Declare the options that describe the model."""
    add = parser.add_argument
    hidden = "size n of the hidden state; auto is a power of two from 32 to 128 that reaches p and q, and at most m/2"
    add("--hidden", type=_auto_or(int), default="auto", metavar="N", help=hidden)
    add("--rank", type=int, metavar="R", help="number of columns of L and R in A = L Rᵀ; without it, A is dense")
    constraint = "constraint that keeps the model well posed; none leaves A unconstrained"
    add("--f", choices=list(FUNCTIONS), default="inf", help=constraint)
    add("--activation", choices=list(activations.TABLE), default="relu", help="activation φ")
    scales = "one mean and scale per feature, or one for all; auto is one for all for images, else per feature"
    add("--standardise", choices=list(STANDARDISE), default="auto", help=scales)
    solver = "what solves the equations; idl-ref info lists what works here"
    add("--backend", choices=BACKENDS, default="auto", help=solver)


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Declare the options that describe the training."""
    add = parser.add_argument
    epochs = f"number of passes over the training samples; auto is {EPOCHS}, or more for {STEPS} steps"
    add("--epochs", type=_auto_or(int), default="auto", metavar="E", help=epochs)
    add("--batch-size", type=int, default=32, metavar="M", help="number of samples per training step")
    leaf = (
        "cut each batch into leaves of L samples, which the processes of mpiexec share; without it, an eighth of the "
        "batch if there are several processes, else the whole batch"
    )
    add("--micro-batch", type=int, metavar="L", help=leaf)
    add("--optimizer", choices=["sgd", "adam"], default="sgd", help="SGD with momentum, or Adam")
    rate = "learning rate of the first step, which auto finds by trials; it then decreases to 0 along a half cosine"
    add("--lr", type=_auto_or(float), default="auto", metavar="RATE", help=rate)
    weight = "weigh the classes so that each counts as much as the others"
    add("--class-weight", choices=["balanced"], help=weight)
    early = (
        f"keep a tenth of the training samples apart, stop when N epochs (without N, {PATIENCE}) were no better on them"
    )
    add(
        "--early-stopping", type=int, nargs="?", const=PATIENCE, metavar="N", help=early + ", and take the best weights"
    )
    checkpoint = "write what --resume needs after every epoch; without FILE.npz, to checkpoint.npz in DIR"
    add("--checkpoint", type=Path, nargs="?", const=Path("checkpoint.npz"), metavar="FILE.npz", help=checkpoint)
    add("--resume", action="store_true", help="go on from the checkpoint, if there is one, and write it")
    seed = "seed of the choice of test samples, of the initial weights and of the order of the samples"
    add("--seed", type=int, default=0, metavar="S", help=seed)


def _auto_or(kind: type) -> Any:
    """Return a function that takes the word auto, or a number, from the command line."""

    def parse(text: str) -> Any:
        return text if text == "auto" else kind(text)

    parse.__name__ = kind.__name__
    return parse


def run(options: argparse.Namespace) -> int:
    """Run the command, as one of the processes that mpiexec started, if it did."""
    options.stopping.as_before()  # Nothing is lost before the training begins.
    resolve(options.backend)
    ranks = launched.ranks()
    with launched.one_voice(ranks):
        return _run(options, ranks)


def _run(options: argparse.Namespace, ranks: Ranks) -> int:
    """Load the data, make a model, and train it."""
    found = ranks.on_each(lambda: data.load(options))
    model = _model(options, found)
    optimizer, checkpoint = _optimizer(options), ranks.once(lambda: _files(options))
    for note in found.notes:
        print(note)
    kind = f" of {model.output_dim} classes" if found.classifies else ""
    print(f"{model}: {len(found.x_train)} training samples{kind}, {len(found.x_test)} test samples", flush=True)
    ranks.on_each(lambda: first_step.take(model, found, options))
    return _Run(options, found, model, optimizer, checkpoint, ranks).run()


def _model(options: argparse.Namespace, found: Data) -> ImplicitModel:
    """Return a new model for the data."""
    names, q = None, found.y_train.shape[-1]
    if found.classifies:
        names = classes.find("y_train", found.y_train)
        classes.index("y_test", found.y_test, names)
        q = len(names)
    elif options.class_weight:
        raise ValueError("--class-weight is for classes; got targets that are numbers: leave it out.")
    per_feature = STANDARDISE[options.standardise]
    if options.data is None and per_feature is None:
        per_feature = False  # The rows of the digits are images, whose pixels have one common scale.
    preprocessing = Standardise.fit(found.x_train, per_feature)
    wide = not fits_float32(preprocessing) or (not found.classifies and targets.need_float64(found.y_train))
    p = math.prod(found.x_train.shape[1:])
    model = ImplicitModel(
        input_dim=p,
        output_dim=q,
        hidden_dim=data.hidden_units(options.hidden, p, q, len(found.x_train)),
        f=FUNCTIONS[options.f],
        bias=True,
        is_low_rank=options.rank is not None,
        rank=options.rank,
        activation=options.activation,
        dtype="float64" if wide else "float32",
        seed=options.seed,
        backend=options.backend,
    )
    model.preprocessing, model.classes, model.columns = preprocessing, names, found.columns
    if not found.classifies:
        targets.start(model, found.y_train)
        if q > 1 and found.columns is None and p <= NAMED:  # Otherwise predict would have to be told by --task.
            model.columns = Columns.of_numbers((f"x{i}" for i in range(p)), q)
    return model


def _optimizer(options: argparse.Namespace) -> Optimizer:
    """Return the optimizer that --optimizer and --lr ask for."""
    if options.optimizer == "adam":
        return Adam(options.lr, schedule="cosine")
    return SGD(options.lr, schedule="cosine")


def _files(options: argparse.Namespace) -> Path | None:
    """Make the folder, and refuse now what could not be written later; return the path of the checkpoint, if any."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("model.npz", "history.json", "report.html", "training.png"):
        files.probe(options.out / name)
    if options.checkpoint is None and not options.resume:
        return None
    checkpoint: Path = options.checkpoint or Path("checkpoint.npz")
    if checkpoint == Path("checkpoint.npz"):
        checkpoint = options.out / checkpoint
    files.probe(checkpoint)
    if checkpoint.exists() and not options.resume:
        raise FileExistsError(
            f"--checkpoint must name a new file; got {checks.printable(checkpoint)}, which is there: add --resume to "
            "go on from it, or delete it."
        )
    return checkpoint


class _Run:
    """One training, and what is written after it."""

    def __init__(
        self,
        options: argparse.Namespace,
        found: Data,
        model: ImplicitModel,
        optimizer: Optimizer,
        checkpoint: Path | None,
        ranks: Ranks,
    ) -> None:
        self.options, self.data, self.model, self.optimizer = options, found, model, optimizer
        self.checkpoint, self.history, self.ranks = checkpoint, History(), ranks
        self.stopping: Stopping = options.stopping

    def run(self) -> int:
        """Train, save and report; return the exit status."""
        before, failure = self.ranks.once(self._quality), ""
        try:
            self._train()
        except FloatingPointError as reason:
            failure = str(reason)
        if self.ranks.once(lambda: bool(self.history.loss)):  # Only the first process remembers the history.
            return self.ranks.once(lambda: self._finish(before, failure))
        if failure:
            print(f"idl-ref: error: {failure} The training diverged, and no model was written.", file=sys.stderr)
            return 1
        why = f"{self.stopping.word} before an epoch was complete" if self.stopping.caught else "there was no epoch"
        print(f"nothing was learnt, so that no model was written: {why}")
        return self.stopping.status or 0

    def _quality(self) -> Quality:
        """Return how well the model answers the training samples now."""
        return summary.quality(self.model, self.data.x_train, self.data.y_train, self.data.classifies)

    def _train(self) -> None:
        """Train the model. Afterwards, signals are only noted, and `stopping` knows which one came."""
        samples, validation = self._samples()
        options, found = self.options, self.data
        scale = np.ones(1) if found.classifies else targets.scale(found.y_train)
        caught = None
        try:
            self.stopping.leave_to_fit()
            with nullcontext() if found.classifies else targets.scaled(self.model, scale):
                self.history = fit(
                    self.model,
                    *_scaled(samples, scale, found.classifies),
                    loss="cross_entropy" if found.classifies else "mse",
                    optimizer=self.optimizer,
                    epochs=_epochs(options, len(samples[0])),
                    batch_size=options.batch_size,
                    validation=_scaled(validation, scale, found.classifies) if len(validation[0]) else None,
                    seed=options.seed,
                    class_weight=options.class_weight,
                    early_stopping=options.early_stopping,
                    on_epoch=self._remember,
                    checkpoint=self.checkpoint,
                    micro_batch=launched.micro_batch(options.micro_batch, options.batch_size, self.ranks),
                    comm=self.ranks.comm,
                )
            caught = signal.SIGINT if self.history.interrupted else None
        except KeyboardInterrupt:
            caught = signal.SIGINT
        except Terminated:
            caught = signal.SIGTERM
        finally:
            self.stopping.hold(caught)

    def _samples(self) -> tuple[Pair, Pair]:
        """Return the samples to train with, and those by which the training is judged after each epoch."""
        found, m = self.data, len(self.data.x_train)
        if self.options.early_stopping is None:
            return (found.x_train, found.y_train), (found.x_test, found.y_test)
        labels = found.y_train if found.classifies else None
        apart, rest = data.divided(labels, m, VALIDATION, self.options.seed)
        if not len(apart):
            raise ValueError(f"--early-stopping needs more training samples; got {m}: leave it out.")
        return (found.x_train[rest], found.y_train[rest]), (found.x_train[apart], found.y_train[apart])

    def _remember(self, history: History, model: ImplicitModel) -> None:
        """Keep the history, which `fit` does not return if it raises."""
        self.history = history

    def _finish(self, before: Quality, failure: str) -> int:
        """Save what was learnt, and report; return the exit status."""
        found, out, stopped = self.data, self.options.out, self.stopping.caught is not None
        after = self._quality()
        test = summary.quality(self.model, found.x_test, found.y_test, found.classifies) if len(found.x_test) else None
        base = math.log(self.model.output_dim) if found.classifies else 0.0
        diverged = not after.loss <= DIVERGED * max(before.loss, base)  # This is true for NaN.
        written = [] if diverged else [out / "model.npz"]
        if not diverged:
            self.model.save(written[0])
        self.history.save(out / "history.json")
        written.append(out / "history.json")
        if not stopped:  # Who waits for the end of the process gets what cannot be made again, and no more.
            written += [self._report(out / "report.html"), *plot(self.history, out / "training.png")]
        for event in self.history.events:
            print(event)
        print(summary.table(self.model, found, self.history, self.optimizer, after, test))
        if stopped and not diverged:
            epochs = summary.counted(len(self.history.loss), "epoch")
            which = "best weights" if self.options.early_stopping else "weights"
            print(f"{self.stopping.word} after {epochs}; the model is saved with its {which}")
        if test is not None:
            print(f"test {test.words()}")
        print(f"wrote {checks.printable(', '.join(map(str, written)))}")
        faults = [failure] if failure else []
        faults += _faults(self.history, before, after, diverged)
        print("\n".join(faults), end="\n" if faults else "")
        return self.stopping.status or (1 if faults or (test is not None and test.failed) else 0)

    def _report(self, path: Path) -> Path:
        """Write the page about the training, with the answers to the test samples."""
        found, given = self.data, {}
        if len(found.x_test):
            Y, known = summary.outputs(self.model, found.x_test)
            names = self.model.classes
            answers: Any = Y if names is None else names[Y.argmax(axis=1)].astype(object)
            answers[~known] = None if found.classifies else np.nan
            given = {"truth": found.y_test, "predicted": answers}
        report.write(path, self.model, self.history, **given)
        return path


def _scaled(samples: Pair, scale: np.ndarray, classifies: bool) -> Pair:
    """Return samples whose targets, if they are numbers, are divided by the scale."""
    return samples if classifies else (samples[0], samples[1] / scale)


def _epochs(options: argparse.Namespace, m: int) -> int:
    """Return the number of epochs that --epochs asks for."""
    if options.epochs != "auto":
        return int(options.epochs)
    steps = -(-m // checks.integer("batch_size", options.batch_size, 1))
    return min(max(EPOCHS, -(-STEPS // steps)), MOST_EPOCHS)


def _faults(history: History, before: Quality, after: Quality, diverged: bool) -> list[str]:
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


def plot(history: History, path: Path) -> list[Path]:
    """Draw the training curves, if matplotlib is installed, and return the files written."""
    from idl_ref import plots

    try:
        figure = plots.training_curves(history)
    except ImportError:
        print(f'{path.name} was not written: plots need matplotlib (pip install "idl-ref[plot]")')
        return []
    with files.replacing(path) as stream:
        figure.savefig(stream, dpi=120, format="png")
    return [path]
