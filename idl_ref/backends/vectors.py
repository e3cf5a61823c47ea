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


def _load(builder: Any, data: Any, offset: Any, vector: Any) -> Any:
    value = builder.load(_address(builder, data, offset, vector))
    value.align = _bits(vector) // 8
    return value


def _store(builder: Any, value: Any, data: Any, offset: Any) -> None:
    builder.store(value, _address(builder, data, offset, value.type)).align = _bits(value.type) // 8


def _bits(vector: Any) -> int:
    return 32 if isinstance(vector.element, ir.FloatType) else 64


def _integers(vector: Any) -> Any:
    """Vectors of as many integers, each as long as a number."""
    return ir.VectorType(ir.IntType(_bits(vector)), vector.count)


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, vector.count), None))


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    """A function of vectors that LLVM has."""
    vector = arguments[0].type
    kind, name = ir.FunctionType(vector, [vector] * len(arguments)), f"llvm.{name}.v{vector.count}f{_bits(vector)}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


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
        return _load(builder, data, arguments[1], context.get_value_type(kind))

    return kind(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """array[offset : offset + LANES] = value"""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _store(builder, arguments[2], _data(context, builder, array, arguments[0]), arguments[1])
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
            rows.append(_load(builder, taken, offset, vector))
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
            _store(builder, rows[lane], put, offset)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


@intrinsic
def splat(typing: Any, array: Any, value: Any) -> Any:
    """`value`, cast to the dtype of `array`, in every lane."""
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[1], context.get_value_type(kind))

    return kind(array, array.dtype), generate


def _operation(arity: int, instruction: Callable[..., Any], meaning: str, scalar: bool = False) -> Any:
    """`instruction` (builder, vectors) as a function of 1, 2 or 3 vectors, to a vector or a number."""

    def typed(*vectors: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return instruction(builder, *arguments)

        kind = vectors[0]
        return (kind.dtype if scalar else kind)(*vectors), generate

    # Numba reads the signature, and takes none of any length.
    unary, binary = lambda typing, a: typed(a), lambda typing, a, b: typed(a, b)
    operation: Any = (unary, binary, lambda typing, p, a, b: typed(p, a, b))[arity - 1]
    operation.__doc__ = meaning
    return intrinsic(operation)


def _choose(builder: Any, p: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<=", p, ir.Constant(p.type, None)), a, b)


def _magnitude(builder: Any, a: Any) -> Any:
    return _call(builder, "fabs", a)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    bits = _integers(a.type)
    above = builder.icmp_unsigned(">", builder.bitcast(a, bits), builder.bitcast(b, bits))
    return builder.select(above, a, b)


add = _operation(2, ir.IRBuilder.fadd, "a + b")
subtract = _operation(2, ir.IRBuilder.fsub, "a − b")
multiply = _operation(2, ir.IRBuilder.fmul, "a b")
divide = _operation(2, ir.IRBuilder.fdiv, "a / b")
larger = _operation(2, _larger, "max(|a|, |b|) of two magnitudes; their bits are in the same order, inf and NaN on top")
choose = _operation(3, _choose, "a where p ≤ 0, b elsewhere and where p is NaN")
magnitude = _operation(1, _magnitude, "|a|")
negative = _operation(1, lambda builder, a: builder.fneg(_magnitude(builder, a)), "−|a|")
positive = _operation(
    1, lambda builder, a: _choose(builder, a, ir.Constant(a.type, None), a), "max(a, 0); NaN stays NaN"
)


# --- functions --------------------------------------------------------------------------------------------------------


def _numbers(vector: Any, *values: float) -> list:
    """Each value in every lane."""
    return [ir.Constant(vector, [value] * vector.count) for value in values]


def _horner(builder: Any, x: Any, coefficients: list[float]) -> Any:
    """c₀ + x (c₁ + x (c₂ + …))"""
    *numbers, result = _numbers(x.type, *coefficients)
    for number in reversed(numbers):
        result = _call(builder, "fmuladd", result, x, number)
    return result


def _exponential(builder: Any, x: Any) -> tuple[Any, Any, Any]:
    """2ᵏ and e^r − 1 with x = k ln 2 + r, |r| ≤ ln 2 / 2, and whether x is so small that eˣ is none but 0.

    k is rounded by adding a number so large that only whole ones are left; then it stands in the lowest bits. The
    series of e^r − 1 ends where its terms are below a tenth of the last digit of float64.
    """
    single = _bits(x.type) == 32
    # ln 2 in two parts, the first with so few digits that k times it is exact
    high, low = (0.693359375, -2.12194440054690583e-4) if single else (0.693147180369123816490, 1.90821492927058770e-10)
    whole = 1.5 * 2.0 ** (23 if single else 52)
    least, per_ln2, whole, high, low = _numbers(
        x.type, -87.3365 if single else -708.3964, 1.4426950408889634, whole, -high, -low
    )
    tiny = builder.fcmp_ordered("<", x, least)
    x = builder.select(tiny, least, x)
    shifted = _call(builder, "fmuladd", x, per_ln2, whole)
    k = builder.fsub(shifted, whole)
    r = _call(builder, "fmuladd", k, low, _call(builder, "fmuladd", k, high, x))
    series = _horner(builder, r, [1 / math.factorial(i + 1) for i in range(14)])
    bits, digits, bias = _integers(x.type), *((23, 127) if single else (52, 1023))
    lifted = builder.add(builder.bitcast(shifted, bits), ir.Constant(bits, [bias] * bits.count))
    power = builder.bitcast(builder.shl(lifted, ir.Constant(bits, [digits] * bits.count)), x.type)
    return power, builder.fmul(r, series), tiny


def _exp(builder: Any, x: Any) -> Any:
    power, rest, tiny = _exponential(builder, x)
    result = _call(builder, "fmuladd", power, rest, power)
    return builder.select(tiny, ir.Constant(x.type, None), result)


def _expm1(builder: Any, x: Any) -> Any:
    power, rest, _ = _exponential(builder, x)
    (one,) = _numbers(x.type, 1.0)
    return _call(builder, "fmuladd", power, rest, builder.fsub(power, one))


def _log1p(builder: Any, x: Any) -> Any:
    """log(1 + x) = 2 artanh(y), y = x/(2 + x) ≤ 1/3: a series in y²."""
    (two,) = _numbers(x.type, 2.0)
    y = builder.fdiv(x, builder.fadd(two, x))
    return builder.fmul(y, _horner(builder, builder.fmul(y, y), [2 / (2 * i + 1) for i in range(18)]))


exp = _operation(1, _exp, "eˣ for x ≤ 0; 0 where that is not a normal number")
expm1 = _operation(1, _expm1, "eˣ − 1 for x ≤ 0")
log1p = _operation(1, _log1p, "log(1 + x) for 0 ≤ x ≤ 1")


def _reduction(combine: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """One number from all lanes: the upper half is combined with the lower one until there is one left."""

    def instruction(builder: Any, vector: Any) -> Any:
        lanes = count = vector.type.count
        while lanes > 1:
            lanes //= 2
            half = [min(i + lanes, count - 1) for i in range(count)]
            mask = ir.Constant(ir.VectorType(I32, count), half)
            vector = combine(builder, vector, builder.shuffle_vector(vector, vector, mask))
        return builder.extract_element(vector, I32(0))

    return instruction


first = _operation(
    1, lambda builder, a: builder.extract_element(a, I32(0)), "the number in the first lane", scalar=True
)
total = _operation(1, _reduction(ir.IRBuilder.fadd), "the sum of the lanes, pair by pair", scalar=True)
largest = _operation(1, _reduction(_larger), "the largest of magnitudes, NaN if there is one", scalar=True)


def _product(panels: int, columns: int) -> Any:
    """A kernel for `panels` × LANES rows and `columns` columns, its sums in registers."""

    def operation(
        typing: Any, F: Any, f: Any, panel: Any, M: Any, x: Any, x_apart: Any, s: Any, s_apart: Any, g: Any,
        g_apart: Any, k0: Any, k1: Any,
    ) -> Any:  # fmt: skip
        kind = Vector(F.dtype)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = context.get_value_type(kind)
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
                a = [_load(builder, row, offset, vector) for row in rows]
                for j in range(columns):
                    entry = _splat(builder, builder.load(builder.gep(xs[j], [k])), vector)
                    for p in range(panels):
                        so_far = builder.load(sums[j][p])
                        builder.store(_call(builder, "fmuladd", a[p], entry, so_far), sums[j][p])
            for j in range(columns):
                for p in range(panels):
                    here = I64(p * kind.lanes)
                    result = builder.fadd(_load(builder, sources[j], here, vector), builder.load(sums[j][p]))
                    _store(builder, result, targets[j], here)
            return context.get_dummy_value()

        return types.void(F, f, panel, M, x, x_apart, s, s_apart, g, g_apart, k0, k1), generate

    operation.__doc__ = f"G = S + F X over k0 ≤ k < k1 in {panels} panels and {columns} columns, so far apart in M."
    return intrinsic(operation)


product_2xg = _product(2, GROUP)
product_1xg = _product(1, GROUP)
product_4x1 = _product(4, 1)
product_2x1 = _product(2, 1)
product_1x1 = _product(1, 1)
