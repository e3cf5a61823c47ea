"""Tests of the machine code of every kernel for three architectures, compiled without a device."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from inspect import isfunction

import numpy as np
import pytest
from conftest import CUDA

from idl_ref import SolveOptions, activations

pytestmark = pytest.mark.codegen
pytest.importorskip("numba_cuda")
if CUDA:
    pytest.skip("these tests run without IDL_REF_CUDA, in a process of their own", allow_module_level=True)
from ptx import compiler  # noqa: E402
from ptx.host import Device, interpreted  # noqa: E402

from idl_ref.backends.cuda import api as cuda_api  # noqa: E402
from idl_ref.backends.cuda import kernels as cuda_kernels  # noqa: E402
from idl_ref.backends.cuda import layer as cuda_  # noqa: E402
from idl_ref.backends.cuda import newton as cuda_newton  # noqa: E402
from idl_ref.backends.cuda import plans as cuda_plans  # noqa: E402
from idl_ref.backends.cuda import trainer as cuda_training  # noqa: E402
from idl_ref.weights import Options, Weights  # noqa: E402

if not (compiler.BINARIES / "ptxas").exists():
    pytest.skip('ptxas is not installed; pip install "idl-ref[cuda-dev]"', allow_module_level=True)
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
PRODUCTS = ("picard", "guarded", "apply")  # the kernels (by the beginning of the name) that spend most time in products
# The largest number of registers per thread, and the smallest share of multiply-adds in the inner loop of a product.
MOST_REGISTERS, LEAST_FMA = 128, 0.7
RELU = activations.get("relu")


@pytest.mark.parametrize("questions", [1, 5, 2000])
def test_waiting_for_the_device_is_done_in_short_calls(monkeypatch, questions):
    """An interrupt reaches Python between two of them; here it comes in place of an answer."""
    asked = []

    class Event:
        def record(self, stream):
            assert stream == "a stream"

        def query(self):
            asked.append(len(asked))
            if len(asked) == 2 and questions == 5:
                raise KeyboardInterrupt
            return len(asked) == questions

    monkeypatch.setattr(cuda_api.cuda, "event", lambda timing: Event())
    monkeypatch.setattr(cuda_api.time, "sleep", lambda seconds: None)
    if questions == 5:
        with pytest.raises(KeyboardInterrupt):
            cuda_api._wait("a stream")
        assert len(asked) == 2
    else:
        cuda_api._wait("a stream")
        assert len(asked) == questions


def solves(dtype):
    """Yield a row of TABLE (None for all rows), factors, Z and options: the cases together launch every solver."""
    rng = np.random.default_rng(0)
    A, L, Z = (rng.standard_normal(shape).astype(dtype) / 9 for shape in ((3, 3), (3, 1), (3, 2)))
    for row in cuda_plans.TABLE:
        factors = (L, L.T) if row.low_rank else (A,)
        for method in ("picard", "anderson"):
            for tile in (4, 16, 32):
                yield row, factors, Z, SolveOptions(method=method, max_iter=1, tile=tile, on_failure="ignore")
    yield None, (np.triu(A, 1),), Z, SolveOptions(method="substitution")
    yield None, (A,), Z, SolveOptions(method="newton", max_iter=1, on_failure="ignore")


def algebra(dtype):
    """Launch the kernels of a training step, with each kind of `f`."""
    from idl_ref import SGD, Adam, ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitModel

    for f, optimizer in ((ImplicitFunctionInf, SGD()), (ImplicitFunctionRows, Adam()), (ImplicitFunctionTriu, SGD())):
        model = ImplicitModel(1, 1, 2, f=f, seed=0, dtype=np.dtype(dtype).name, mitr=1, grad_mitr=1)
        s, phi = model.settings, activations.get(model.activation)
        trainer = cuda_training.Trainer(model.parameters, s.parametrisation, phi, s.options, "mse", optimizer)
        trainer.step(np.ones((1, 1), dtype), np.ones((1, 1), dtype))


@cache
def kernels(dtype):
    """Return every kernel with the types of its arguments, by name, recorded from launches that nothing executes."""
    with pytest.MonkeyPatch.context() as patch, interpreted(executes=False) as device:
        everything = cuda_plans.TABLE
        for row, *arguments in solves(dtype):
            patch.setattr(cuda_plans, "TABLE", everything if row is None else (row,))
            factors, Z, options = arguments
            layer = cuda_.Layer(Weights.of(factors), RELU, Options(options, options))
            layer.solve(layer.equation(Z))
        patch.setattr(cuda_plans, "TABLE", everything)
        algebra(dtype)
    return {kernel.py_func.__name__: (kernel, kinds) for kernel, kinds in device.launched}


def test_every_kernel_is_recorded():
    names = set(kernels(np.float32))
    assert names == set(kernels(np.float64))
    for kind in cuda_kernels.KINDS:
        for width in (4, 16, 32):
            assert {f"picard_{kind}_{width}", f"guarded_{kind}_{width}"} <= names
    for module in (cuda_kernels, cuda_newton, cuda_training.algebra):
        for name, value in vars(module).items():
            if isinstance(value, type(cuda_kernels.apply)) and not value.targetoptions.get("device"):
                assert name in names


def look(name, dtype, text, arch, folder):
    """Assemble a kernel and return the rules that its machine code breaks, as pairs of its name and a description."""
    folder.mkdir()
    report = compiler.assemble(text, arch, folder)
    opcodes = [opcode for opcode, _ in report.instructions]
    found = {
        "stack or spills": report.stack > 0 or any(op.startswith(("LDL", "STL")) for op in opcodes),
        "local memory": ".local" in text,
        "static shared memory": report.static_shared > 0,
        f"{report.registers} registers": report.registers > MOST_REGISTERS,
        "float64": dtype is np.float32 and any(op[:4] in DOUBLE or ".F64" in op for op in opcodes),
    }
    if name.startswith(PRODUCTS):
        loops = report.product_loops()
        found[f"{len(loops)} products"] = len(loops) != (2 if "low_rank" in name else 1)
        for loop in loops:
            loads = [op for op in loop if op.startswith(("LDG", "LDS", "LD."))]
            share = compiler.multiplications(loop) / loop.total()
            found[f"multiplications {share:.3f}"] = share < LEAST_FMA
            found[f"loads {loads}"] = not loads or any(".128" not in op for op in loads)
    return [(name, what) for what, is_so in found.items() if is_so]


LONG = ((np.float32, "sm_90"), (np.float64, "sm_80"), (np.float64, "sm_100"))  # Each takes one or two minutes.


@pytest.mark.parametrize(
    ("dtype", "arch"),
    [
        pytest.param(dtype, arch, marks=pytest.mark.long) if (dtype, arch) in LONG else (dtype, arch)
        for dtype in (np.float32, np.float64)
        for arch in ARCHITECTURES
    ],
)
def test_machine_code(dtype, arch, tmp_path):
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # ptxas and nvdisasm run while the next kernel is compiled to PTX
        looks = [
            pool.submit(look, name, dtype, compiler.ptx(kernel, kinds, (int(arch[3:-1]), 0)), arch, tmp_path / name)
            for name, (kernel, kinds) in kernels(dtype).items()
        ]
        assert [wrong for what in looks for wrong in what.result()] == []


DOUBLE = ("DFMA", "DADD", "DMUL", "DSET", "DMNM")  # the first letters of the float64 opcodes


def test_float64_in_a_float32_kernel_is_detected(tmp_path):
    from numba import cuda, types

    def leak(values):
        values[cuda.grid(1)] = 0.1 * values[cuda.grid(1)]

    kernel = cuda.jit(leak)
    text = compiler.ptx(kernel, (types.Array(types.float32, 1, "C"),))
    report = compiler.assemble(text, "sm_80", tmp_path)
    assert any(opcode[:4] in DOUBLE or ".F64" in opcode for opcode, _ in report.instructions)


def test_an_array_in_local_memory_is_detected():
    from numba import cuda, types

    def spill(values, i):
        room = cuda.local.array(64, types.float32)
        for k in range(64):
            room[k] = values[k]
        values[0] = room[i]

    kernel = cuda.jit(spill)
    text = compiler.ptx(kernel, (types.Array(types.float32, 1, "C"), types.int64))
    assert ".local" in text


def test_the_interpreter_replaces_every_function_that_needs_a_driver():
    """A new function of `cuda_api` must be replaced by `Device.functions`, or be listed here as needing no driver."""
    no_driver = {"reason", "device", "kernel", "by_rows", "on_device", "matrix"}
    for_foreign_arrays = {"view"}  # Only device arrays of other libraries reach `view`.
    functions = {f.__name__ for f in vars(cuda_api).values() if isfunction(f) and f.__module__ == cuda_api.__name__}
    public = {name for name in functions if not name.startswith("_")}
    assert public - no_driver - for_foreign_arrays == set(Device().functions())
