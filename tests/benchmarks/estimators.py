"""Compare the estimators with scikit-learn's MLP by cross-validation, and write docs/estimators_table.md.

    python tests/benchmarks/estimators.py [--out FOLDER] [--only NAME] [--seeds 5] [--blas-threads 1]

Both sides have their defaults, and the MLP a StandardScaler before it. Each data set is divided into 5 folds, once for
each seed, which is the random_state of the estimators, too; both sides get the same folds, in turns. Times are CPU
seconds of `fit`, so that other processes on the machine count little. BLAS gets one thread, with which the MLP is
fastest; --blas-threads 0 leaves the number as it is.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
from sklearn import datasets
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import idl_ref

FOLDS = 5
TABLE = Path(__file__).parents[2] / "docs"
Data = tuple[np.ndarray, np.ndarray]


def houses() -> Data:
    """Return 8,000 samples with 6 features in units as different as those of the houses of California."""
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((8000, 6))
    y = 2 + 0.8 * Z[:, 0] - 0.4 * Z[:, 1] * Z[:, 2] + 0.5 * np.tanh(2 * Z[:, 3]) + 0.3 * np.sin(2 * Z[:, 4])
    y += 0.2 * np.maximum(Z[:, 5], 0) ** 2 + 0.3 * rng.standard_normal(8000)
    return Z * [1.9, 12.6, 2.5, 1132, 0.5, 10.4] + [3.9, 28.6, 5.4, 1425, 3.1, 35.6], y


def rare() -> Data:
    """Return 4,000 samples with 20 features, of which 2 % are of the second class."""
    shape = {"n_samples": 4000, "n_features": 20, "n_informative": 6, "n_redundant": 4}
    return datasets.make_classification(**shape, weights=[0.98], flip_y=0, random_state=0)


DATA: dict[str, tuple[Callable[[], Data], bool]] = {  # what makes the data, and whether y are classes
    "digits": (lambda: datasets.load_digits(return_X_y=True), True),
    "breast cancer": (lambda: datasets.load_breast_cancer(return_X_y=True), True),
    "wine": (lambda: datasets.load_wine(return_X_y=True), True),
    "iris": (lambda: datasets.load_iris(return_X_y=True), True),
    "diabetes": (lambda: datasets.load_diabetes(return_X_y=True), False),
    "houses, synthetic": (houses, False),
    "imbalanced, 2 %": (rare, True),
}


class Row(NamedTuple):
    """The results of a data set: scores (2, folds·seeds) and seconds (2, folds·seeds), ours first."""

    name: str
    shape: tuple[int, int]
    classes: bool
    scores: np.ndarray
    seconds: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """The standard errors of both means."""
        return self.scores.std(axis=1, ddof=1) / self.scores.shape[1] ** 0.5

    def text(self) -> str:
        """Return the row of the table."""
        score = [f"{mean:.4f} ± {e:.4f}" for mean, e in zip(self.scores.mean(axis=1), self.error, strict=True)]
        seconds = [f"{s:.2f}" for s in self.seconds.mean(axis=1)]
        kind = "accuracy" if self.classes else "R²"
        m, p = self.shape
        return f"| {self.name} | {m:,} × {p} | {kind} | {score[0]} | {score[1]} | {seconds[0]} | {seconds[1]} |"


def estimators(classes: bool, seed: int) -> tuple[Any, Any]:
    """Return both contestants with their defaults, ours first."""
    if classes:
        ours, peer = idl_ref.ImplicitClassifier(random_state=seed), MLPClassifier(random_state=seed)
    else:
        ours, peer = idl_ref.ImplicitRegressor(random_state=seed), MLPRegressor(random_state=seed)
    return ours, make_pipeline(StandardScaler(), peer)


def compare(name: str, seeds: int) -> Row:
    """Train and judge both contestants on every fold of every seed."""
    make, classes = DATA[name]
    X, y = make()
    scores, seconds = [], []
    for seed in range(seeds):
        folds = (StratifiedKFold if classes else KFold)(FOLDS, shuffle=True, random_state=seed)
        for train, test in folds.split(X, y):
            both = estimators(classes, seed)
            for estimator in both:
                start = time.process_time()
                estimator.fit(X[train], y[train])
                seconds.append(time.process_time() - start)
            scores.append([estimator.score(X[test], y[test]) for estimator in both])
    return Row(name, X.shape, classes, np.array(scores).T, np.reshape(seconds, (-1, 2)).T)


def verdict(rows: list[Row]) -> str:
    """Return how often we are level with the MLP and better than it, and the ratio of the times."""
    ours, peer = np.array([row.scores.mean(axis=1) for row in rows]).T
    error = np.array([row.error[1] for row in rows])
    level, better = int((ours >= peer - error / 2).sum()), int((ours > peer).sum())
    total = sum(row.seconds.sum(axis=1) for row in rows)
    return (
        f"The score is at least that of the MLP minus half its standard error on {level} of {len(rows)} data sets, and "
        f"higher on {better}. All trainings together took {total[0]:.0f} s and {total[1]:.0f} s, a ratio of "
        f"{total[0] / total[1]:.2f}."
    )


def page(rows: list[Row], seeds: int, blas: int) -> str:
    """Return the table with what belongs to it, as a part of a page."""
    head = [
        "| data | size | score | `idl_ref` | MLP | `idl_ref`, s | MLP, s |",
        "|---|---|---|---|---|---|---|",
    ]
    threads = f"{blas} thread of BLAS" if blas == 1 else f"{blas or 'the default number of'} threads of BLAS"
    notes = (
        f"{FOLDS} folds, {seeds} seeds, mean ± standard error of {FOLDS * seeds} folds; CPU seconds of one `fit`. "
        f"idl_ref {idl_ref.__version__}, scikit-learn {sklearn.__version__}, NumPy {np.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}, {threads}."
    )
    command = "<!-- python tests/benchmarks/estimators.py writes this file -->"
    return "\n".join([command, "", *head, *(row.text() for row in rows), "", notes, "", verdict(rows), ""])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=TABLE, metavar="FOLDER", help="where estimators_table.md goes")
    parser.add_argument("--only", choices=list(DATA), metavar="NAME", help="one data set instead of all")
    parser.add_argument("--seeds", type=int, default=5, help="how often the data are divided anew")
    parser.add_argument("--blas-threads", type=int, default=1, metavar="N", help="0 leaves the number as it is")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)  # before minutes of measurement, not after
    for classes in (True, False):  # Compile before the first time is taken.
        estimators(classes, 0)[0].fit(np.random.default_rng(0).random((600, 3)), np.arange(600) % 2)
        estimators(classes, 0)[0].fit(np.random.default_rng(0).random((20, 3)), np.arange(20) % 2)
    rows = []
    with threadpool_limits(options.blas_threads) if options.blas_threads else nullcontext():
        for name in [options.only] if options.only else DATA:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
                rows.append(compare(name, options.seeds))
            print(rows[-1].text(), flush=True)
    print(verdict(rows))
    (options.out / "estimators_table.md").write_text(page(rows, options.seeds, options.blas_threads), encoding="utf-8")


if __name__ == "__main__":
    main()
