"""The command `predict`: labels and probabilities, or numbers, with an error bound and a status for each sample."""

from __future__ import annotations

import argparse
import csv
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from idl_ref import checks, classes, files, labels
from idl_ref.certificate import upward
from idl_ref.commands import folder, rows, summary
from idl_ref.commands.rows import Rows
from idl_ref.model import ImplicitModel, load
from idl_ref.predictor import Prediction
from idl_ref.solution import Status

SHOWN = 40  # So many answers are printed.
OWN = "sample", "error_bound", "status"  # the names of columns of the table that are no answers


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.description = (
        "Predict with a saved model. A sample that does not converge, is not finite, or has a value that the model "
        "cannot take, has no answer, and then the exit status is 1."
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a .npz or .safetensors file that train wrote")
    data = (
        "a table with the columns of the training data; or a .npz file with x_test or X; or X.npy; targets in it show "
        "how good the answers are; without it, the digits' test set is used"
    )
    add("--data", type=Path, metavar="FILE", help=data)
    table = (
        "write a table with a row for each sample: its number, the label and the probability p_… of each class, or the "
        "predicted numbers, a bound of the error of the outputs, and a status; a sample that failed has no answer"
    )
    add("--out", type=Path, metavar="FILE.csv | DIR", help=table)
    task = (
        "what the outputs are: those of classes, or numbers; auto takes them for those of classes where the model has "
        "classes, or several outputs and no columns"
    )
    add("--task", choices=["auto", "classify", "regress"], default="auto", help=task)
    folder.add(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if folder.asked(options):
        if options.task != "auto":
            raise ValueError(
                f"--task is for tables of answers; got {options.task} with --workers or --dask, which write outputs as "
                "they are: leave it out."
            )
        return folder.run(options)
    model = load(options.model)
    source = rows.source(model, options.data)
    if options.out is not None:
        files.probe(options.out)
    predictor, answers = model.freeze(), _Answers(model, source.target, _classifies(model, options.task))
    with nullcontext() if options.out is None else files.replacing(options.out, "w") as stream:
        table = None if stream is None else csv.writer(stream, lineterminator="\n")
        if table is not None:
            table.writerow(answers.head())
        for part in source.rows():
            for row in answers.of(part, predictor.certified(part.U)):
                if table is not None:
                    table.writerow(row)
    answers.print(options.out)
    return 1 if answers.failed else 0


def _classifies(model: ImplicitModel, task: str) -> bool:
    """Return whether the outputs are those of classes; where the model does not tell, this is said."""
    if task != "auto":
        if task == "classify" and model.output_dim == 1:
            raise ValueError("--task classify needs a model with two outputs or more, one per class; got one output.")
        if task == "regress" and model.classes is not None:
            raise ValueError("--task regress needs a model of numbers; got one with classes: leave --task out.")
        return task == "classify"
    if model.classes is None and model.columns is None and model.output_dim > 1:
        print(
            f"the model does not tell what its {model.output_dim} outputs are; they are taken for those of the classes "
            f"0 … {model.output_dim - 1}: --task regress gives the numbers"
        )
        return True
    return model.classes is not None


class _Failure(NamedTuple):
    """The first sample that failed: its number, where it stands, and why."""

    number: int
    place: str
    why: str


class _Answer(NamedTuple):
    """The words of the answer to one sample, and what writing them adds to the error of the outputs."""

    words: list[str]
    rounding: float


class _Answers:
    """The answers to all samples, a portion at a time: rows of a table, and what is printed at the end."""

    def __init__(self, model: ImplicitModel, target: str, classifies: bool) -> None:
        self.target, self.classifies = target, classifies
        columns = model.columns
        self.labels = np.arange(model.output_dim) if model.classes is None else model.classes
        self.targets = list(columns.targets) if columns is not None and len(columns.targets) == model.output_dim else []
        self.targets = self.targets or [f"y{i}" for i in range(model.output_dim)]
        self.m, self.failed, self.judged, self.right = 0, 0, 0, 0
        self.wrong = 0  # the number of samples with a target that failed
        self.shown: list[str] = []
        self.first: _Failure | None = None
        self.truth: list[tuple[np.ndarray, ...]] = []  # for regression: targets, answers, and which are answers

    def head(self) -> list[str]:
        """Return the names of the columns of the table."""
        classified = ["label", *(f"p_{label}" for label in self.labels.tolist())]
        numbers = [f"predicted {name}" if name in OWN else name for name in self.targets]
        return ["sample", *(classified if self.classifies else numbers), "error_bound", "status"]

    def of(self, part: Rows, found: Prediction) -> list[list[str]]:
        """Return the rows of the table for some samples, and count what is in them."""
        Y, status = found.Y, found.status
        known = (status <= int(Status.PRECISION_LIMIT)) & np.isfinite(Y).all(axis=1)
        answers = [self._answer(y) if ok else None for y, ok in zip(Y, known, strict=True)]
        self._count(part, known, status)
        self.shown += [answer.words[0] if answer else "(failed)" for answer in answers[: SHOWN - len(self.shown)]]
        if part.truth is not None:
            self._judge(part.truth, Y, known)
        empty, table = [""] * (len(self.head()) - 2), []
        for j, (answer, bound) in enumerate(zip(answers, found.error_bound.tolist(), strict=True)):
            words = [*answer.words, upward(bound + answer.rounding, 3)] if answer else empty
            table.append([str(part.first + j), *words, self._status(part, j, known, status)])
        return table

    def _answer(self, y: np.ndarray) -> _Answer:
        """Return the answer to one sample: its label and the probability of each class, or numbers.

        The bound is for outputs, by half of which probabilities may differ, and covers what is written of them: numbers
        of float32 have nine digits, from which they can be read again, and those of float64 have all.
        """
        exact = y.astype(np.float64)
        powers = np.exp(exact - exact.max()) if self.classifies else exact
        numbers: list[float] = (powers / powers.sum() if self.classifies else exact).tolist()
        texts = [f"{number:.9g}" if y.dtype == np.float32 else repr(number) for number in numbers]
        moved = max(abs(float(text) - number) for text, number in zip(texts, numbers, strict=True))
        if not self.classifies:
            return _Answer(texts, moved)
        return _Answer([str(self.labels[y.argmax()]), *texts], 2 * (moved + (len(y) + 8) * 2.0**-53))

    def _count(self, part: Rows, known: np.ndarray, status: np.ndarray) -> None:
        """Count samples, and those that failed."""
        self.m += len(known)
        self.failed += int((~known).sum())
        if self.first is None and not known.all():
            j = int(np.argmin(known))
            why = part.faults.get(j) or labels.reason(status[j]).removesuffix(".")
            self.first = _Failure(part.first + j, part.places[j] if part.places else "", why)

    def _status(self, part: Rows, j: int, known: np.ndarray, status: np.ndarray) -> str:
        """Return the status of one sample in a word, or what is wrong with it."""
        if j in part.faults:
            return part.faults[j]
        found = Status(int(status[j]))
        return "overflow" if found.success and not known[j] else found.name.lower()

    def _judge(self, truth: Any, Y: np.ndarray, known: np.ndarray) -> None:
        """Compare answers with targets; a sample without a target is not counted."""
        if not self.classifies:
            numbers: Any = checks.real_array(self.target, truth, np.dtype(np.float64))
            T = numbers.reshape(len(Y), math.prod(numbers.shape[1:]))
            if T.shape != Y.shape:
                raise ValueError(
                    f"{self.target} must have {Y.shape[1]} numbers for each sample, as the model has outputs; got "
                    f"{T.shape[1]}: leave the targets out, or take those of the training."
                )
            there = np.isfinite(T).all(axis=1)
            self.truth.append((T[there], Y[there].astype(np.float64), known[there]))
            return
        if truth.size != len(Y):
            raise ValueError(
                f"{self.target} must be one label for each sample; got shape {truth.shape}: of one-hot rows, take "
                "argmax(axis=1)."
            )
        truth = truth.ravel()
        there = np.array([label is not None and label == label for label in truth.tolist()], bool)
        if truth.dtype.kind == "f" and (odd := np.isinf(truth).sum()):  # A word in a column of numbers is read as inf.
            raise ValueError(
                f"{self.target} must hold whole numbers, as the classes of the model are; got {odd} words or infinite "
                "numbers among them: leave the targets out, or take those of the training."
            )
        found = classes.index(self.target, truth[there], self.labels)
        self.judged += int(there.sum())
        self.wrong += int((there & ~known).sum())
        self.right += int(((Y.argmax(axis=1)[there] == found) & known[there]).sum())

    def print(self, out: Path | None) -> None:
        """Print the answers, or where they were written to, and how good they are."""
        if out is None:
            print(" ".join(map(checks.printable, self.shown)) + (f" … ({self.m} in all)" if self.m > SHOWN else ""))
        if self.judged:
            print(labels.accuracy(self.right / self.judged, self.wrong, self.judged))
        if self.truth and sum(len(T) for T, _, _ in self.truth):
            T, Y, known = (np.concatenate(arrays) for arrays in zip(*self.truth, strict=True))
            print(summary.of_numbers(T, Y, known).words())
        if out is not None:
            print(f"wrote {checks.printable(out)}")
        if self.first is not None:
            number, place, why = self.first
            what = "label" if self.classifies else "answer"
            print(
                f"{self.failed} of {self.m} samples failed and have no {what}; the first is sample {number}{place}: "
                f"{why}."
            )
