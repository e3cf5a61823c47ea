"""No success has a wrong answer, and no bound is below the error, for columns that are hard on both."""

import numpy as np
import pytest
from conftest import CUDA
from hard_columns import BELOW, WRONG, Case, column, count, draw, faults, truth

from idl_ref import available_backends
from idl_ref.solution import Status

HERE = available_backends()
TWINS = [
    pytest.param(name, marks=[pytest.mark.skipif(HERE[name] != "available", reason=f"{name} is not available")])
    for name in ("numpy", "numba")
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("certificate", ["fast", "sharp"])
@pytest.mark.parametrize("twin", TWINS)
def test_hard_columns(twin, certificate):
    counts, found = count(twin, 2000, 7, certificate)
    assert not found, found[0]
    assert counts["judged"] > 1500
    assert min(counts[name] for name in ("CONVERGED", "PRECISION_LIMIT", "MAX_ITER")) > 10


@pytest.mark.long
@pytest.mark.parametrize("certificate", ["fast", "sharp"])
@pytest.mark.parametrize("twin", TWINS)
def test_many_hard_columns(twin, certificate):
    _, found = count(twin, 20_000, 11, certificate)
    assert not found, found[0]


@pytest.mark.cuda
@pytest.mark.skipif(HERE["cuda"] != "available", reason="the CUDA twin is not available")
def test_hard_columns_on_the_device():
    counts, found = count("cuda", {"sim": 200, "ptx": 20}.get(CUDA, 2000), 7, m=5)
    assert not found, found[0]
    assert counts["judged"] > 5


def test_a_wrong_answer_is_found():
    """An error of one part in a thousand is a wrong success, and the bound is below it."""
    rng, found = np.random.default_rng(3), set()
    for _ in range(20):
        case: Case = draw(rng, 4)
        try:
            solution = case.solve("numpy", tol=0.0)
        except ValueError:
            continue
        for j in range(4):
            c = column(case, j)
            if c is None or solution.status[j] > Status.PRECISION_LIMIT:
                continue
            x, uncertainty = truth(c, solution.X[:, j].astype(np.longdouble))
            solution.X[:, j] *= 1.001
            found.update(faults(case, solution, j, x, uncertainty, c))
    assert found == {WRONG, BELOW}
