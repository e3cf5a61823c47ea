"""Models whose gradients are right but hard to check, and planted errors; `python tests/gradient_cases.py 2000` sweeps.

Without planted errors, `check_gradients` may never say "WRONG"; with one, it may never say "ok".
"""

import sys
import warnings
from collections import Counter
from contextlib import contextmanager
from itertools import islice

import numpy as np

from idl_ref import (
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
    activations,
    check_gradients,
    factors,
    wellposed,
)
from idl_ref.derivatives import doubled
from idl_ref.solution import NotConvergedError
from idl_ref.weights import as_factors

FUNCTIONS = (ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitFunction)


# --- right models -----------------------------------------------------------------------------------------------------


def draw(rng, backend="numpy"):
    """Return a random model, inputs, targets and a loss."""
    f = FUNCTIONS[rng.integers(4)]
    activation = rng.choice(list(activations.TABLE))
    n, p, q, m = rng.integers(1, 13), rng.integers(1, 6), rng.integers(1, 5), rng.integers(1, 7)
    low_rank = bool(f.low_rank and rng.random() < 0.3)
    limit = (1 / activations.get(activation).lipschitz) ** (0.5 if low_rank else 1)
    model = ImplicitModel(
        p,
        q,
        n,
        f,
        no_D=bool(rng.random() < 0.3),
        bias=bool(rng.random() < 0.5),
        kappa=limit * rng.choice([0.5, 0.9, 0.99]),
        is_low_rank=low_rank,
        rank=rng.integers(1, n + 1) if low_rank else None,
        activation=activation,
        dtype=rng.choice(["float32", "float64"]),
        seed=rng.integers(1 << 30),
        backend=backend,
        on_failure="ignore",
    )
    for F in as_factors(model.parameters):
        if f is not ImplicitFunction:
            F *= rng.choice([0.5, 2, 8, 100])
    loss = rng.choice(["cross_entropy", "mse"])
    U = rng.standard_normal((m, p))
    return model, U, rng.integers(0, q, m) if loss == "cross_entropy" else rng.standard_normal((m, q)), loss


def confident(rng, model, U, T, loss):
    """Let a classifier be right with probability 1 − 1e-5 … 1 − 1e-300."""
    model.parameters["C"][...] *= 10 ** rng.uniform(1, 2.5)
    if loss == "cross_entropy":
        T = model(U).argmax(axis=1)
    return model, U, T, loss


def large_inputs(rng, model, U, T, loss):
    return model, U * 100, T, loss


def deep(rng, model, U, T, loss):
    """Let the raw A be 120 times as large, so that a triangular one has a huge resolvent."""
    for F in as_factors(model.parameters):
        if model.f is not ImplicitFunction:
            F *= 120
    return model, U, T, loss


def zeros(rng, model, U, T, loss):
    """Set inputs, samples and parameters to 0, so that arguments of φ and entries of A lie at kinks."""
    for value in (*model.parameters.values(), U):
        value[rng.random(value.shape) < rng.choice([0.1, 0.5])] = 0
    if rng.random() < 0.5:
        U[rng.integers(len(U))] = 0
    return model, U, T, loss


def integers(rng, model, U, T, loss):
    """Let parameters and inputs be multiples of 1/4, so that arguments of φ vanish by cancellation, and rows tie."""
    for name, value in model.parameters.items():
        if not (name in "ALR" and model.f is ImplicitFunction):
            value[...] = np.round(4 * value) / 4
    return model, np.round(2 * U) / 2, T, loss


def at_the_ball(rng, model, U, T, loss):
    """Let every row lie on the boundary of the ball, as training with projections leaves it."""
    if model.f.constrains:
        for name, F in zip(("A",) if "A" in model.parameters else "LR", as_factors(model.parameters), strict=True):
            rows = F * (model.kappa / np.maximum(np.abs(F).sum(axis=1, keepdims=True), 1e-9))
            if rng.random() < 0.5:
                rows = wellposed.project_rows(8 * F, model.kappa)
            model.parameters[name][...] = rows.T if name == "R" else rows
    return model, U, T, loss


def slow(rng, model, U, T, loss):
    """Let the nonnegative weights have a Perron root near 1/Lip(φ), so that the resolvent is large."""
    if "A" in model.parameters and model.f is not ImplicitFunctionTriu:
        A = np.abs(model.parameters["A"]) + 0.01
        A *= (
            (1 - 10 ** rng.uniform(-5, -2)) / activations.get(model.activation).lipschitz / A.sum(axis=1, keepdims=True)
        )
        model.parameters["A"][...] = A
        model.parameters["B"][...] = np.abs(model.parameters["B"])
    return model, np.abs(U), T, loss


def optimal(rng, model, U, T, loss):
    """Let the outputs be almost the targets, so that the gradient is a difference of almost equal numbers."""
    if loss == "mse":
        T = model(U) * (1 + 10 ** rng.uniform(-12, -3))
    return model, U, T, loss


def graded(rng, model, U, T, loss):
    """Give rows and inputs very different sizes."""
    model.parameters["B"][...] *= 10 ** rng.uniform(-4, 4, (model.hidden_dim, 1))
    model.parameters["C"][...] *= 10 ** rng.uniform(-3, 3, (model.output_dim, 1))
    return model, U * 10 ** rng.uniform(-2, 2, (len(U), 1)), T, loss


def plain(rng, model, U, T, loss):
    return model, U, T, loss


KINDS = (plain, confident, large_inputs, deep, zeros, integers, at_the_ball, slow, optimal, graded)


# --- planted errors ---------------------------------------------------------------------------------------------------


def entry(rng, name, gradients, model):
    """Change a single entry by 1e-3 of the largest one."""
    G = gradients[name]
    flat = rng.integers(G.size)
    sign = rng.choice([-1, 1])

    def wrong(G):
        G.flat[flat] += sign * 1e-3 * np.abs(G).max()

    return wrong


def row(rng, name, gradients, model):
    """Negate a row."""
    i = rng.choice(np.flatnonzero(np.abs(gradients[name]).max(axis=1)))

    def wrong(G):
        G[i] *= -1

    return wrong


def scaled(rng, name, gradients, model):
    factor = rng.choice([1.1, 1.001, 0.5, -1, 0])

    def wrong(G):
        G *= factor

    return wrong


def column(rng, name, gradients, model):
    """Forget a column."""
    j = rng.choice(np.flatnonzero(np.abs(gradients[name]).max(axis=0)))

    def wrong(G):
        G[:, j] = 0

    return wrong


def permuted(rng, name, gradients, model):
    """Exchange two entries, the sum of which is right."""
    one, other = rng.integers(gradients[name].size, size=2)

    def wrong(G):
        G.flat[[one, other]] = G.flat[[other, one]]

    return wrong


PLANTS = (entry, entry, row, row, scaled, column, permuted)
FORMULAS = (
    (factors, "gradients", lambda F, X, V: tuple(G.T if G.shape[0] == G.shape[1] else 2 * G for G in RIGHT(F, X, V))),
    (ImplicitFunctionInf, "_pull", lambda f, F, G: G),
    (ImplicitFunctionRows, "_pull", lambda f, F, G: G),
    (ImplicitFunctionTriu, "_pull", lambda f, F, G: G),
    (ImplicitFunctionInf, "_pull", lambda f, F, G: G * (f.kappa / max(f.kappa, wellposed.norm_inf(F)))),
)
RIGHT = factors.gradients


@contextmanager
def planted(name, wrong):
    """Let every model return the wrong gradient of one parameter."""
    right = ImplicitModel._gradients

    def patched(*arguments):
        gradients = right(*arguments)
        G = gradients[name] = np.array(gradients[name])
        wrong(G)
        return gradients

    ImplicitModel._gradients = patched
    try:
        yield
    finally:
        ImplicitModel._gradients = right


@contextmanager
def formula(owner, attribute, wrong):
    """Replace one function of the backward code."""
    right = owner.__dict__[attribute]
    setattr(owner, attribute, wrong)
    try:
        yield
    finally:
        setattr(owner, attribute, right)


# --- the sweep --------------------------------------------------------------------------------------------------------


def cases(seed, kinds=KINDS, backend="numpy"):
    """Draw models whose equations converge, for ever, with a generator for the rest of each case."""
    while True:
        rng = np.random.default_rng(seed)
        kind = kinds[seed % len(kinds)]
        model, U, T, loss = kind(rng, *draw(rng, backend))
        if model.equilibrium(U).converged:
            yield seed, kind, rng, (model, U, T, loss)
        seed += 1


def report(model, U, T, loss, entries=2):
    """Return the report, or None if an equation does not converge in float64."""
    try:
        return check_gradients(model, U, T, loss=loss, entries=entries)
    except NotConvergedError:
        return None


def exact_gradients(model, U, T, loss):
    """Return the gradients in float64 with tol = 0."""
    return doubled(model).loss_and_gradients(U, T, loss)[1]


def sweep_right(count, seed=0, backend="numpy"):
    """Return how often each verdict was given for right models, and the seeds of the wrong verdicts."""
    verdicts, alarms = Counter(), []
    for case_seed, kind, _, case in islice(cases(seed, backend=backend), count):
        found = report(*case)
        verdict = "not converged" if found is None else found.verdict
        verdicts[kind.__name__, verdict] += 1
        if verdict == "WRONG":
            alarms.append(case_seed)
    return verdicts, alarms


def draw_plant(rng, right, model):
    """Return a label and a context that plants an error; None if the gradient that was drawn is 0."""
    if rng.random() < 0.2:
        return "formula", formula(*FORMULAS[rng.integers(len(FORMULAS))])
    name = rng.choice(list(right))
    if not np.any(right[name]):
        return None
    maker = PLANTS[rng.integers(len(PLANTS))]
    return maker.__name__, planted(name, maker(rng, name, right, model))


def planted_reports(seed, backend="numpy"):
    """Plant errors for ever; return the seed, the label, the names of the wrong gradients, and the report of each."""
    for case_seed, _, rng, case in cases(seed, backend=backend):
        try:
            right = exact_gradients(*case)
            plant = draw_plant(rng, right, case[0])
            if plant is None:
                continue
            with plant[1]:
                wrong, found = exact_gradients(*case), report(*case)
        except NotConvergedError:
            continue
        changed = [name for name, G in right.items() if np.abs(wrong[name] - G).max() > 1e-9 * np.abs(G).max()]
        if changed and found is not None:
            yield case_seed, plant[0], changed, found


def sweep_planted(count, seed=0, backend="numpy"):
    """Return how often each verdict was given for a planted error, and the seeds of those that passed."""
    verdicts, missed = Counter(), []
    for case_seed, label, changed, found in islice(planted_reports(seed, backend), count):
        passed = found.passed or any(row.name in changed and row.verdict == "ok" for row in found.rows)
        verdicts[label, "ok" if passed else found.verdict] += 1
        if passed:
            missed.append(case_seed)
    return verdicts, missed


if __name__ == "__main__":
    count = int(sys.argv[1])
    backend = sys.argv[2] if len(sys.argv) > 2 else "numpy"
    warnings.simplefilter("error", RuntimeWarning)
    for sweep in (sweep_right, sweep_planted):
        verdicts, seeds = sweep(count, backend=backend)
        print(sweep.__name__, seeds)
        for key in sorted(verdicts):
            print("   ", *key, verdicts[key])
