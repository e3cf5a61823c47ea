import copy
import pickle

import numpy as np
import pytest

from idl_ref import ConvergenceWarning, NotConvergedError, Solution, Status


def test_success_is_converged_or_as_good_as_rounding_allows():
    assert [s.name for s in Status] == ["CONVERGED", "PRECISION_LIMIT", "MAX_ITER", "NONFINITE"]
    assert [int(s) for s in Status] == [0, 1, 2, 3]
    assert [s.success for s in Status] == [True, True, False, False]


def test_every_status_has_its_own_sentence():
    sentences = {s.sentence for s in Status}
    assert len(sentences) == len(Status)
    assert all(len(sentence) > 20 for sentence in sentences)


def test_warning_and_error_are_of_the_usual_kinds():
    assert issubclass(ConvergenceWarning, RuntimeWarning)
    assert issubclass(NotConvergedError, RuntimeError)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_error_keeps_its_message_and_solution(clone):
    solution = Solution(np.ones((2, 1)), np.array([2], np.int8), np.array([7]), np.array([0.1]), np.array([np.inf]))
    error = clone(NotConvergedError("too slow", solution))
    assert str(error) == "too slow"
    np.testing.assert_array_equal(error.solution.X, solution.X)
    np.testing.assert_array_equal(error.solution.iterations, [7])
