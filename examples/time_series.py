"""
A time series by an implicit RNN, beside an MLP and two linear rules
====================================================================

How will a chaotic series go on? The series of Mackey and Glass, a model of the number of white blood cells, follows

.. math:: \\dot s(t) = \\frac{0.2\\, s(t - 17)}{1 + s(t - 17)^{10}} - 0.1\\, s(t).

It is observed once per unit of time, with noise of 5 % of its standard deviation. From 24 values in a row, four
contestants predict the value twelve steps later: an implicit RNN, which reads one value per time step; an MLP of
scikit-learn, and a linear rule, which get all 24 values at once; and the rule that nothing changes.

Class: `idl_ref.analysis.ImplicitRNN`. Page: :doc:`/recurrent`. Series: Mackey and Glass, Oscillation and Chaos in
Physiological Control Systems, Science 197 (1977).
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from idl_ref import Adam
from idl_ref.analysis import ImplicitRNN

threadpool_limits(1)
STEP, DELAY = 0.1, 170  # The delay is 17, in steps of Euler's method.
WINDOW, AHEAD, TRAINED = 24, 12, 1500

s = [1.2] * (DELAY + 1)
for _ in range(30_000):
    s.append(s[-1] + STEP * (0.2 * s[-1 - DELAY] / (1 + s[-1 - DELAY] ** 10) - 0.1 * s[-1]))
series = np.array(s[5000::10])  # once per unit of time, after the beginning
series = (series - series.mean()) / series.std()
series += 0.05 * np.random.default_rng(0).standard_normal(len(series))

windows = np.lib.stride_tricks.sliding_window_view(series, WINDOW + AHEAD)
X, y = windows[:, :WINDOW], windows[:, -1]
X_test, y_test = X[TRAINED + WINDOW + AHEAD :], y[TRAINED + WINDOW + AHEAD :]  # These share no value with the others.
X, y = X[:TRAINED], y[:TRAINED]

rnn = ImplicitRNN(1, 1, implicit_hidden_dim=32, hidden_dim=16, bias=True, kappa=0.9, seed=0)
optimizer = Adam(0.02, schedule="cosine", clip=1.0)
rnn.fit(X[:, :, None], y[:, None], loss="mse", optimizer=optimizer, epochs=25, batch_size=64, progress=False)

predictions = {
    "implicit RNN": rnn(X_test[:, :, None])[:, 0],
    "MLP": MLPRegressor(random_state=0, max_iter=500).fit(X, y).predict(X_test),
    "linear in the 24 values": Ridge(1e-3).fit(X, y).predict(X_test),
    "nothing changes": X_test[:, -1],
}
error = {name: np.sqrt(np.square(found - y_test).mean()) for name, found in predictions.items()}
print(f"{'':26}error, of the standard deviation")
for name, value in error.items():
    print(f"{name:26}{value:8.3f}")

figure, axes = plt.subplots(figsize=(9, 4))
time = np.arange(200)
axes.plot(time, y_test[:200], color="gray", linewidth=4, alpha=0.5, label="observed")
for name in ("implicit RNN", "linear in the 24 values"):
    axes.plot(time, predictions[name][:200], linewidth=1.2, label=name)
axes.set(xlabel="time", ylabel="s, in standard deviations", ylim=(-3.4, 2.2), title="A chaotic series, 12 steps ahead")
axes.legend(loc="lower left", ncols=3)
plt.show()

# %%
# The noise alone is an error of 0.05, which nobody can predict. The implicit RNN comes nearest to it, with 2,417
# weights; the MLP has 2,601. Every prediction of the RNN has a status and an error bound for each of its 24 time steps.

assert error["implicit RNN"] < error["MLP"] < error["linear in the 24 values"] < error["nothing changes"]
assert error["implicit RNN"] < 0.09
assert sum(W.size for W in rnn.parameters.values()) == 2417
assert rnn.trajectory(X_test[:, :, None]).converged
