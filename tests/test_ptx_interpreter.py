"""Tests of the interpreter of PTX: small kernels with known results, and each of the errors that it must report."""

import math
import struct

import numpy as np
import pytest

pytestmark = pytest.mark.ptx
pytest.importorskip("numba_cuda")
from ptx import operations  # noqa: E402
from ptx.host import DeviceArray  # noqa: E402
from ptx.machine import Kernel  # noqa: E402
from ptx.program import PTXError, parse  # noqa: E402

HEAD = """
.version 9.0
.extern .shared .align 4 .b8 room[];
.visible .entry test(.param .u64 a0, .param .u64 a1, .param .u64 a2, .param .u64 a3, .param .u64 data,
                     .param .u64 a5, .param .u64 a6)
{
    .reg .pred %p<9>; .reg .f32 %f<9>; .reg .f64 %fd<9>; .reg .b32 %r<9>; .reg .b64 %rd<9>;
    ld.param.u64 %rd1, [data];
    mov.u32 %r1, %tid.x;
    mul.wide.s32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;
"""


def run(body, values, threads=4, grid=1, shared=0, written=True):
    """Run a kernel and return the errors reported and the values after it.

    In `body`, %r1 holds the number i of the thread, %rd1 the address of `values`, and %rd3 that of values[i].
    """
    array = DeviceArray(np.array(values), written)
    kernel = Kernel(parse(HEAD + body + "ret;\n}"))
    return kernel.launch(grid, threads, shared, [("array", 0)], [array]).kinds(), array.values


def test_threads_diverge_and_reconverge():
    body = """
    setp.lt.s32 %p1, %r1, 2;
    @%p1 bra $LOW;
    mov.u32 %r2, 10;
    bra.uni $END;
$LOW:
    mov.u32 %r2, 20;
$END:
    add.s32 %r2, %r2, %r1;
    st.global.u32 [%rd3], %r2;
"""
    assert run(body, np.zeros(4, np.int32))[1].tolist() == [20, 21, 12, 13]


def test_a_loop_runs_as_long_as_each_thread_needs():
    body = """
    mov.u32 %r2, 0;
$AGAIN:
    add.s32 %r2, %r2, 1;
    setp.le.s32 %p1, %r2, %r1;
    @%p1 bra $AGAIN;
    st.global.u32 [%rd3], %r2;
"""
    assert run(body, np.zeros(4, np.int32))[1].tolist() == [1, 2, 3, 4]


SHIFT = """
    mov.u64 %rd4, room;
    add.s64 %rd5, %rd4, %rd2;
    st.shared.u32 [%rd5], %r1;
    BARRIER
    xor.b32 %r2, %r1, 1;
    mul.wide.s32 %rd6, %r2, 4;
    add.s64 %rd6, %rd4, %rd6;
    ld.shared.u32 %r3, [%rd6];
    st.global.u32 [%rd3], %r3;
"""


def test_a_barrier_orders_shared_memory_and_a_missing_one_is_reported():
    noticed, values = run(SHIFT.replace("BARRIER", "bar.sync 0;"), np.zeros(4, np.int32), shared=16)
    assert (noticed, values.tolist()) == (set(), [1, 0, 3, 2])
    noticed, _ = run(SHIFT.replace("BARRIER", ""), np.zeros(4, np.int32), shared=16)
    assert noticed == {"shared race: read of what another thread wrote, no barrier between"}


def test_a_write_after_the_read_of_another_thread_is_reported():
    body = SHIFT.replace("BARRIER", "bar.sync 0;") + "st.shared.u32 [%rd5], %r1;"
    assert run(body, np.zeros(4, np.int32), shared=16)[0] == {
        "shared race: write of what another thread read, no barrier between"
    }


def test_a_write_after_a_common_read_is_reported_whoever_writes():
    """All threads read one word, and each of them writes it in turn; the last access alone is not what counts."""
    for writer in range(4):
        body = f"""
    mov.u64 %rd4, room;
    setp.eq.s32 %p1, %r1, {writer};
    @%p1 st.shared.u32 [%rd4], %r1;
    bar.sync 0;
    ld.shared.u32 %r3, [%rd4];
    @%p1 st.shared.u32 [%rd4], %r1;
"""
        assert run(body, np.zeros(4, np.int32), shared=16)[0] == {
            "shared race: write of what another thread read, no barrier between"
        }


def test_a_barrier_counts_a_predicate():
    body = """
    setp.gt.s32 %p1, %r1, 0;
    bar.red.popc.u32 %r2, 0, %p1;
    st.global.u32 [%rd3], %r2;
"""
    assert run(body, np.zeros(4, np.int32))[1].tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("setp.lt.s32 %p1, %r1, 2; @%p1 ret; bar.sync 0;", "barrier without the threads that have exited"),
        (
            "setp.lt.s32 %p1, %r1, 2; @%p1 bra $A; bar.sync 0; bra.uni $B;\n$A:\nbar.sync 0;\n$B:\n",
            "threads wait at different barriers",
        ),
        ("mov.u64 %rd4, room; ld.shared.u32 %r2, [%rd4];", "read of uninitialised shared memory"),
        ("mov.u64 %rd4, room; st.shared.u32 [%rd4], %r1;", "shared race: two threads wrote, no barrier between"),
        (
            "setp.lt.s32 %p1, %r1, 2; @%p1 shfl.sync.bfly.b32 %r2, %r1, 2, 31, -1;",
            "shuffle from a thread that does not take part",
        ),
    ],
)
def test_errors_that_a_gpu_would_not_show_are_reported(body, what):
    assert run(body, np.zeros(4, np.int32), shared=16)[0] == {what}


def test_blocks_that_share_global_memory_are_reported():
    assert run("st.global.u32 [%rd3], %r1;", np.zeros(4, np.int32), grid=2)[0] == {"global word written by two blocks"}
    body = "mov.u32 %r2, %ctaid.x; setp.eq.s32 %p1, %r2, 0; @%p1 st.global.u32 [%rd3], %r1; ld.global.u32 %r3, [%rd3];"
    assert run(body, np.zeros(4, np.int32), grid=2)[0] == {"global read of what another block wrote"}
    noticed, _ = run("ld.global.u32 %r2, [%rd3];", np.zeros(4, np.int32), written=False)
    assert noticed == {"read of uninitialised global memory"}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("st.global.u32 [%rd3+4], %r1;", "global access outside of every array"),
        ("ld.global.u32 %r2, [%rd3+-16];", "access beyond the end of global memory"),
        ("ld.global.v2.u32 {%r2, %r3}, [%rd3];", "misaligned access to global memory"),
        ("ld.global.u32 %r2, [%rd1+1];", "misaligned access to global memory"),
        (
            "mov.u64 %rd4, room; add.s64 %rd5, %rd4, %rd2; st.shared.u32 [%rd5+4], %r1;",
            "access beyond the end of shared",
        ),
    ],
)
def test_errors_that_would_abort_a_kernel_raise(body, what):
    with pytest.raises(PTXError, match=what):
        run(body, np.zeros(4, np.int32), shared=16)


@pytest.mark.parametrize("body", ["atom.global.add.u32 %r2, [%rd3], 1;", "ld.u32 %r2, [%rd3];", "bar.warp.sync -1;"])
def test_unsupported_instructions_are_refused(body):
    with pytest.raises((PTXError, KeyError)):
        run(body, np.zeros(4, np.int32))


def test_vector_loads_and_stores_keep_the_order():
    body = """
    setp.eq.s32 %p1, %r1, 0;
    @%p1 ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];
    @%p1 st.global.v4.f32 [%rd1], {%f4, %f3, %f2, %f1};
"""
    assert run(body, np.arange(4, dtype=np.float32))[1].tolist() == [3, 2, 1, 0]


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_fma_is_rounded_once():
    fma = operations.arithmetic(("fma", "rn", "f32"))
    a = np.float32(1 + 2**-12)
    assert fma(a, a, np.float32(-1)) == np.float32(float(a) * float(a) - 1)
    assert a * a - np.float32(1) != fma(a, a, np.float32(-1))


def test_directed_rounding():
    third = operations.arithmetic(("fma", "rm", "f32"))(np.float32(1) / np.float32(3), np.float32(3), np.float32(0))
    assert third <= 1.0
    down, nearest = (operations.arithmetic(("add", mode, "f32")) for mode in ("rm", "rn"))
    one, tiny = np.float32(1), np.float32(-1e-10)
    assert down(one, tiny) == np.nextafter(one, np.float32(0))
    assert nearest(one, tiny) == one
    towards_zero = operations.arithmetic(("add", "rz", "f32"))
    assert towards_zero(-one, -tiny) == np.nextafter(-one, np.float32(0))


def test_comparisons_with_nan():
    nan, one = np.float32(math.nan), np.float32(1)
    assert not operations.comparison(("setp", "lt", "f32"))(nan, one)
    assert operations.comparison(("setp", "ltu", "f32"))(nan, one)
    assert not operations.comparison(("setp", "ne", "f32"))(nan, one)
    assert operations.comparison(("setp", "neu", "f32"))(nan, nan)
    assert operations.comparison(("setp", "nan", "f32"))(nan, one)
    assert not operations.comparison(("setp", "num", "f32"))(nan, one)


def test_integer_arithmetic():
    quotient = operations.arithmetic(("div", "s64"))(np.int64(-7), np.int64(2))
    assert quotient == -3
    assert operations.arithmetic(("rem", "s64"))(np.int64(-7), np.int64(2)) == -1
    assert operations.high("s64")(np.int64([2**62]), np.int64([8]))[0] == 2
    assert operations.shift(("shl", "b32"))(np.uint32(1), np.uint32(40)) == 0
    assert operations.shift(("shr", "s32"))(np.int32(-8), np.uint32(40)) == -1
    by = np.uint32([0, 1, 31, 32, 33, 2**32 - 1])
    assert operations.shift(("shl", "b32"))(np.uint32(3), by).tolist() == [3, 6, 2**31, 0, 0, 0]
    assert operations.shift(("shr", "u32"))(np.uint32(2**32 - 1), by).tolist() == [2**32 - 1, 2**31 - 1, 1, 0, 0, 0]
    assert operations.shift(("shr", "s32"))(np.int32(-8), by).tolist() == [-8, -4, -1, -1, -1, -1]


def test_min_and_max_drop_nan_and_conversions_saturate():
    assert operations.arithmetic(("max", "f32"))(np.float32(math.nan), np.float32(2)) == 2
    assert operations.conversion(("cvt", "sat", "f32", "f32"))(np.float32(3)) == 1
    assert operations.conversion(("cvt", "rzi", "s32", "f32"))(np.float32(1e20)) == 2**31 - 1
    assert operations.conversion(("cvt", "rni", "s32", "f32"))(np.float32(2.5)) == 2


def test_constants_are_read_bit_by_bit():
    bits = struct.pack(">f", -1.5).hex().upper()
    assert run(f"mov.f32 %f1, 0f{bits}; st.global.f32 [%rd3], %f1;", np.zeros(4, np.float32))[1].tolist() == [-1.5] * 4
