"""Tests of the CUDA twin that need no device: error messages, independence of other backends, the choice of kernels."""

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import CUDA

import idl_ref
from idl_ref import ImplicitModel, SolveOptions, datasets, fit, solve_adjoint, solve_equilibrium
from idl_ref.backends.cuda import plans as cuda_plans

REASON = idl_ref.available_backends()["cuda"]
A, Z = np.eye(2) / 2, np.ones((2, 3))
absent = pytest.mark.skipif(REASON == "available", reason="backend cuda is available")


@absent
@pytest.mark.parametrize(
    "call",
    [
        lambda: solve_equilibrium(A, Z, backend="cuda"),
        lambda: solve_adjoint(A, Z, Z, backend="cuda"),
        lambda: ImplicitModel(2, 2, 3, backend="cuda")(Z.T[:, :2]),
        lambda: fit(ImplicitModel(2, 2, 3, backend="cuda"), *datasets.two_moons(4), progress=False),
        lambda: idl_ref.warmup(backend="cuda"),
    ],
)
def test_a_backend_that_is_not_available_says_why(call):
    with pytest.raises(ValueError, match=r"backend 'cuda' is not available: .+\. Available: numpy(, numba)?\."):
        call()


@absent
@pytest.mark.skipif(not find_spec("numba_cuda"), reason="numba-cuda is not installed")
def test_without_a_driver_the_reason_is_the_driver():
    if "device" in REASON:
        pytest.skip("there is a driver, but no device")
    assert REASON == "no CUDA driver found"
    with pytest.raises(ValueError, match=r"^backend 'cuda' is not available: no CUDA driver found\. Available: numpy"):
        solve_equilibrium(A, Z, backend="cuda")


def test_neither_the_import_nor_auto_loads_the_cuda_twin():
    code = (
        "import sys, idl_ref, numpy as np\n"
        "idl_ref.solve_equilibrium(np.eye(2) / 2, np.ones((2, 1)))\n"
        "print([name for name in sys.modules if 'cuda' in name.split('.')])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("IDL_REF", "NUMBA_ENABLE"))}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


class Queue:
    """A stream of another library, with the handle 7."""

    def __cuda_stream__(self):
        return 0, 7


def test_other_backends_refuse_a_stream():
    for backend in ("numpy", "auto"):
        for stream in (1, Queue()):
            with pytest.raises(
                ValueError, match=f"stream is for backend=\"cuda\"; got backend='{backend}': leave it out"
            ):
                solve_equilibrium(A, Z, options=SolveOptions(stream=stream), backend=backend)
            with pytest.raises(ValueError, match='stream is for backend="cuda"'):
                solve_adjoint(A, Z, Z, options=SolveOptions(stream=stream), backend=backend)


@pytest.mark.parametrize("stream", [0, -1, True, 1.0, "default", Queue.__cuda_stream__])
def test_what_is_no_stream_is_refused(stream):
    with pytest.raises(
        TypeError, match=r"stream must be a stream of numba\.cuda, .*; got .*: leave it out for that one"
    ):
        SolveOptions(stream=stream)


class Elsewhere:
    """A device array of another library with an invalid address: reading its entries would crash."""

    def __init__(self, shape, typestr="<f8"):
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": typestr, "data": (64, False), "version": 3, "strides": None,
        }  # fmt: skip


def test_arrays_on_a_device_are_refused_by_the_other_backends():
    for backend in ("numpy", "auto"):
        with pytest.raises(ValueError, match=f"arrays on a CUDA device need backend=\"cuda\"; got backend='{backend}'"):
            solve_equilibrium(Elsewhere((2, 2)), Elsewhere((2, 3)), backend=backend)
        with pytest.raises(ValueError, match='need backend="cuda"'):
            solve_adjoint(A, Elsewhere((2, 3)), Z, backend=backend)


@pytest.mark.parametrize(
    ("first", "second", "kind", "message"),
    [
        (
            Elsewhere((2, 2), "<f4"),
            Elsewhere((2, 3)),
            TypeError,
            "A is on the device and must be float64 there; got fl",
        ),
        (Elsewhere((2, 2), "<i4"), Elsewhere((2, 3)), TypeError, "must be float32 or float64 there; got int32"),
        (Elsewhere((2, 3)), Elsewhere((2, 3)), ValueError, r"A must have shape \(2, 2\), square; got \(2, 3\)"),
        (Elsewhere((2, 2)), Elsewhere((2, 3, 1)), ValueError, "Z must be a matrix"),
        ((Elsewhere((2, 1)), Elsewhere((3, 1))), Elsewhere((2, 3)), ValueError, "R must have shape"),
    ],
)
def test_arrays_on_a_device_are_checked_by_what_they_say_of_themselves(first, second, kind, message):
    with pytest.raises(kind, match=message):
        solve_equilibrium(first, second, backend="cuda")


# --- the table of kernels ---------------------------------------------------------------------------------------------

SM_80, SM_90 = 163 << 10, 227 << 10  # bytes of shared memory per block for compute capability 8.0 and 9.0


@pytest.mark.skipif(bool(CUDA), reason="tests in the simulator use smaller blocks")
@pytest.mark.parametrize(
    ("sizes", "itemsize", "kind", "width"),
    [
        ((128, 0, 64), 4, "shared", 4),
        ((128, 0, 4096), 4, "shared", 16),
        ((200, 0, 1), 4, "shared", 4),
        ((200, 0, 64), 8, "streamed", 4),
        ((512, 0, 4096), 4, "streamed", 16),
        ((513, 0, 64), 4, "large", 16),
        ((4096, 0, 4096), 8, "large", 16),
        ((512, 16, 4096), 4, "low_rank", 16),
        ((4096, 16, 64), 4, "low_rank", 4),
        ((20000, 16, 64), 4, "large", 16),
    ],
)
def test_which_kernel_serves_what(sizes, itemsize, kind, width):
    plan = cuda_plans.plan("picard", sizes, itemsize, SM_90, 132, None)
    assert (plan.kind, plan.width) == (kind, width)
    assert plan.shared <= SM_90
    assert plan.grid * plan.width >= sizes[2]


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("method", ["picard", "anderson"])
def test_there_is_a_kernel_for_every_size_and_it_fits(method, itemsize):
    for limit in (SM_80, SM_90):
        for n in (1, 7, 8, 100, 224, 225, 512, 513, 3000, 20000):
            for r in {0, min(n, 3), min(n, 64)}:
                for m in (1, 5, 64, 4096):
                    plan = cuda_plans.plan(method, (n, r, m), itemsize, limit, 108, None)
                    cuda_plans.check(plan, limit)
                    assert plan.threads >= plan.width


def test_parts_of_shared_memory_do_not_overlap_and_are_aligned():
    for itemsize in (4, 8):
        for kind in ("shared", "streamed", "low_rank", "large"):
            for method in ("picard", "anderson"):
                for w in cuda_plans.WIDTHS:
                    places = cuda_plans.places(kind, method, 37, 5, w, itemsize)
                    assert list(places) == sorted(places)
                    assert all(place * itemsize % 16 == 0 for place in places)
                    assert places.state * itemsize >= cuda_plans.INTEGERS * w * 4


def test_a_launch_that_the_device_would_refuse_is_refused_before_it():
    plan = cuda_plans.Plan("streamed", 32, 256, 4, 300_000)
    message = (
        "a block of the streamed kernel needs 300000 bytes of shared memory for 32 columns; this device has 166912"
    )
    with pytest.raises(ValueError, match=message):
        cuda_plans.check(plan, SM_80)


def test_a_tile_that_is_asked_for_is_kept_as_far_as_it_fits():
    for tile, width in ((1, 4), (4, 4), (20, cuda_plans.WIDTHS[0] if CUDA else 16), (1000, cuda_plans.WIDTHS[0])):
        plan = cuda_plans.plan("picard", (64, 0, 500), 4, SM_90, 132, SolveOptions(tile=tile).tile)
        assert plan.width == min(width, cuda_plans.WIDTHS[0])
