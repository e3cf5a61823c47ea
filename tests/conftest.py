"""This file has the settings of Hypothesis, the table of the backends, and a browser for the built site."""

import functools
import importlib
import os
import signal
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

# How the CUDA twin runs without a GPU: "sim" is Numba's simulator, "ptx" an interpreter of the compiled kernels.
CUDA = os.environ.get("IDL_REF_CUDA", "")
if CUDA == "sim":
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # This must be set before numba is imported.

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

import idl_ref  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import naive and strategies
# A shell lets what it starts in the background ignore Ctrl-C, and so would the tests that send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Scripts for test_benchmarks.py, the interpreter of PTX, and what test_layers.py runs where JAX is installed.
collect_ignore = ["benchmarks", "ptx", "jax_layer_cases.py", "onnx_export_backend.py"]

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


class Backend(NamedTuple):
    """One row of the table; `tolerance` is the rounding error that is allowed, relative to the size of the answer."""

    name: str
    dtype: type
    tolerance: float


PRECISIONS = ((np.float32, 2e-5), (np.float64, 1e-13))
if CUDA == "sim":
    from idl_ref.backends.cuda import plans as cuda_plans

    cuda_plans.FEW = cuda_plans.MANY = 4  # The simulator runs each CUDA thread as a thread of Python, which is slow.
    cuda_plans.WIDTHS = (8, 4)
    sys.setswitchinterval(1e-4)
    if hasattr(os, "sched_setaffinity"):  # On one core, these threads switch three times as fast.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
elif CUDA == "ptx":
    from ptx.host import interpreted

    INTERPRETED = interpreted()
    DEVICE = INTERPRETED.__enter__()
BACKENDS = [  # A backend that is not available has one row, which is skipped.
    pytest.param(Backend(name, *row), marks=[pytest.mark.cuda] if name == "cuda" else [])
    for name, reason in idl_ref.available_backends().items()
    for row in (PRECISIONS if reason == "available" else PRECISIONS[:1])
]
ALWAYS = (("hard_case",), ("active_sets",), ("do_not_fit",))  # These tests have n > 250, which takes too long.
# The PTX interpreter takes microseconds per instruction. The rows left out here run kernels that other rows run too:
# "auto" runs both Picard's and Anderson's kernel, and for columns that are not finite, the activation does not matter.
LEFT_OUT = {"": ALWAYS, "sim": ALWAYS, "ptx": (*ALWAYS, ("test_certify",),
    ("finds_the_truth", "picard"), ("activation_finds_the_truth", "anderson"), ("rough_answer", "0.0001"),
    ("batch_mates", "picard"), ("batch_mates", "anderson"), ("batch_mates", "float64"),
    ("permutations_and_tiles", "picard"), ("permutations_and_tiles", "float64", "anderson"),
    ("stains_its_own", "tanh"), ("stains_its_own", "softplus"),
    ("stains_its_own", "picard"), ("stains_its_own", "anderson"),
    ("auto_solves_monotone", "identity"), ("auto_solves_monotone", "0.0"))}  # fmt: skip


def in_time(measured, limit):
    """Return the result of `measured`, which also returns its seconds of CPU time: once in three calls below the limit.

    A machine that is shared may count what others take of a processor as time of this thread.
    """
    for _ in range(3):
        result, seconds = measured()
        if seconds < limit:
            return result
    raise AssertionError(f"{seconds:.1f} s of CPU time, three times; {limit:g} s are allowed")


def pytest_collection_modifyitems(items):
    """Skip examples of docstrings that need Dask, and rows of the table that would take too long without a device.

    Of k cases of a test that is marked `sampled(k)`, one becomes slow, and k − 2 become long. Of three cases of a test
    that runs kernels without a device, two become long. What is long is slow, too.
    """
    cases = Counter()
    for item in items:
        if sampled := item.get_closest_marker("sampled"):
            test = item.nodeid.partition("[")[0]
            if place := cases[test] % sampled.args[0]:
                item.add_marker(pytest.mark.slow if place == 1 else pytest.mark.long)
            cases[test] += 1
        if item.name.startswith("idl_ref.parallel.lazy.") and find_spec("dask") is None:
            item.add_marker(pytest.mark.skip(reason="Dask comes with the extra dask"))
        if not item.get_closest_marker("cuda"):
            continue
        if any(all(word in item.nodeid for word in words) for words in LEFT_OUT[CUDA]):
            item.add_marker(pytest.mark.skip(reason="not for the CUDA twin on the CPU"))
        elif CUDA:
            test = CUDA, item.nodeid.partition("[")[0]
            if cases[test] % 3:
                item.add_marker(pytest.mark.long)
            cases[test] += 1
        if CUDA == "sim":  # np.errstate does not apply to simulated threads, so that an overflow there gives a warning.
            item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def chromium():
    """Start Chromium, and serve the built site: a function that takes the options of `browser.Visit` to a visit."""
    import browser

    if reason := browser.missing():
        pytest.skip(reason)
    with browser.served() as address, browser.started() as process:
        yield functools.partial(browser.Visit, process, address)


@pytest.fixture
def visit(chromium):
    """Return a function that begins a visit of the site; nothing may go wrong until the end of the test."""
    visits = []

    def begin(**options):
        visits.append(chromium(**options))
        return visits[-1]

    yield begin
    for each in visits:
        each.close()


@pytest.fixture
def docs_modules(monkeypatch):
    """Return the function that imports a module of docs by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "docs"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent.name == "docs":
            del sys.modules[name]


def settings_of_processes():
    """Return the environment variables that change how this package and its processes run."""
    others = "HOME", "PATH", "PYTHONPATH", "XDG_CACHE_HOME"  # not all: scikit-learn sets some when it is imported
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("NUMBA_", "IDL_REF_")) or name.endswith("_NUM_THREADS") or name in others
    }


@pytest.fixture(autouse=True)
def the_environment_is_left_as_it_was():
    """Assert that a test does not tell those after it to use one thread, or another folder."""
    before = settings_of_processes()
    yield
    assert settings_of_processes() == before


@pytest.fixture(autouse=True)
def nothing_noticed(request):
    """Assert that the PTX interpreter reported no error of a kernel, such as a race, during a test."""
    yield
    if CUDA == "ptx" and request.node.get_closest_marker("cuda"):
        reports = list(DEVICE.reports)
        DEVICE.reports.clear()
        assert reports == []


@pytest.fixture(scope="session", params=BACKENDS, ids=lambda b: f"{b.name}-{b.dtype.__name__}")
def backend(request):
    """Run a test for every backend that can be used here, in float32 and in float64."""
    reason = idl_ref.available_backends()[request.param.name]
    if reason != "available":
        pytest.skip(f"backend {request.param.name}: {reason}")
    return request.param
