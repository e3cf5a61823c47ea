"""
Regression in the units of the targets
======================================

The progression of diabetes, between 25 and 346, is predicted from ten measurements. The estimator trains with targets
that have mean 0 and a standard deviation near 1, and folds both numbers into C and D afterwards, so that its model
answers in the units of the targets. An MLP with its defaults ends its 200 epochs before its outputs have the size of
the targets; a scaler around it mends that.

Functions: `idl_ref.ImplicitRegressor`. Page: :doc:`/estimators`.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import idl_ref

threadpool_limits(1)  # With one thread of BLAS, the MLP is fastest.
warnings.simplefilter("ignore", ConvergenceWarning)  # The MLP stops after 200 epochs, its default.

X, y = load_diabetes(return_X_y=True)
mlp = make_pipeline(StandardScaler(), MLPRegressor(random_state=0))
contestants = {
    "implicit model": idl_ref.ImplicitRegressor(random_state=0),
    "MLP": mlp,
    "MLP, scaled targets": TransformedTargetRegressor(mlp, transformer=StandardScaler()),
}
folds = KFold(5, shuffle=True, random_state=0)

R2 = {}
print(f"{'':22}{'R², 5 folds':>16}")
for name, estimator in contestants.items():
    scores = cross_val_score(estimator, X, y, cv=folds)
    R2[name] = scores.mean()
    print(f"{name:22}{scores.mean():8.3f} ± {scores.std(ddof=1) / 5**0.5:.3f}")

figure, panels = plt.subplots(1, 3, figsize=(11, 3.9), sharex=True, sharey=True)
for axes, (name, estimator) in zip(panels, contestants.items(), strict=True):
    axes.plot(y, cross_val_predict(estimator, X, y, cv=folds), ".", alpha=0.5)
    axes.plot([25, 346], [25, 346], color="gray", linestyle=":")
    axes.set(title=f"{name}, R² = {R2[name]:.2f}", xlabel="progression")
panels[0].set_ylabel("prediction for a fold left out")
plt.show()

# %%
# Units do not matter, because the targets are trained in units of their own. The model inside the estimator gives the
# answers by itself, and so do its file and its exports.

regressor = contestants["implicit model"].fit(X, y)
in_thousandths = idl_ref.ImplicitRegressor(random_state=0).fit(X, 1000 * y)
print(f"R² of both on the samples of the training: {regressor.score(X, y):.3f}", end=", ")
print(f"{in_thousandths.score(X, 1000 * y):.3f}")

assert R2["implicit model"] > 0.4 > 0 > R2["MLP"]
assert np.array_equal(regressor.model_(X)[:, 0], regressor.predict(X))
assert abs(regressor.score(X, y) - in_thousandths.score(X, 1000 * y)) < 0.05
