"""The iterates X ← φ(F X + Z) of plain iteration in float64, and where rules other than the right one stop it."""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.conformance.judge.steps import Steps
from idl_ref.conformance.truth.bounds import unit
from idl_ref.conformance.truth.problem import Case

NUMBERS = 500_000  # the largest number of floats that the iterates of one equation may take
SMALL = 100_000  # floats; of equations whose iterates take no more, and of others, so many are kept:
KEPT, KEPT_LARGE = 1024, 4
LONGEST = 3000  # the largest number of iterates that are computed


@dataclass(frozen=True, eq=False)
class Path:
    """The iterates X₀ … X_K, what stops them, and the sizes of the steps X₁ − X₀ ….

    `noise` is what rounding explains of each step, and `size` is ‖z‖∞ of each column; `inputs` is that of B U, also
    in the adjoint.
    """

    X: np.ndarray  # (K + 1, n, m)
    step: np.ndarray  # (K, n, m)
    noise: np.ndarray  # (K, n, m)
    size: np.ndarray  # (m,)
    tol: float
    limit: int
    inputs: np.ndarray  # (m,)
    dtype: np.dtype
    done: dict[Rule, np.ndarray] = field(default_factory=dict)  # what `stopped` has found


Paths = OrderedDict[tuple[Case, str], Path]  # the one that was asked for last comes last
_small, _large = Paths(), Paths()


def path(case: Case, what: str) -> Path:
    """The iterates of the "equation" or the "adjoint" equation of a case, until they do not move any more.

    A search asks for those of one case once for each rule, and then for those of all cases.
    """
    for paths in (_small, _large):
        if (case, what) in paths:
            paths.move_to_end((case, what))
            return paths[case, what]
    found = _path(case, what)
    paths, most = (_small, KEPT) if found.X.size <= SMALL else (_large, KEPT_LARGE)
    paths[case, what] = found
    if len(paths) > most:
        paths.popitem(last=False)
    return found


def _path(case: Case, what: str) -> Path:
    s = Steps(case)
    F, Z, scale = (s.F, s.Z, None) if what == "equation" else (s.Ft, s.G, s.S)
    start = s.X0 if what == "equation" and s.X0 is not None else np.zeros_like(Z)
    length = max(1, min(case.problem.max_iter, LONGEST, NUMBERS // max(Z.size, 1)))
    phi, floor = s.activation.phi, unit(case.problem.storage).floor
    slopes = s.activation.lipschitz if scale is None else scale
    iterates = [start]
    for k in range(length):
        P = fac.apply(F, iterates[-1])
        G = phi(P + Z) if scale is None else scale * (P + Z)
        iterates.append(G)
        if k % 8 == 7 and (np.abs(G - iterates[-2]) <= 1e-16 * np.abs(G)).all():  # The test takes longer than a step.
            break
    X = np.array(iterates)
    sizes, each = tuple(map(np.abs, F)), np.abs(X[1:])
    noise = floor * (slopes * (fac.apply(sizes, each) + np.abs(Z)) + each)
    step, size = np.abs(np.diff(X, axis=0)), np.abs(Z).max(axis=0, initial=0.0)
    inputs = np.abs(s.Z).max(axis=0, initial=0.0)
    return Path(X, step, noise, size, case.problem.tol, case.problem.max_iter, inputs, case.problem.dtype)


# --- stopping rules: from the steps of a path, whether each column may stop after each of them ------------------------

Rule = Callable[[Path], np.ndarray]  # -> (K, m) bool


def _allowed(p: Path) -> np.ndarray:
    """What the right rule allows of each step.   (K, n, m)"""
    return np.maximum(p.tol * np.minimum(1, p.size), p.noise)


def right(p: Path) -> np.ndarray:
    """Each column stops when every entry of its step is allowed."""
    return np.all(p.step <= _allowed(p), axis=1)


def no_less_than(least: Callable[[Path], Any]) -> Rule:
    """A rule that allows steps of at least some size, whatever tol is."""
    return lambda p: (p.step <= np.maximum(_allowed(p), least(p))).all(axis=1)


def by_norm(norm: Callable[[np.ndarray], np.ndarray]) -> Rule:
    """A rule that compares a norm of the step of a column with the same norm of what is allowed."""
    return lambda p: norm(p.step) <= norm(_allowed(p))


def over_batch(reduce: Callable[[np.ndarray], np.ndarray]) -> Rule:
    """A rule that compares one number for the whole batch, made from the largest step of each column."""

    def rule(p: Path) -> np.ndarray:
        step, allowed = p.step.max(axis=1, initial=0.0), _allowed(p).max(axis=1, initial=0.0)
        return np.repeat((reduce(step) <= reduce(allowed))[:, None], step.shape[1], axis=1)

    return rule


def any_column(p: Path) -> np.ndarray:
    """The whole batch stops with its first column."""
    return np.repeat(right(p).any(axis=1, keepdims=True), p.size.size, axis=1)


def _spread(done: np.ndarray, p: Path) -> np.ndarray:
    """One decision for all columns.   (K, 1) -> (K, m)"""
    return np.repeat(done, p.size.size, axis=1)


def _grown(p: Path) -> np.ndarray:
    """Whether the largest step of the batch is as large as the one before.   (K,)"""
    largest = p.step.max(axis=(1, 2), initial=0.0)
    return np.concatenate([[False], largest[1:] >= largest[:-1]])


def _mean_square(M: np.ndarray) -> np.ndarray:
    mean: np.ndarray = (M**2).mean(axis=(1, 2))[:, None]
    return mean


RULES: dict[str, Rule] = {
    "the rounding of a step measured by the norm of the column: one large row stops all others": no_less_than(
        lambda p: p.noise.max(axis=1, keepdims=True)
    ),
    "an absolute tolerance: the iteration stops at once for small inputs": no_less_than(lambda p: p.tol),
    "a tolerance relative to the largest column of the batch": no_less_than(
        lambda p: _allowed(p).max(axis=(1, 2), keepdims=True)
    ),
    "a tolerance relative to the largest ‖z‖∞ of the batch": no_less_than(
        lambda p: p.tol * np.minimum(1, p.size.max(initial=0.0))
    ),
    "a tolerance relative to the size of the iterate": no_less_than(
        lambda p: p.tol * np.abs(p.X[1:]).max(axis=1, keepdims=True)
    ),
    "the step compared with its tolerance in the mean over the batch, not in each column": over_batch(
        lambda M: M.mean(axis=1)
    ),
    "the iteration stopped when the first column of the batch converges": any_column,
    "the mean over the units of a step compared with the tolerance": by_norm(lambda M: M.mean(axis=1)),
    "the median over the units of a step compared with the tolerance": by_norm(lambda M: np.median(M, axis=1)),
    "the root mean square of a step compared with the tolerance": by_norm(lambda M: np.sqrt((M**2).mean(axis=1))),
    "the step of the last sample alone compared with the tolerance": lambda p: _spread(right(p)[:, -1:], p),
    "the step of the first hidden unit alone compared with the tolerance": lambda p: (p.step <= _allowed(p))[:, 0],
    "a column taken as converged when one of its hidden units is": lambda p: (p.step <= _allowed(p)).any(axis=1),
    "the root mean square of a step over the whole batch compared with the tolerance": lambda p: _spread(
        _mean_square(p.step) <= _mean_square(_allowed(p)), p
    ),
    "the change of the norm of an iterate compared with the tolerance, not the norm of its change": lambda p: (
        np.abs(np.diff(np.abs(p.X).sum(axis=1), axis=0)) <= _allowed(p).max(axis=1, initial=0.0)
    ),
    "a tolerance relative to ‖z‖∞ also where that is above 1": no_less_than(lambda p: p.tol * p.size),
    "a tolerance relative to the largest column of the batch, also where that is above 1": no_less_than(
        lambda p: p.tol * p.size.max(initial=0.0)
    ),
    "the square root of the tolerance in place of it": no_less_than(
        lambda p: np.sqrt(p.tol) * np.minimum(1, p.size)
    ),
    "the square of the step compared with the tolerance": lambda p: (p.step**2 <= _allowed(p)).all(axis=1),
    "a step cut down to a whole number: one below 1 counts as none": lambda p: (
        (np.floor(p.step) <= _allowed(p)).all(axis=1)
    ),
    "the squares of the step and of the tolerance compared, which underflow": lambda p: (
        (p.step.astype(p.dtype) ** 2 <= _allowed(p).astype(p.dtype) ** 2).all(axis=1)
    ),
    "a tolerance relative to ‖B U‖∞": lambda p: (
        (p.step <= np.maximum(p.tol * np.minimum(1, p.inputs), p.noise)).all(axis=1)
    ),
    "the sum of the squares of a step compared with the tolerance": lambda p: (
        (p.step**2).sum(axis=1) <= _allowed(p).max(axis=1, initial=0.0)
    ),
    "the step compared with its tolerance without absolute values": lambda p: (
        (np.diff(p.X, axis=0) <= _allowed(p)).all(axis=1)
    ),
    "the iteration stopped when the largest step of the batch is not smaller than the one before": lambda p: (
        right(p).all(axis=1, keepdims=True) | _grown(p)[:, None]
    ) & np.ones_like(p.step[:, 0], bool),
} | {
    f"a tolerance never below 10^-{k} ‖z‖∞": no_less_than(lambda p, k=k: 10.0**-k * p.size)
    for k in range(1, 12)
} | {
    f"a tolerance never below 10^-{k}, times ‖z‖∞ where that is below 1": no_less_than(
        lambda p, k=k: 10.0**-k * np.minimum(1, p.size)
    )
    for k in range(1, 12)
} | {
    f"a tolerance never below 10^-{k}": no_less_than(lambda p, k=k: 10.0**-k)
    for k in range(1, 12)
} | {
    f"10^-{k} of the size of each entry added to the tolerance": lambda p, k=k: (
        (p.step <= _allowed(p) + 10.0**-k * np.abs(p.X[1:])).all(axis=1)
    )
    for k in (3, 4, 5, 6, 8)
} | {
    f"a tolerance that is {factor} times too large": no_less_than(lambda p, c=factor: c * _allowed(p))
    for factor in (10, 100, 1000)
} | {
    f"the iteration stopped when {words} of the batch have converged": lambda p, share=share: _spread(
        right(p).mean(axis=1, keepdims=True) >= share, p
    )
    for words, share in (("half", 0.5), ("three quarters", 0.75), ("nine tenths", 0.9))
} | {
    f"the step of the first {k} hidden units alone compared with the tolerance": lambda p, k=k: (
        (p.step <= _allowed(p))[:, :k].all(axis=1)
    )
    for k in (4, 8, 16, 32, 64, 128, 256)
} | {
    f"the step of the last block of {k} hidden units alone compared with the tolerance": lambda p, k=k: (
        (p.step <= _allowed(p))[:, (p.step.shape[1] - 1) // k * k :].all(axis=1)
    )
    for k in (4, 8, 16, 32)
}  # fmt: skip


def stopped(p: Path, rule: Rule, together: bool, back: int = 0) -> np.ndarray | None:
    """The iterate at which a rule stops each column, or `back` before it; None if a column does not stop in time.

    Together: the columns go on until all of them may stop.   -> (n, m)
    """
    if p.size.size == 0:
        return p.X[0]
    if rule not in p.done:
        p.done[rule] = rule(p)
    done = p.done[rule]
    if together:
        done = done.all(axis=1, keepdims=True) & np.ones_like(done)
    if not done.any(axis=0).all():
        return None
    k = np.maximum(done.argmax(axis=0) + 1 - back, 0)
    return at(p, k)


def at(p: Path, k: np.ndarray | int) -> np.ndarray:
    """The iterate number k of each column; the last one if there is none of this number.   (m,) -> (n, m)"""
    k = np.minimum(np.broadcast_to(k, p.size.shape), len(p.X) - 1)
    return p.X[k, :, np.arange(p.size.size)].T
