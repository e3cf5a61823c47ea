"""Settings of Hypothesis, and the table of backends that the solver tests run over."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import idl_ref

sys.path.insert(0, str(Path(__file__).parent))  # tests import naive and strategies by their names
collect_ignore = ["benchmarks"]  # scripts, run by test_benchmarks.py in processes of their own

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


class Backend(NamedTuple):
    """A row of the table: `tolerance` is what rounding may add, relative to the size of the answer."""

    name: str
    dtype: type
    tolerance: float


PRECISIONS = ((np.float32, 2e-5), (np.float64, 1e-13))
BACKENDS = [  # one row is enough for a backend that is not there
    Backend(name, *row)
    for name, reason in idl_ref.backends().items()
    for row in (PRECISIONS if reason == "available" else PRECISIONS[:1])
]


@pytest.fixture(scope="session", params=BACKENDS, ids=lambda b: f"{b.name}-{b.dtype.__name__}")
def backend(request):
    """Every backend that can be used here, in float32 and in float64."""
    reason = idl_ref.backends()[request.param.name]
    if reason != "available":
        pytest.skip(f"backend {request.param.name}: {reason}")
    return request.param
