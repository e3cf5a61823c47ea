"""
A classifier for tables, beside an MLP
======================================

Four tables that come with scikit-learn are classified by an implicit model and by scikit-learn's MLP, both with their
defaults. The same folds of a cross-validation judge both; the MLP gets a scaler, and the implicit model needs none.

Functions: `idl_ref.ImplicitClassifier`. Page: :doc:`/estimators`.
"""

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import idl_ref

threadpool_limits(1)  # With one thread of BLAS, the MLP is fastest.
warnings.simplefilter("ignore", ConvergenceWarning)  # The MLP stops after 200 epochs, its default.

TABLES = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer, "digits": load_digits}
CONTESTANTS = {
    "implicit model": lambda: idl_ref.ImplicitClassifier(random_state=0),
    "MLP": lambda: make_pipeline(StandardScaler(), MLPClassifier(random_state=0)),
}

idl_ref.ImplicitClassifier(max_iter=1).fit(np.eye(3), [0, 1, 0])  # Compile before the first time is taken.
accuracy = {(table, name): [] for table in TABLES for name in CONTESTANTS}
seconds = dict.fromkeys(accuracy, 0.0)
for table, load in TABLES.items():
    X, y = load(return_X_y=True)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(X, y):
        for name, make in CONTESTANTS.items():
            start = time.process_time()
            estimator = make().fit(X[train], y[train])
            seconds[table, name] += time.process_time() - start
            accuracy[table, name].append(estimator.score(X[test], y[test]))

print(f"{'':15}{'implicit model':>22}{'MLP':>22}")
for table in TABLES:
    cells = [f"{np.mean(accuracy[table, n]):.3f}, {seconds[table, n]:6.2f} s" for n in CONTESTANTS]
    print(f"{table:15}{cells[0]:>22}{cells[1]:>22}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
for shift, name in ((-0.15, "implicit model"), (0.15, "MLP")):
    scores = np.array([accuracy[table, name] for table in TABLES])
    places = np.arange(len(TABLES)) + shift
    error = scores.std(axis=1, ddof=1) / 5**0.5
    left.errorbar(places, scores.mean(axis=1), error, fmt="o", capsize=4, label=name)
    right.bar(places, [seconds[table, name] for table in TABLES], 0.3, label=name)
for axes in (left, right):
    axes.set_xticks(range(len(TABLES)), TABLES)
left.set(ylabel="accuracy, 5 folds ± standard error", title="How often the class is right")
right.set(ylabel="CPU seconds for 5 folds", yscale="log", title="What the training takes")
left.legend(loc="lower right")
plt.show()

# %%
# The accuracies differ by less than their standard errors, and so the folds do not tell which model is better.

for table in TABLES:
    ours, peer = (np.mean(accuracy[table, name]) for name in CONTESTANTS)
    assert ours > peer - 0.02
assert sum(seconds[table, "implicit model"] for table in TABLES) < sum(seconds[table, "MLP"] for table in TABLES)
