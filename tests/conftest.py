"""Settings of Hypothesis, and the table of backends that the solver tests run over."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

CUDA = os.environ.get("IDL_REF_CUDA", "")  # "sim": in the simulator, "ptx": by executing the compiled kernels
if CUDA == "sim":
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # before anybody imports numba

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

import idl_ref  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))  # tests import naive and strategies by their names
collect_ignore = ["benchmarks", "ptx"]  # scripts that test_benchmarks.py runs; the interpreter of compiled kernels

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
if CUDA == "sim":
    from idl_ref.backends.cuda import plans as cuda_plans

    cuda_plans.FEW = cuda_plans.MANY = 4  # every simulated thread is one of Python's
    cuda_plans.WIDTHS = (8, 4)
    sys.setswitchinterval(1e-4)
    if hasattr(os, "sched_setaffinity"):  # threads that take turns do so three times as fast on one core
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
elif CUDA == "ptx":
    from ptx.host import interpreted

    INTERPRETED = interpreted()
    DEVICE = INTERPRETED.__enter__()
BACKENDS = [  # one row is enough for a backend that is not there
    pytest.param(Backend(name, *row), marks=[pytest.mark.cuda] if name == "cuda" else [])
    for name, reason in idl_ref.available_backends().items()
    for row in (PRECISIONS if reason == "available" else PRECISIONS[:1])
]
ALWAYS = (("hard_case",), ("active_sets",), ("do_not_fit",))  # n > 250
# By PTX an instruction takes microseconds. What is left out runs kernels that another row of its test runs, too: "auto"
# both Picard's and Anderson's; and columns that are not finite never meet φ.
LEFT_OUT = {"": ALWAYS, "sim": ALWAYS, "ptx": (*ALWAYS,
    ("finds_the_truth", "picard"), ("activation_finds_the_truth", "anderson"), ("rough_answer", "0.0001"),
    ("batch_mates", "picard"), ("batch_mates", "anderson"), ("batch_mates", "float64"),
    ("permutations_and_tiles", "picard"), ("permutations_and_tiles", "float64", "anderson"),
    ("stains_its_own", "tanh"), ("stains_its_own", "softplus"))}  # fmt: skip


def pytest_collection_modifyitems(items):
    """Rows of the table that would take too long on a device that is only played."""
    for item in items:
        if not item.get_closest_marker("cuda"):
            continue
        if any(all(word in item.nodeid for word in words) for words in LEFT_OUT[CUDA]):
            item.add_marker(pytest.mark.skip(reason="not for the CUDA twin on the CPU"))
        if CUDA == "sim":  # what overflows in a simulated thread warns, because np.errstate does not reach it
            item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))


@pytest.fixture(autouse=True)
def nothing_noticed(request):
    """No kernel of the CUDA twin does what the interpreter of its PTX reports."""
    yield
    if CUDA == "ptx" and request.node.get_closest_marker("cuda"):
        reports = list(DEVICE.reports)
        DEVICE.reports.clear()
        assert reports == []


@pytest.fixture(scope="session", params=BACKENDS, ids=lambda b: f"{b.name}-{b.dtype.__name__}")
def backend(request):
    """Every backend that can be used here, in float32 and in float64."""
    reason = idl_ref.available_backends()[request.param.name]
    if reason != "available":
        pytest.skip(f"backend {request.param.name}: {reason}")
    return request.param
