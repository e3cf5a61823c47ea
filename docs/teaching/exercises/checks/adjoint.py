"""The checks of lesson 5."""

import tracemalloc

import numpy as np

from checks.common import Wrong, near, parts, solve, states, weights


def adjoint(f):
    A, ones = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.ones((2, 1))
    near(f(A, ones, ones), [[0.4], [1.2]], "for the example of the board V is (2/5, 6/5): is A transposed?")
    for seed in range(5):
        A, B, C, _ = weights(seed, 4, 3, 3)
        S = (A @ states(A, B) + B > 0).astype(float)
        truth = [solve(np.eye(4) - S[:, j, None] * A.T, S[:, j] * C[j]) for j in range(3)]
        near(
            f(A, S, C.T.copy()),
            np.transpose(truth),
            "V = S ∘ (Aᵀ V + G) does not hold: S multiplies the rows of Aᵀ, too",
        )


def gradients(f):
    A, B, C, D = weights(1, 4, 3, 2)
    U = weights(2, 1, 5, 3)[3]
    G_Y = np.array([[1.0, -0.5, 0.25, 1.0, 0.0], [0.5, 1.0, -1.0, 0.0, 2.0]])
    X = states(A, B @ U)
    S = (A @ X + B @ U > 0).astype(float)
    V = np.transpose([solve(np.eye(4) - S[:, j, None] * A.T, S[:, j] * (C.T @ G_Y)[:, j]) for j in range(5)])
    answer = f(B, D, U, X, V, G_Y)
    W = {"A": A, "B": B, "C": C, "D": D, "U": U}
    if not isinstance(answer, dict) or set(answer) != set(W):
        raise Wrong('it should return a dict with the names "A", "B", "C", "D" and "U"')
    for name in W:  # the loss ⟨G_Y, Y⟩ is linear in each of them on a small interval, so differences are right
        truth = np.zeros_like(W[name])
        for i in np.ndindex(truth.shape):
            losses = []
            for sign in (1, -1):
                changed = {key: value.copy() for key, value in W.items()}
                changed[name][i] += sign * 1e-5
                Z = changed["B"] @ changed["U"]
                losses.append(np.sum(G_Y * (changed["C"] @ states(changed["A"], Z) + changed["D"] @ changed["U"])))
            truth[i] = (losses[0] - losses[1]) / 2e-5
        near(answer[name], truth, f"∂{name} is not what differences of the loss say", 1e-6)


def low_rank(f):
    rng = np.random.default_rng(0)
    L, R, X, V = (
        rng.standard_normal((4, 2)),
        rng.standard_normal((4, 2)),
        rng.random((4, 3)),
        rng.standard_normal((4, 3)),
    )
    dense = V @ X.T
    dL, dR = parts(f(L, R, X, V), 2)
    near(dL, dense @ R, "∂L should be ∂A R where ∂A = V Xᵀ")
    near(dR, dense.T @ L, "∂R should be ∂Aᵀ L where ∂A = V Xᵀ")
    n = 1500
    tall = [rng.standard_normal((n, 2)) for _ in range(4)]
    tracemalloc.start()
    f(*tall)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if peak > 4 * n * n:
        raise Wrong(f"for n = {n} it needs {peak / 1e6:.0f} MB: an array of the size n × n was made; change the order")
