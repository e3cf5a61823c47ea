"""Bugs planted in the kernels: the interpreter of PTX must report each of them, even if the answer is still right."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
from strategies import matrix, pair

from idl_ref import SolveOptions, solve_equilibrium

pytestmark = pytest.mark.ptx
pytest.importorskip("numba_cuda")
from numba import config  # noqa: E402

if config.ENABLE_CUDASIM:
    pytest.skip("the simulator compiles nothing", allow_module_level=True)
from ptx.host import interpreted  # noqa: E402
from ptx.program import PTXError  # noqa: E402

from idl_ref.backends.cuda import layer as cuda_  # noqa: E402
from idl_ref.backends.cuda import plans as cuda_plans  # noqa: E402

PACKAGE = sys.modules["idl_ref.backends.cuda"]
CHAIN = ("columns", "states", "trials", "rounded", "kernels", "newton")  # Each module imports only those before it.


def load(changed, old, new):
    """Import the modules of the kernels anew, with `old` replaced by `new` in the source of the module `changed`."""
    for name in CHAIN:
        full = f"idl_ref.backends.cuda.{name}"
        spec = importlib.util.find_spec(full)
        source = Path(spec.origin).read_text()  # The loader of pytest, which imports what a plugin brings, has none.
        if name == changed:
            assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {name}"
            source = source.replace(old, new)
        module = ModuleType(full)
        module.__file__ = spec.origin
        sys.modules[full] = module
        setattr(PACKAGE, name, module)
        exec(compile(source, spec.origin, "exec"), module.__dict__)
    return {"kernels": sys.modules["idl_ref.backends.cuda.kernels"], "newton": module}


def run(kernels=None, method="picard", low_rank=False, kappa=0.9):
    """Solve on two blocks, the second one with unused columns. Return what is reported, and the largest error.

    The column that is 0 ends before the others. With a small κ, all columns reach the rounding error.
    """
    rng, n = np.random.default_rng(1), 11 if method == "newton" else 29
    A = pair(n, 5, kappa, rng, np.float32) if low_rank else matrix("random", n, kappa, rng, np.float32)
    Z = rng.standard_normal((n, 7)).astype(np.float32)
    Z[:, 1] = 0
    options = SolveOptions(method=method, max_iter=4, on_failure="ignore", tol=0)
    expected = solve_equilibrium(A, Z, options=options, backend="numpy").X
    with interpreted() as device, mock.patch.multiple(cuda_, **(kernels or {"kernels": cuda_.kernels})):
        try:
            X = solve_equilibrium(A, Z, options=options, backend="cuda").X
        except PTXError as reason:
            return {str(reason).partition(":")[0]}, np.inf
    return device.reports.kinds(), abs(X - expected).max()


@pytest.fixture
def planted():
    """Return `load`; after the test, put the original modules back."""
    names = {f"idl_ref.backends.cuda.{name}": sys.modules[f"idl_ref.backends.cuda.{name}"] for name in CHAIN}
    yield load
    for full, module in names.items():
        sys.modules[full] = module
        setattr(PACKAGE, full.rpartition(".")[2], module)


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("method", ["picard", "anderson", "newton"])
def test_nothing_is_reported_of_the_kernels_without_a_bug(planted, method, low_rank):
    for kernels, kappa in ((None, 0.9), (None, 0.01), (planted("", "", ""), 1.2)):
        reports, error = run(kernels, method, low_rank, kappa)
        assert reports == set()
        assert error < 1e-4


# Each case: the module, a part of its source, the buggy replacement, what must be reported, arguments of `run`.
RACE = "shared race"
SURVEY = "    survey(b, e, V)\n"
PRODUCT = "            cuda.syncthreads()\n            b = here(e, w)\n            finish(b, e, X, P, P)\n"
JUDGE = "            cuda.syncthreads()\n            judge(b, e, True, F1, F2,"
SYNC = "            cuda.syncthreads()\n"
VOTE = """        goes_on = settle_picard(b, e, c)
    running = cuda.syncthreads_count(goes_on)
"""
DIVERGENT = VOTE.replace(
    "    running = cuda.syncthreads_count(goes_on)\n",
    "    running = 0\n    if b.tid < 40:\n        running = cuda.syncthreads_count(goes_on)\n"
    "    else:\n        running = cuda.syncthreads_count(0)\n",
)
MOVE = "    move(b, e, V, P, H)\n    cuda.syncthreads()\n"
INNER = "            inner_sums(b, e, F2, X, W)\n            cuda.syncthreads()\n"
ANSWER = "    deliver(b, e, V, P)\n    cuda.syncthreads()\n    return running\n"
JOIN = "    cuda.syncthreads()\n    join_slices("
CASES = {
    "no barrier after the start": ("kernels", SURVEY + "    cuda.syncthreads()\n", SURVEY, RACE, {}),
    "no barrier after the product": (
        "kernels",
        PRODUCT + JUDGE,
        PRODUCT.replace(SYNC, "") + JUDGE,
        RACE,
        {},
    ),
    "no barrier before the columns are judged": ("kernels", JUDGE, JUDGE.replace(SYNC, ""), RACE, {}),
    "no barrier between the inner sums and the rows": (
        "kernels", INNER, INNER.replace(SYNC, ""), RACE, {"low_rank": True, "kappa": 0.01},
    ),
    "no barrier before an answer is overwritten": (
        "kernels", ANSWER, ANSWER.replace("    cuda.syncthreads()\n", ""), RACE, {"kappa": 1.2},
    ),
    "an earlier iterate that was not kept": (
        "rounded",
        "        if math.isfinite(step) and step > asked(b, e, c):\n",
        "        if math.isfinite(step) and step > asked(b, e, c):\n            N[SINCE * w + c] = STALE + 1\n",
        "read of uninitialised global memory",
        {},
    ),
    "no barrier between the slices and their sum": (
        "kernels", JOIN, "    join_slices(", RACE, {"low_rank": True},
    ),
    "no barrier between a point and its product": (
        "kernels", MOVE, MOVE.replace("    cuda.syncthreads()\n", ""), RACE, {"method": "anderson"},
    ),
    "the product overwrites the tile that is still read": (
        "kernels",
        "sweep(b, Rows(b.M, e.places.f), end, end, X, P, 0, end)",
        "sweep(b, Rows(b.M, e.places.f), end, end, X, X, 0, end)",
        RACE,
        {},
    ),
    "different barriers in two branches": ("kernels", VOTE, DIVERGENT, "threads wait at different barriers", {}),
    "some threads leave before a barrier": (
        "kernels",
        "        while running > 0:\n            b = here(e, w)\n            X, P =",
        "        while running > 0 and b.tid < 96:\n            b = here(e, w)\n            X, P =",
        "barrier without the threads that have exited",
        {},
    ),
    "no guard for the rows": (
        "states",
        "while i < e.n:\n            value = entry(",
        "while i < e.end:\n            value = entry(",
        "global access outside",
        {},
    ),
    "no guard for the columns": (
        "states",
        "if c < b.used and (LEFT < control < GOOD or control == NOTED):",
        "if c < b.used + 1 and (LEFT < control < GOOD or control == NOTED or c == b.used):",
        "global access outside",
        {},
    ),
    "a load that is not aligned": (
        "columns",
        "a, b, row = load4(F, f), load4(F, f + 4), load4(X, x)",
        "a, b, row = load4(F, f + 1), load4(F, f + 4), load4(X, x)",
        "misaligned access",
        {},
    ),
    "flags that nobody set": (
        "kernels", "b.N[k * b.w + b.tid] = 0\n", "pass\n", "read of uninitialised shared memory", {},
    ),
    "two blocks write one column": (
        "states",
        "            j = e.columns[b.first + c]\n",
        "            j = e.columns[c]\n",
        "global word written by two blocks",
        {},
    ),
    "no barrier between copying the state and reducing the norms": (
        "kernels",
        "        keep(b, e, kept, True)\n        cuda.syncthreads()\n",
        "        keep(b, e, kept, True)\n",
        RACE,
        {"method": "newton"},
    ),
    "no barrier before the pivot is chosen": (
        "newton",
        "    cuda.syncthreads()\n    top, place = M[0], M[LANES]\n",
        "    top, place = M[0], M[LANES]\n",
        RACE,
        {"method": "newton"},
    ),
    "a system without its right-hand side": (
        "newton",
        "while item < n * (n + 1):",
        "while item < n * n:",
        "read of uninitialised global memory",
        {"method": "newton"},
    ),
    "a history that nobody cleared": (
        "trials",
        "                        h[o + k * w] = M.dtype.type(0)\n",
        "                        pass\n",
        "read of uninitialised global memory",
        {"method": "anderson"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "bug", [pytest.param(bug, marks=pytest.mark.long) if number % 3 else bug for number, bug in enumerate(CASES)]
)
def test_a_planted_bug_is_flagged(planted, bug):
    changed, old, new, expected, how = CASES[bug]
    reports, _ = run(planted(changed, old, new), **how)
    assert any(expected in report for report in reports), reports


def test_too_little_shared_memory_is_flagged(monkeypatch):
    honest = cuda_plans.places

    def short(*arguments):
        places = honest(*arguments)
        return places._replace(size=places.size - 16)

    monkeypatch.setattr(cuda_plans, "places", short)
    assert run()[0] == {"access beyond the end of shared memory"}
