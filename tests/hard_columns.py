"""Columns that are hard on statuses and error bounds, their solutions in longdouble, and what counts as a wrong answer.

One entry of z may be huge, rows and columns may have very different sizes, numbers may be subnormal, κ may be 1 − 1e-15
or above 1 with a Perron root below 1, and the start may be far from the solution. As a program, the file counts wrong
answers of one twin:

    python tests/hard_columns.py --backend numba --columns 100000 --certificate sharp
"""

import argparse
import time
import warnings
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from naive import LIPSCHITZ, LONG_EPS, VECTOR

from idl_ref import SolveOptions, solve_adjoint, solve_equilibrium
from idl_ref.activations import get
from idl_ref.backends import methods
from idl_ref.solution import Status

WIDTHS = {"tanh": 2.0, "hardtanh": 2.0, "softsign": 2.0, "sigmoid": 1.0}  # of the range of φ, where it is bounded
KAPPAS = (0.5, 0.9, 0.99, 0.999, 1 - 1e-6, 1 - 1e-9, 1 - 1e-15)
METHODS = ("auto", "auto", "picard", "anderson", "newton")
TOLERANCES = (3e-6, 1e-3, 1e-9, 1e-12, 0.0)
LIMITS = (30, 300, 1000, 5000)
WRONG, BELOW, GIVEN_UP = "success with a wrong answer", "bound below the error", "given up where Newton succeeds"


class Case(NamedTuple):
    """An equation with some columns, forward (S is None) or adjoint, and how to solve it."""

    A: np.ndarray
    S: np.ndarray | None
    Z: np.ndarray
    X0: np.ndarray | None
    activation: str
    options: SolveOptions

    def solve(self, backend, **changes):
        options = replace(self.options, **changes)
        if self.S is not None:
            return solve_adjoint(self.A, self.S, self.Z, V0=self.X0, options=options, backend=backend)
        return solve_equilibrium(
            self.A, self.Z, activation=self.activation, X0=self.X0, options=options, backend=backend
        )


# --- equations --------------------------------------------------------------------------------------------------------


def with_rows(A, kappa):
    return A * (kappa / np.maximum(np.abs(A).sum(axis=1, keepdims=True), 1e-30))


def outside_the_ball(rng, n, kappa):
    """‖A‖∞ may be above 1, and the Perron root is below."""
    d = 10.0 ** rng.integers(-4, 5, n)
    return with_rows(rng.standard_normal((n, n)), min(kappa, 0.999)) * d[:, None] / d


MATRICES = (
    lambda rng, n, kappa: with_rows(rng.standard_normal((n, n)), kappa),
    lambda rng, n, kappa: with_rows(rng.random((n, n)), kappa),
    lambda rng, n, kappa: with_rows(rng.random((n, n)) * (rng.random((n, n)) < 0.4), kappa),
    lambda rng, n, kappa: kappa * np.eye(n)[rng.permutation(n)],
    lambda rng, n, kappa: -kappa * np.eye(n)[rng.permutation(n)],
    lambda rng, n, kappa: kappa * np.roll(np.eye(n), 1, axis=0) * rng.choice([-1, 1], n),
    lambda rng, n, kappa: np.diag(rng.uniform(-kappa, kappa, n)),
    lambda rng, n, kappa: np.triu(rng.standard_normal((n, n)), 1) * rng.choice([1, 10]),
    outside_the_ball,
)


def constant_terms(rng, n, m):
    """Columns z of many kinds.   (n, m)"""
    Z = rng.standard_normal((n, m)) * 10.0 ** rng.integers(-2, 3, m)
    for j, kind in enumerate(rng.integers(8, size=m)):
        if kind == 0:
            Z[rng.integers(n), j] = 10.0 ** rng.integers(3, 9) * rng.choice([-1, 1])
        elif kind == 1:
            Z[:, j] *= 10.0 ** rng.integers(-8, 8, n)
        elif kind == 2:
            Z[:, j] *= 10.0 ** rng.choice([-20.0, -30.0, -38.0, -40.0, -300.0, -310.0])
        elif kind == 3:
            Z[:, j] = 0
        elif kind == 4:
            Z[:, j] = np.abs(Z[:, j])
        elif kind == 5:
            Z[rng.random(n) < 0.5, j] = 0
    return Z


def draw(rng, m):
    """Draw an equation with m columns."""
    activation, n, dtype = rng.choice(list(WIDTHS | LIPSCHITZ)), int(rng.integers(1, 9)), rng.choice(["f4", "f8"])
    kappa = rng.choice(KAPPAS) / LIPSCHITZ[activation]
    A, Z = MATRICES[rng.integers(len(MATRICES))](rng, n, kappa).astype(dtype), constant_terms(rng, n, m).astype(dtype)
    S = np.abs(np.clip(rng.standard_normal((n, m)), -1, 1)).astype(dtype) if rng.random() < 0.25 else None
    start = (rng.standard_normal((n, m)) * 10.0 ** rng.integers(-3, 6, m)).astype(dtype)
    numbers = {"tol": float(rng.choice(TOLERANCES)), "max_iter": int(rng.choice(LIMITS))}
    options = SolveOptions(method=rng.choice(METHODS), on_failure="ignore", **numbers)
    return Case(A, S, Z, start if rng.random() < 0.3 else None, str(activation), options)


# --- the truth --------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """One column of an equation, x = s ∘ f(F x + z), in longdouble."""

    F: np.ndarray
    s: np.ndarray
    z: np.ndarray
    f: str
    resolvent: np.ndarray  # (I − Lip(f) diag(s) |F|)⁻¹ ≥ 0; (n, n) float64

    def g(self, x):
        return self.s * VECTOR[self.f](self.F @ x + self.z)

    def rounding(self, x, unit):
        """What rounding may add to each row of a residual; `unit` is the relative error of an operation."""
        size = LIPSCHITZ[self.f] * self.s * (np.abs(self.F) @ np.abs(x) + np.abs(self.z))
        return ((len(x) + 20) * unit * (size + np.abs(self.g(x)))).astype(float)


def column(case, j):
    """Column j of a case, or None where the Perron root of Lip(f) diag(s) |F| is not safely below 1."""
    A, n = case.A.astype(np.longdouble), len(case.A)
    F, f = (A, case.activation) if case.S is None else (A.T, "identity")
    s = np.ones(n) if case.S is None else case.S[:, j].astype(float)
    size = (LIPSCHITZ[f] * s[:, None] * np.abs(F)).astype(float)
    if not np.abs(np.linalg.eigvals(size)).max() < 1 - 1e-14:
        return None
    resolvent = np.linalg.inv(np.eye(n) - size)
    if not (resolvent >= -1e-12 * np.abs(resolvent).max()).all():
        return None
    return Column(F, s.astype(np.longdouble), case.Z[:, j].astype(np.longdouble), f, np.maximum(resolvent, 0))


def truth(c, x):
    """The solution of a column by Newton's method from x, and a bound of its own error, row by row."""
    slope, last = get(c.f).slope, np.inf
    for k in range(200):
        residual = c.g(x) - x
        size = np.abs(residual).max()
        if size == 0 or (k > 60 and not size < 0.9 * last):
            break
        T = (c.s * slope((c.F @ x + c.z).astype(float))).astype(float)
        step = np.linalg.solve(np.eye(len(x)) - T[:, None] * c.F.astype(float), (residual / size).astype(float))
        trial = x + size * step
        better, last = np.abs(c.g(trial) - trial).max() < 0.9 * size, size
        x = trial if better else c.g(x)
    residual = np.abs(c.g(x) - x).astype(float)
    return x, c.resolvent @ (residual + c.rounding(x, LONG_EPS))


def faults(case, solution, j, x, uncertainty, c):
    """What is wrong with the answer of column j, whose solution is x."""
    X = solution.X[:, j].astype(np.longdouble)
    if not np.isfinite(X).all():
        return
    error, eps = np.abs(X - x).astype(float), float(np.finfo(case.Z.dtype).eps)
    tiny, z_norm = float(np.finfo(case.Z.dtype).tiny), float(np.abs(c.z).max())
    if solution.status[j] <= Status.PRECISION_LIMIT:
        tol = case.options.tol * min(1.0, z_norm)
        rho = c.rounding(np.maximum(np.abs(x), np.abs(X)), eps / 2) + tiny * eps * (len(x) + 4)
        if c.f in WIDTHS:
            rho = np.minimum(rho, WIDTHS[c.f])
        if (error > c.resolvent @ (2 * tol + 16 * rho + tiny) + uncertainty).any():
            yield WRONG
    error, uncertainty = (v.max() if case.S is None else v.sum() for v in (error, uncertainty))
    if error > solution.error_bound[j] * (1 + 1e-6) + uncertainty:
        yield BELOW


def given_up(case, solution, backend):
    """The columns that "auto" gives up, and that Newton's method solves in the applications reserved for it."""
    if case.options.method != "auto" or not (solution.status == Status.MAX_ITER).any():
        return []
    newton, limit = case.solve(backend, method="newton"), case.options.max_iter
    solved = (newton.status <= Status.PRECISION_LIMIT) & (newton.iterations <= limit - methods.enough(limit))
    return np.flatnonzero(solved & (solution.status == Status.MAX_ITER))


def count(backend, columns, seed, certificate="fast", m=40):
    """Count the statuses and the faults of the answers to so many columns, and list the faulty cases."""
    rng, counts, found = np.random.default_rng(seed), Counter(), []
    for _ in range(-(-columns // m)):
        case = draw(rng, m)
        try:
            solution = case.solve(backend, certificate=certificate)
        except ValueError:  # A method that does not fit the matrix is refused.
            counts["refused"] += m
            continue
        for j in range(m):
            counts[Status(solution.status[j]).name] += 1
            if (c := column(case, j)) is None:
                counts["Perron root not below 1"] += 1
                continue
            X = solution.X[:, j].astype(np.longdouble)
            x, uncertainty = truth(c, X if np.isfinite(X).all() else np.zeros_like(X))
            if not np.isfinite(uncertainty).all():
                counts["no truth"] += 1
                continue
            counts["judged"] += 1
            found += [(fault, case, j) for fault in faults(case, solution, j, x, uncertainty, c)]
        found += [(GIVEN_UP, case, j) for j in given_up(case, solution, backend) if column(case, j) is not None]
    counts.update(fault for fault, _, _ in found)
    return counts, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="numba")
    parser.add_argument("--columns", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--certificate", default="fast")
    arguments, start = parser.parse_args(), time.time()
    warnings.simplefilter("ignore")
    counts, found = count(arguments.backend, arguments.columns, arguments.seed, arguments.certificate)
    for fault, case, j in found[:3]:
        print(fault, case.options, case.activation, case.A.tolist(), case.Z[:, j].tolist(), sep="\n  ")
    print(arguments.backend, arguments.certificate, dict(counts), f"{time.time() - start:.0f} s")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
