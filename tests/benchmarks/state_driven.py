"""Compare `analysis.sim.fit` with a general convex solver, on the problem that torchidl's CVX solves.

    python tests/benchmarks/state_driven.py      (needs cvxpy, clarabel and scikit-learn; about a minute)

The teacher is a 64-24-12-10 network for the digits. As torchidl does, the general solver takes one row after the other,
by cvxpy and Clarabel. Printed are its time, the best of five times of `fit`, which also computes the readout, and the
two objectives. One BLAS thread serves both best: set OPENBLAS_NUM_THREADS=1. The table of students on the page on
state-driven training comes first.
"""

import time
import warnings

import cvxpy as cp
import numpy as np
from sklearn.neural_network import MLPClassifier

import idl_ref
from idl_ref.analysis import sim

KAPPA = 0.99
STUDENTS = {}, {"penalty": 30}, {"penalty": 100}, {"penalty": 30, "penalty_B": 30}, {"rank": 4}


def main() -> None:
    warnings.simplefilter("ignore")
    x, y, x_test, y_test = idl_ref.datasets.digits()
    net = MLPClassifier((24, 12), max_iter=300, random_state=0).fit(x, y)
    states = sim.states([(W.T, b) for W, b in zip(net.coefs_, net.intercepts_, strict=True)], x)
    print(f"teacher: {100 * (net.predict(x_test) == y_test).mean():.1f} % of the test images")
    for settings in STUDENTS:
        student = sim.fit(states, KAPPA, **settings)
        nonzeros = {name: int(np.count_nonzero(W)) for name, W in student.parameters.items() if name in "ALR"}
        nonzeros["B"] = int(np.count_nonzero(student.parameters["B"][:, :-1]))
        right = 100 * (student(x_test).argmax(axis=1) == y_test).mean()
        print(f"student with {settings or 'no penalty'}: nonzeros {nonzeros}, {right:.1f} %")
    X, Z = (np.asarray(M, float) for M in (states.X, states.Z))
    V = np.vstack([np.asarray(states.U, float), np.ones(X.shape[1])])
    for penalty, penalty_B in ((0, 0), (30, 0), (30, 30)):
        ours = min((timed(sim.fit, states, KAPPA, penalty, penalty_B=penalty_B) for _ in range(5)), key=lambda r: r[0])
        theirs = timed(lambda *p: sum(row(z, X, V, *p) for z in Z), penalty, penalty_B)
        A, B = ours[1].parameters["A"].astype(float), ours[1].parameters["B"].astype(float)
        residual = A @ X + B @ V - Z
        objective = 0.5 * (residual**2).sum() + penalty * np.abs(A).sum() + penalty_B * np.abs(B[:, :-1]).sum()
        print(
            f"penalties {penalty:2}, {penalty_B:2}: fit {ours[0]:.3f} s, CVX {theirs[0]:.2f} s, "
            f"{theirs[0] / ours[0]:.0f} times; objectives {objective:.9g}, {theirs[1]:.9g}"
        )


def row(z, X, V, penalty, penalty_B):
    """Return the smallest objective of one row."""
    a, b = cp.Variable(len(X)), cp.Variable(len(V))
    objective = 0.5 * cp.sum_squares(X.T @ a + V.T @ b - z) + penalty * cp.norm(a, 1) + penalty_B * cp.norm(b[:-1], 1)
    return cp.Problem(cp.Minimize(objective), [cp.norm(a, 1) <= KAPPA]).solve(solver=cp.CLARABEL)


def timed(function, *arguments, **options):
    started = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
