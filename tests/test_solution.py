import dataclasses
import pickle

import numpy as np
import pytest

from idl_ref import NotConvergedError, Solution, SolveOptions, Status
from idl_ref.solution import join


def solution(*status, bounds=None):
    m = len(status)
    bounds = np.full(m, 1e-6) if bounds is None else np.array(bounds)
    return Solution(np.arange(2.0 * m).reshape(2, m), np.array(status, np.int8), np.arange(m), np.full(m, 1e-7), bounds)


def test_options_have_the_seeds_defaults():
    options = SolveOptions()
    assert dataclasses.astuple(options) == (3e-6, 300, "auto", None, "warn", None, "fast")
    assert pickle.loads(pickle.dumps(options)) == options


def test_options_are_frozen_and_comparable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SolveOptions().tol = 1
    assert SolveOptions(tol=1e-9) == SolveOptions(tol=1e-9) != SolveOptions()
    assert SolveOptions(tol=np.float32(0.5), max_iter=np.int64(3), tile=np.int32(2)).max_iter == 3


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"tol": -1e-9}, ValueError, "tol must be a number ≥ 0; got -1e-09"),
        ({"tol": float("nan")}, ValueError, "tol must be a number ≥ 0; got nan"),
        ({"tol": float("inf")}, ValueError, "tol must be a number"),
        ({"tol": "small"}, TypeError, "tol must be a number ≥ 0; got 'small'"),
        ({"tol": True}, TypeError, "tol must be a number"),
        ({"max_iter": 0}, ValueError, "max_iter must be a whole number, at least 1; got 0"),
        ({"max_iter": 3.0}, TypeError, "max_iter must be a whole number, at least 1; got 3.0"),
        ({"tile": 0}, ValueError, "tile must be a whole number, at least 1; got 0"),
        ({"method": "gauss"}, ValueError, "method must be one of 'auto', 'picard', .*; got 'gauss'"),
        ({"on_failure": None}, ValueError, "on_failure must be one of 'warn', 'raise', 'ignore'; got None"),
    ],
)
def test_options_are_validated(options, kind, message):
    with pytest.raises(kind, match=message):
        SolveOptions(**options)


def test_converged_means_every_column():
    assert solution(Status.CONVERGED, Status.PRECISION_LIMIT).converged is True
    assert solution(Status.CONVERGED, Status.MAX_ITER).converged is False
    assert solution(Status.NONFINITE).converged is False
    assert solution().converged is True
    np.testing.assert_array_equal(solution(0, 1, 2, 3).succeeded, [True, True, False, False])


def test_require_hands_a_good_solution_on():
    good = solution(Status.CONVERGED, Status.PRECISION_LIMIT)
    assert good.require() is good
    assert good.require(error=1e-6) is good
    empty = solution()
    assert empty.require(error=0) is empty


def test_require_refuses_a_failed_column():
    bad = solution(0, Status.MAX_ITER, Status.NONFINITE)
    with pytest.raises(
        NotConvergedError, match=r"2 of 3 columns did not converge; the first is column 1: the iteration limit"
    ) as e:
        bad.require()
    assert e.value.solution is bad


@pytest.mark.parametrize("bound", [2e-6, np.inf])
def test_require_refuses_a_weak_certificate(bound):
    weak = solution(0, 0, bounds=[1e-9, bound])
    assert weak.require() is weak
    with pytest.raises(NotConvergedError, match=r"every error bound must be at most 1e-06; got .* for column 1") as e:
        weak.require(error=1e-6)
    assert e.value.solution is weak


def test_require_checks_its_argument():
    with pytest.raises(ValueError, match="error must be a number ≥ 0; got nan"):
        solution(0).require(error=float("nan"))
    with pytest.raises(TypeError, match="error must be a number"):
        solution(0).require(error="small")


def test_join_is_concatenation():
    joined = join([solution(0, 1), solution(2), solution()])
    assert joined.X.shape == (2, 3)
    np.testing.assert_array_equal(joined.status, [0, 1, 2])
    np.testing.assert_array_equal(joined.iterations, [0, 1, 0])
