"""CPU vectors for the compiled kernels: what they need, written out as LLVM instructions.

A vector holds LANES(dtype) numbers of one column, or of one column of A. Loops over plain scalars would leave it to the
compiler whether sums stay in registers and which terms it joins first. Here both are fixed: every product is a chain

    p_i = fma(a_ik, x_k, p_i),   k = k0, k0 + 1, …, k1 − 1,      from 0, and then added to what was there before,

one lane per row i, whatever the number of columns, so that an answer does not depend on which kernel computed it.
`fmuladd` is one rounding where the CPU has it and two where it has not, in every kernel alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, models, register_model


def _registers() -> tuple[int, int]:
    """Bytes of a vector register, and how many columns of a product fit into the registers next to two of A."""
    if getattr(config, "CPU_NAME", None) or getattr(
        config, "CPU_FEATURES", None
    ):  # told to compile for another CPU: what every CPU has
        return 16, 4
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 8
    return (32, 4) if features.get("avx2") else (16, 4)


VECTOR_BYTES, GROUP = _registers()
I32, I64 = ir.IntType(32), ir.IntType(64)


class Vector(types.Type):
    """LANES numbers in a register."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype} x {self.lanes})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        element = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.lanes))


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _address(builder: Any, data: Any, offset: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, vector.count), None))


def _llvm(builder: Any, name: str, vector: Any, arguments: int) -> Any:
    bits = "f32" if isinstance(vector.element, ir.FloatType) else "f64"
    function = ir.FunctionType(vector, [vector] * arguments)
    return cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.v{vector.count}{bits}")


@intrinsic
def separate(typing: Any) -> Any:
    """Keep the function that calls this from being inlined: it is compiled once, not anew in each of its callers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def lanes(typing: Any, array: Any) -> Any:
    """How many numbers of `array` a vector holds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return I64(Vector(array.dtype).lanes)

    return types.intp(array), generate


@intrinsic
def boundary(typing: Any, array: Any) -> Any:
    """Where in `array` the first vector begins that lies in one line of the cache: at most LANES − 1."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.ptrtoint(_data(context, builder, array, arguments[0]), I64)
        over = builder.and_(builder.neg(address), I64(VECTOR_BYTES - 1))
        return builder.udiv(over, I64(array.dtype.bitwidth // 8))

    return types.intp(array), generate


@intrinsic
def load(typing: Any, array: Any, offset: Any) -> Any:
    """array[offset : offset + LANES]"""
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = _data(context, builder, array, arguments[0])
        value = builder.load(_address(builder, data, arguments[1], context.get_value_type(kind)))
        value.align = array.dtype.bitwidth // 8
        return value

    return kind(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """array[offset : offset + LANES] = value"""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = _data(context, builder, array, arguments[0])
        instruction = builder.store(arguments[2], _address(builder, data, arguments[1], arguments[2].type))
        instruction.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def transpose(typing: Any, source: Any, first: Any, apart: Any, target: Any, place: Any, between: Any) -> Any:
    """A square of LANES × LANES: target[place + between k + l] = source[first + apart l + k]."""
    kind = Vector(source.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, lanes = context.get_value_type(kind), kind.lanes
        taken, put = (
            _data(context, builder, kind, array) for kind, array in ((source, arguments[0]), (target, arguments[3]))
        )
        rows = []
        for lane in range(lanes):
            offset = builder.add(arguments[1], builder.mul(arguments[2], I64(lane)))
            rows.append(builder.load(_address(builder, taken, offset, vector)))
            rows[-1].align = source.dtype.bitwidth // 8
        width = lanes // 2
        while width:  # swap squares of width × width off the diagonal, from the largest to the smallest
            for lane in (lane for lane in range(lanes) if not lane & width):
                a, b = rows[lane], rows[lane + width]
                for target_lane, masks in ((lane, (0, lanes - width)), (lane + width, (width, lanes))):
                    mask = [i + masks[1] if i & width else i + masks[0] for i in range(lanes)]
                    constant = ir.Constant(ir.VectorType(I32, lanes), mask)
                    rows[target_lane] = builder.shuffle_vector(a, b, constant)
            width //= 2
        for lane in range(lanes):
            offset = builder.add(arguments[4], builder.mul(arguments[5], I64(lane)))
            builder.store(rows[lane], _address(builder, put, offset, vector)).align = source.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


@intrinsic
def splat(typing: Any, array: Any, value: Any) -> Any:
    """`value`, cast to the dtype of `array`, in every lane."""
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[1], context.get_value_type(kind))

    return kind(array, array.dtype), generate


def _binary(instruction: Callable[[Any, Any, Any], Any], meaning: str) -> Any:
    def operation(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return instruction(builder, arguments[0], arguments[1])

        return a(a, b), generate

    operation.__doc__ = meaning
    return intrinsic(operation)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    bits = ir.VectorType(I32 if isinstance(a.type.element, ir.FloatType) else I64, a.type.count)
    above = builder.icmp_unsigned(">", builder.bitcast(a, bits), builder.bitcast(b, bits))
    return builder.select(above, a, b)


def _positive(builder: Any, a: Any) -> Any:
    zero = ir.Constant(a.type, None)
    return builder.select(builder.fcmp_ordered("<=", a, zero), zero, a)  # NaN is not ≤ 0, and stays


add = _binary(lambda builder, a, b: builder.fadd(a, b), "a + b")
subtract = _binary(lambda builder, a, b: builder.fsub(a, b), "a − b")
multiply = _binary(lambda builder, a, b: builder.fmul(a, b), "a b")
divide = _binary(lambda builder, a, b: builder.fdiv(a, b), "a / b")
larger = _binary(_larger, "max(|a|, |b|) of two magnitudes; their bits are in the same order, inf and NaN on top")


@intrinsic
def choose(typing: Any, p: Any, a: Any, b: Any) -> Any:
    """a where p ≤ 0, b elsewhere and where p is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        p, a, b = arguments
        return builder.select(builder.fcmp_ordered("<=", p, ir.Constant(p.type, None)), a, b)

    return p(p, a, b), generate


def _unary(instruction: Callable[[Any, Any], Any], meaning: str) -> Any:
    def operation(typing: Any, a: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return instruction(builder, arguments[0])

        return a(a), generate

    operation.__doc__ = meaning
    return intrinsic(operation)


magnitude = _unary(lambda builder, a: builder.call(_llvm(builder, "fabs", a.type, 1), [a]), "|a|")
negative = _unary(lambda builder, a: builder.fneg(builder.call(_llvm(builder, "fabs", a.type, 1), [a])), "−|a|")
positive = _unary(_positive, "max(a, 0)")


# --- functions --------------------------------------------------------------------------------------------------------


def _numbers(vector: Any, *values: float) -> list:
    """Each value in every lane."""
    return [ir.Constant(vector, [value] * vector.count) for value in values]


def _horner(builder: Any, x: Any, coefficients: list[float]) -> Any:
    """c₀ + x (c₁ + x (c₂ + …))"""
    fma, numbers = _llvm(builder, "fmuladd", x.type, 3), _numbers(x.type, *coefficients)
    result = numbers.pop()
    while numbers:
        result = builder.call(fma, [result, x, numbers.pop()])
    return result


def _exponential(builder: Any, x: Any) -> tuple[Any, Any, Any]:
    """2ᵏ and e^r − 1 with x = k ln 2 + r, |r| ≤ ln 2 / 2, and whether x is so small that eˣ is none but 0.

    k is rounded by adding a number so large that only whole ones are left; then it stands in the lowest bits. The
    series of e^r − 1 ends where its terms are below a tenth of the last digit of float64.
    """
    single = isinstance(x.type.element, ir.FloatType)
    # ln 2 in two parts, the first with so few digits that k times it is exact
    high, low = (0.693359375, -2.12194440054690583e-4) if single else (0.693147180369123816490, 1.90821492927058770e-10)
    fma = _llvm(builder, "fmuladd", x.type, 3)
    whole = 1.5 * 2.0 ** (23 if single else 52)
    least, per_ln2, whole, high, low = _numbers(
        x.type, -87.3365 if single else -708.3964, 1.4426950408889634, whole, -high, -low
    )
    tiny = builder.fcmp_ordered("<", x, least)
    x = builder.select(tiny, least, x)
    shifted = builder.call(fma, [x, per_ln2, whole])
    k = builder.fsub(shifted, whole)
    r = builder.call(fma, [k, low, builder.call(fma, [k, high, x])])
    series = _horner(builder, r, [1 / math.factorial(i + 1) for i in range(14)])
    integer, digits, bias = (I32, 23, 127) if single else (I64, 52, 1023)
    bits = ir.VectorType(integer, x.type.count)
    lifted = builder.add(builder.bitcast(shifted, bits), ir.Constant(bits, [bias] * bits.count))
    power = builder.bitcast(builder.shl(lifted, ir.Constant(bits, [digits] * bits.count)), x.type)
    return power, builder.fmul(r, series), tiny


def _exp(builder: Any, x: Any) -> Any:
    power, rest, tiny = _exponential(builder, x)
    result = builder.call(_llvm(builder, "fmuladd", x.type, 3), [power, rest, power])
    return builder.select(tiny, ir.Constant(x.type, None), result)


def _expm1(builder: Any, x: Any) -> Any:
    power, rest, _ = _exponential(builder, x)
    (one,) = _numbers(x.type, 1.0)
    return builder.call(_llvm(builder, "fmuladd", x.type, 3), [power, rest, builder.fsub(power, one)])


def _log1p(builder: Any, x: Any) -> Any:
    """log(1 + x) = 2 artanh(y), y = x/(2 + x) ≤ 1/3: a series in y²."""
    (two,) = _numbers(x.type, 2.0)
    y = builder.fdiv(x, builder.fadd(two, x))
    return builder.fmul(y, _horner(builder, builder.fmul(y, y), [2 / (2 * i + 1) for i in range(18)]))


exp = _unary(_exp, "eˣ for x ≤ 0; 0 where that is not a normal number")
expm1 = _unary(_expm1, "eˣ − 1 for x ≤ 0")
log1p = _unary(_log1p, "log(1 + x) for 0 ≤ x ≤ 1")


@intrinsic
def first(typing: Any, a: Any) -> Any:
    """The number in the first lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.extract_element(arguments[0], I32(0))

    return a.dtype(a), generate


def _reduction(combine: Callable[[Any, Any, Any], Any], meaning: str) -> Any:
    def operation(typing: Any, a: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (vector,) = arguments
            lanes = a.lanes
            while lanes > 1:  # the upper half onto the lower one
                lanes //= 2
                half = [min(i + lanes, a.lanes - 1) for i in range(a.lanes)]
                mask = ir.Constant(ir.VectorType(I32, a.lanes), half)
                vector = combine(builder, vector, builder.shuffle_vector(vector, vector, mask))
            return builder.extract_element(vector, I32(0))

        return a.dtype(a), generate

    operation.__doc__ = meaning
    return intrinsic(operation)


total = _reduction(lambda builder, a, b: builder.fadd(a, b), "the sum of the lanes, pair by pair")
largest = _reduction(_larger, "the largest of magnitudes, NaN if there is one")


def _product(panels: int, columns: int) -> Any:
    """A kernel for `panels` × LANES rows and `columns` columns, its sums in registers."""

    def operation(
        typing: Any, F: Any, f: Any, panel: Any, M: Any, x: Any, x_apart: Any, s: Any, s_apart: Any, g: Any,
        g_apart: Any, k0: Any, k1: Any,
    ) -> Any:  # fmt: skip
        kind = Vector(F.dtype)
        size = F.dtype.bitwidth // 8

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = context.get_value_type(kind)
            fma = _llvm(builder, "fmuladd", vector, 3)
            F, M = (
                _data(context, builder, kind, arguments[i])
                for kind, i in ((signature.args[0], 0), (signature.args[3], 3))
            )

            def starts(array: Any, first: Any, apart: Any, count: int) -> list:
                return [builder.gep(array, [builder.add(first, builder.mul(I64(j), apart))]) for j in range(count)]

            rows = starts(F, arguments[1], arguments[2], panels)
            xs, sources, targets = (starts(M, arguments[i], arguments[i + 1], columns) for i in (4, 6, 8))
            sums = [[cgutils.alloca_once(builder, vector) for _ in range(panels)] for _ in range(columns)]
            for j in range(columns):
                for p in range(panels):
                    builder.store(ir.Constant(vector, None), sums[j][p])
            with cgutils.for_range_slice(builder, arguments[10], arguments[11], I64(1)) as (k, _):
                offset = builder.mul(k, I64(kind.lanes))
                a = [builder.load(_address(builder, row, offset, vector)) for row in rows]
                for value in a:
                    value.align = size
                for j in range(columns):
                    entry = _splat(builder, builder.load(builder.gep(xs[j], [k])), vector)
                    for p in range(panels):
                        builder.store(builder.call(fma, [a[p], entry, builder.load(sums[j][p])]), sums[j][p])
            for j in range(columns):
                for p in range(panels):
                    here = I64(p * kind.lanes)
                    source = builder.load(_address(builder, sources[j], here, vector))
                    result = builder.fadd(source, builder.load(sums[j][p]))
                    target = builder.store(result, _address(builder, targets[j], here, vector))
                    source.align = target.align = size
            return context.get_dummy_value()

        return types.void(F, f, panel, M, x, x_apart, s, s_apart, g, g_apart, k0, k1), generate

    operation.__doc__ = f"G = S + F X over k0 ≤ k < k1 in {panels} panels and {columns} columns, so far apart in M."
    return intrinsic(operation)


product_2xg = _product(2, GROUP)
product_1xg = _product(1, GROUP)
product_4x1 = _product(4, 1)
product_2x1 = _product(2, 1)
product_1x1 = _product(1, 1)
