"""This module has independent oracles, which are slow and literal, and import nothing from the package under test."""

import math
from fractions import Fraction
from functools import reduce

import numpy as np

LEAK = 0.01
LONG_EPS = float(np.finfo(np.longdouble).eps)


# --- products and activations, one number at a time -------------------------------------------------------------------


def product(A, B):
    """Return A B by three loops, in Python floats."""
    C = np.zeros((len(A), B.shape[1]))
    for i in range(C.shape[0]):
        for j in range(C.shape[1]):
            for k in range(len(B)):
                C[i, j] += float(A[i, k]) * float(B[k, j])
    return C


def _sigmoid(p):
    """Return 1/(1 + exp(−p)) without overflow."""
    return 1 / (1 + math.exp(-p)) if p >= 0 else math.exp(p) / (1 + math.exp(p))


SCALAR = {  # For each name, φ and its slope as functions of one float.
    "identity": (lambda p: p, lambda p: 1.0),
    "relu": (lambda p: p if p > 0 else 0.0, lambda p: 1.0 if p > 0 else 0.0),
    "leaky_relu": (lambda p: p if p > 0 else LEAK * p, lambda p: 1.0 if p > 0 else LEAK),
    "tanh": (math.tanh, lambda p: 1 / math.cosh(p) ** 2),
    "sigmoid": (_sigmoid, lambda p: _sigmoid(p) * _sigmoid(-p)),
    "softplus": (lambda p: max(p, 0.0) + math.log1p(math.exp(-abs(p))), _sigmoid),
    "elu": (lambda p: p if p > 0 else math.expm1(p), lambda p: 1.0 if p > 0 else math.exp(p)),
    "hardtanh": (lambda p: min(max(p, -1.0), 1.0), lambda p: 1.0 if -1 < p < 1 else 0.0),
    "softsign": (lambda p: p / (1 + abs(p)), lambda p: 1 / (1 + abs(p)) ** 2),
}


def _mirror(P):
    """Return −P where the real part of P is negative, else P; for real P this is |P|."""
    return np.where(P.real < 0, -P, P)


def _positive(P):
    """Return P where its real part is positive, else 0."""
    return np.where(P.real > 0, P, 0)


VECTOR = {  # For each name, φ of an array, longdouble or complex; the real part selects the smooth piece.
    "identity": lambda P: P,
    "relu": _positive,
    "leaky_relu": lambda P: np.where(P.real > 0, P, LEAK * P),
    "tanh": np.tanh,
    "sigmoid": lambda P: np.where(P.real >= 0, 1, np.exp(-_mirror(P))) / (1 + np.exp(-_mirror(P))),
    "softplus": lambda P: _positive(P) + np.log1p(np.exp(-_mirror(P))),
    "elu": lambda P: np.where(P.real > 0, P, np.expm1(np.where(P.real > 0, 0, P))),
    "hardtanh": lambda P: np.where(P.real > 1, 1, np.where(P.real < -1, -1, P)),
    "softsign": lambda P: P / (1 + _mirror(P)),
}

LIPSCHITZ = {name: 0.25 if name == "sigmoid" else 1.0 for name in SCALAR}


# --- fixed points -----------------------------------------------------------------------------------------------------


def forward_truth(A, Z, activation, steps=20_000):
    """Solve X = φ(A X + Z) by Picard's iteration in longdouble, and bound the error of each column in the ∞-norm.

    In A (…, n, n) and Z (…, n, m), leading axes stand for independent equations. The bound is inf if Lip(φ) ‖A‖∞ ≥ 1.
    """
    A, Z = np.asarray(A, np.longdouble), np.asarray(Z, np.longdouble)
    kappa = LIPSCHITZ[activation] * np.abs(A).sum(axis=-1).max(axis=-1)[..., None]
    return _picard(lambda X: VECTOR[activation](A @ X + Z), Z, kappa, lambda E: np.abs(E).max(axis=-2), steps)


def adjoint_truth(A, S, G, steps=20_000):
    """Solve V = S ∘ (Aᵀ V + G) like `forward_truth`, and bound the error of each column in the 1-norm."""
    A, S, G = (np.asarray(M, np.longdouble) for M in (A, S, G))
    At = np.swapaxes(A, -1, -2)
    kappa = np.abs(S).max(axis=-2) * np.abs(A).sum(axis=-1).max(axis=-1)[..., None]
    return _picard(lambda V: S * (At @ V + G), G, kappa, lambda E: np.abs(E).sum(axis=-2), steps)


def _picard(g, Z, kappa, norm, steps):
    """Iterate X ← g(X) until the step stops shrinking, and bound the error of each column in the given norm."""
    X = np.zeros_like(Z)
    before, step = np.inf, 0.0
    for k in range(steps):
        X, last = g(X), X
        if k % 20 == 0:
            step = norm(X - last).max(initial=0.0)
            if step == 0 or (step >= before and k > 100):
                break
            before = step
    rounding = 8 * (Z.shape[-2] + 2) * LONG_EPS * (norm(X) + norm(Z))
    error = np.where(kappa < 1, (norm(g(X) - X) + rounding) / np.where(kappa < 1, 1 - kappa, 1), np.inf)
    return X, error.astype(float)


def rational_relu(A, z):
    """Return the exact solution of x = max(0, A x + z) as Fractions; it exists and is unique if ‖A‖∞ < 1.

    Murty's least-index rule assumes a set of positive entries, solves for them, and moves the first entry that
    contradicts the assumption into or out of the set.
    """
    n = len(z)
    A = [[Fraction(float(a)) for a in row] for row in A]
    z = [Fraction(float(v)) for v in z]
    positive = set()
    while True:
        x = _solve_positive(A, z, sorted(positive))
        p = [sum(a * v for a, v in zip(A[i], x, strict=True)) + z[i] for i in range(n)]
        wrong = [i for i in range(n) if (x[i] < 0 if i in positive else p[i] > 0)]
        if not wrong:
            assert x == [max(Fraction(0), v) for v in p]
            return x
        positive ^= {wrong[0]}


def rational_solve(M, b):
    """Solve M x = b by Gauss–Jordan elimination, in Fractions."""
    n = len(b)
    rows = [[*map(Fraction, M[i]), Fraction(b[i])] for i in range(n)]
    for i in range(n):
        pivot = next(k for k in range(i, n) if rows[k][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for k in range(n):
            if k != i and rows[k][i] != 0:
                factor = rows[k][i]
                rows[k] = [v - factor * w for v, w in zip(rows[k], rows[i], strict=True)]
    return [row[n] for row in rows]


def _solve_positive(A, z, rows):
    """Solve x = A x + z for the entries in `rows`; all other entries are 0."""
    x = [Fraction(0)] * len(z)
    solved = rational_solve([[int(i == j) - A[i][j] for j in rows] for i in rows], [z[i] for i in rows])
    for i, value in zip(rows, solved, strict=True):
        x[i] = value
    return x


def rational_adjoint(A, s, g):
    """Return the exact solution of v = s ∘ (Aᵀ v + g) as Fractions."""
    n = len(g)
    A, s, g = [[Fraction(float(a)) for a in row] for row in A], [*map(Fraction, map(float, s))], [*map(float, g)]
    M = [[int(i == j) - s[i] * A[j][i] for j in range(n)] for i in range(n)]
    return rational_solve(M, [s[i] * Fraction(g[i]) for i in range(n)])


# --- maps that keep A well posed, for real and for complex arrays -----------------------------------------------------


def _size(A):
    """Return |A|, and for complex A the branch that the real part selects."""
    return _mirror(np.asarray(A))


def scale_to_norm(A, kappa):
    """Return κ A / max(κ, ‖A‖∞)."""
    nu = max((sum(row) for row in _size(A)), key=lambda total: total.real)
    return A * (kappa / nu) if nu.real > kappa else A if kappa else 0 * A


def project_rows(A, kappa):
    """Project each row on the ℓ1 ball: remove entries from the support, smallest first, until all exceed θ."""
    A = np.array(A) if kappa else 0 * np.array(A)
    for i, row in enumerate(A.copy()):
        size = _size(row)
        if sum(size).real <= kappa:
            continue
        support = sorted(range(len(row)), key=lambda j: size[j].real)
        theta = (sum(size[j] for j in support) - kappa) / len(support)
        while len(support) > 1 and size[support[0]].real <= theta.real:
            del support[0]
            theta = (sum(size[j] for j in support) - kappa) / len(support)
        A[i] = 0
        for j in support:
            A[i, j] = (1 if row[j].real > 0 else -1) * (size[j] - theta)
    return A


def project_l1(a, kappa):
    """Return the nearest point of one row with Σ|a_j| ≤ κ, by bisection for θ."""
    size = np.abs(np.asarray(a, np.longdouble))
    if size.sum() <= kappa:
        return np.asarray(a, np.longdouble)
    low, high = np.longdouble(0), size.max()
    for _ in range(80):
        theta = (low + high) / 2
        low, high = (theta, high) if np.maximum(size - theta, 0).sum() > kappa else (low, theta)
    return np.sign(a) * np.maximum(size - high, 0)


def monotone(A, kappa):
    """Return κ I − Pᵀ P + Q − Qᵀ with P = √κ I − (upper triangle of A), and Q its strict lower triangle."""
    n = len(A)
    P = [[(kappa**0.5 if i == j else 0) - (A[i][j] if j >= i else 0) for j in range(n)] for i in range(n)]
    Q = [[A[i][j] if j < i else 0 for j in range(n)] for i in range(n)]
    return np.array(
        [
            [(kappa if i == j else 0) - sum(P[k][i] * P[k][j] for k in range(n)) + Q[i][j] - Q[j][i] for j in range(n)]
            for i in range(n)
        ]
    )


def perron_root(M):
    """Return the largest eigenvalue of M ≥ 0, as uᵀ M v/uᵀ v for eigenvectors of its real part, to first order in h."""
    left, right = (np.linalg.eig(N.real.astype(float)) for N in (M.T, M))
    u, v = (np.abs(vectors[:, values.real.argmax()]) for values, vectors in (left, right))
    return (u @ M @ v) / (u @ v)


def scale_to_root(factors, kappa):
    """Return A min(1, κ/λ), or L and Rᵀ times min(1, κ/√λ), where λ is the Perron root of |A| or of |L||Rᵀ|."""
    root = perron_root(reduce(np.matmul, [_size(F) for F in factors]))
    root = root if len(factors) == 1 else np.sqrt(root)
    return [F * (kappa / root) if root.real > kappa else F for F in factors]


CONSTRAINTS = {
    "inf": scale_to_norm,
    "rows": project_rows,
    "triu": lambda A, kappa: np.where(np.arange(A.shape[0])[:, None] < np.arange(A.shape[1]), A, 0),
    "none": lambda A, kappa: A,
}


# --- a whole model with unrolled iterations ---------------------------------------------------------------------------


def mse(Y, T):
    """Return the mean of (Y − T)², with samples as rows."""
    return sum((y - t) ** 2 for y, t in zip(Y.ravel(), np.asarray(T).ravel(), strict=True)) / max(Y.size, 1)


def cross_entropy(Y, labels):
    """Return the mean of log Σ exp y − y_label, with samples as rows."""
    total = 0
    for y, label in zip(Y, labels, strict=True):
        top = y[y.real.argmax()]
        total += np.log(np.exp(y - top).sum()) + top - y[label]
    return total / max(len(Y), 1)


LOSSES = {"mse": mse, "cross_entropy": cross_entropy}


def loss(parameters, U, targets, *, f, kappa, activation, loss, bias, steps):
    """Return the loss of a model with the given raw parameters, after `steps` Picard steps from 0.   U (m, p)

    The parameters are A, or L and R; B; C; and D if the model has one.
    """
    U = np.hstack([U, np.ones((len(U), 1))]) if bias else np.asarray(U)
    factors = [parameters["A"]] if "A" in parameters else [parameters["L"], parameters["R"].T]
    constraint = monotone if f == "monotone" else CONSTRAINTS.get(f)
    constrained = scale_to_root(factors, kappa) if f == "perron" else [constraint(F, kappa) for F in factors]
    A = reduce(np.matmul, constrained)
    Z = parameters["B"] @ U.T
    X = np.zeros_like(Z)
    for _ in range(steps):
        X = VECTOR[activation](A @ X + Z)
    Y = parameters["C"] @ X
    if "D" in parameters:
        Y = Y + parameters["D"] @ U.T
    return LOSSES[loss](Y.T, targets)


def gradients(parameters, U, targets, **same):
    """Return the derivatives of `loss` with respect to all parameters and to U (key "U"), by the complex step."""
    h = 1e-30
    inputs = {**parameters, "U": np.asarray(U)}
    result = {name: np.zeros(value.shape) for name, value in inputs.items()}
    for name, value in inputs.items():
        for entry in np.ndindex(*value.shape):
            moved = value.astype(complex)
            moved[entry] += 1j * h
            arguments = {**inputs, name: moved}
            result[name][entry] = loss(arguments, arguments.pop("U"), targets, **same).imag / h
    return result


def complex_step(function, P):
    """Return the derivative of an entrywise function at every entry of P, by the complex step."""
    h = 1e-30
    return function(np.asarray(P, float) + 1j * h).imag / h
