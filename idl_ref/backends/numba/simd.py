"""CPU vectors for the compiled kernels: operations of the processor by name, as LLVM instructions.

A vector holds LANES(dtype) numbers of one column, or of one column of A. Loops over plain scalars would leave the
choice to the compiler which sums stay in registers and which terms are joined first; with vectors the source decides.

Every function here is one operation without control flow. All that is made of several operations is Numba source over
these functions, which a debugger can enter when they come from `simd_plain` instead. One function emits several
instructions: `transpose` turns a square of LANES × LANES numbers in registers. As Numba source it would need one text
for each number of lanes, because a tuple of LANES vectors cannot be indexed by a loop variable and stay in registers.

`fma` is one rounding where the processor has this instruction, and two where it has not, in every kernel alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, models, register_model


def _registers() -> tuple[int, int]:
    """Bytes of a vector register, and how many columns of a product fit into the registers next to two of A."""
    if getattr(config, "CPU_NAME", None) or getattr(config, "CPU_FEATURES", None):
        return 16, 4  # Numba is told to compile for another processor: every processor has vectors of this size
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 8
    return (32, 4) if features.get("avx2") else (16, 4)


VECTOR_BYTES, GROUP = _registers()
I32, I64 = ir.IntType(32), ir.IntType(64)


# --- types ------------------------------------------------------------------------------------------------------------


class Vector(types.Type):
    """LANES numbers in a register."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype} x {self.lanes})")


class Mask(types.Type):
    """One truth value for each of LANES numbers."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"Mask({lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        element = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.lanes))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Mask) -> None:
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), kind.lanes))


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _address(builder: Any, data: Any, offset: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, vector.count), None))


def _bits(vector: Any) -> Any:
    """The type of vectors of integers as wide as the numbers of `vector`."""
    return ir.VectorType(I32 if isinstance(vector.element, ir.FloatType) else I64, vector.count)


def _first(builder: Any, count: Any, vector: Any) -> Any:
    """The mask that is true in the first `count` lanes of a vector."""
    numbers = ir.Constant(ir.VectorType(I64, vector.count), list(range(vector.count)))
    return builder.icmp_signed("<", numbers, _splat(builder, count, numbers.type))


def _llvm(builder: Any, name: str, vector: Any, arguments: int) -> Any:
    bits = "f32" if isinstance(vector.element, ir.FloatType) else "f64"
    function = ir.FunctionType(vector, [vector] * arguments)
    return cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.v{vector.count}{bits}")


# --- functions and arrays ---------------------------------------------------------------------------------------------


@intrinsic
def separate(typing: Any) -> Any:
    """Keep the function that calls this from being inlined: it is compiled once, not anew in each of its callers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def lanes(typing: Any, like: Any) -> Any:
    """How many numbers of the dtype of an array or a vector a vector holds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return I64(Vector(like.dtype).lanes)

    return types.intp(like), generate


@intrinsic
def address(typing: Any, array: Any) -> Any:
    """Where `array` begins in memory, in bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(_data(context, builder, array, arguments[0]), I64)

    return types.intp(array), generate


def _load(wide: bool, meaning: str) -> Any:
    def operation(typing: Any, array: Any, offset: Any) -> Any:
        kind = Vector(types.float64 if wide else array.dtype)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(context.get_value_type(array.dtype), kind.lanes)
            value = builder.load(_address(builder, _data(context, builder, array, arguments[0]), arguments[1], vector))
            value.align = array.dtype.bitwidth // 8
            return value if kind.dtype == array.dtype else builder.fpext(value, context.get_value_type(kind))

        return kind(array, types.intp), generate

    operation.__doc__ = meaning
    return intrinsic(operation)


load = _load(False, "array[offset : offset + LANES]")
load_wide = _load(True, "array[offset : offset + LANES] in float64, for the LANES of that")


@intrinsic
def load_some(typing: Any, array: Any, offset: Any, count: Any) -> Any:
    """array[offset : offset + count], and 0 in the lanes from `count` on, whose memory is not read."""
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(kind)
        place = _address(builder, _data(context, builder, array, arguments[0]), arguments[1], vector)
        mask = _first(builder, arguments[2], vector)
        form = ir.FunctionType(vector, [place.type, I32, mask.type, vector])
        name = f"llvm.masked.load.v{kind.lanes}f{array.dtype.bitwidth}.p0"
        function = cgutils.get_or_insert_function(builder.module, form, name)
        zeros = ir.Constant(vector, [0.0] * kind.lanes)
        return builder.call(function, [place, I32(array.dtype.bitwidth // 8), mask, zeros])

    return kind(array, types.intp, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """array[offset : offset + LANES] = value, which is rounded if the dtype of the array is narrower."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, result = _data(context, builder, array, arguments[0]), arguments[2]
        if array.dtype != value.dtype:
            result = builder.fptrunc(result, ir.VectorType(context.get_value_type(array.dtype), value.lanes))
        builder.store(result, _address(builder, data, arguments[1], result.type)).align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def store_some(typing: Any, array: Any, offset: Any, value: Any, count: Any) -> Any:
    """array[offset : offset + count] = the first `count` lanes of `value`; no other memory is written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = arguments[2].type
        place = _address(builder, _data(context, builder, array, arguments[0]), arguments[1], vector)
        mask = _first(builder, arguments[3], vector)
        form = ir.FunctionType(ir.VoidType(), [vector, place.type, I32, mask.type])
        name = f"llvm.masked.store.v{vector.count}f{array.dtype.bitwidth}.p0"
        function = cgutils.get_or_insert_function(builder.module, form, name)
        builder.call(function, [arguments[2], place, I32(array.dtype.bitwidth // 8), mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, value, types.intp), generate


@intrinsic
def fresh(typing: Any, array: Any) -> Any:
    """array[0] of an array of int64, read from memory at every call, because another thread may change it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_data(context, builder, array, arguments[0]), "monotonic", 8)

    return types.int64(array), generate


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
def splat(typing: Any, like: Any, value: Any) -> Any:
    """`value`, cast to the dtype of an array or a vector, in every lane."""
    kind = Vector(like.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[1], context.get_value_type(kind))

    return kind(like, like.dtype), generate


@intrinsic
def broadcast(typing: Any, array: Any, offset: Any) -> Any:
    """array[offset] in every lane."""
    kind = Vector(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = builder.load(builder.gep(_data(context, builder, array, arguments[0]), [arguments[1]]))
        return _splat(builder, number, context.get_value_type(kind))

    return kind(array, types.intp), generate


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _operation(instruction: Callable[..., Any], arity: int, meaning: str) -> Any:
    """An intrinsic that maps `arity` vectors of one kind to a vector of this kind."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return instruction(builder, *arguments)

    def one(typing: Any, a: Any) -> Any:
        return a(a), generate

    def two(typing: Any, a: Any, b: Any) -> Any:
        return a(a, b), generate

    def three(typing: Any, a: Any, b: Any, c: Any) -> Any:
        return a(a, b, c), generate

    operation = (one, two, three)[arity - 1]
    operation.__doc__ = meaning
    return intrinsic(operation)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    bits = _bits(a.type)
    above = builder.icmp_unsigned(">", builder.bitcast(a, bits), builder.bitcast(b, bits))
    return builder.select(above, a, b)


add = _operation(lambda builder, a, b: builder.fadd(a, b), 2, "a + b")
subtract = _operation(lambda builder, a, b: builder.fsub(a, b), 2, "a − b")
multiply = _operation(lambda builder, a, b: builder.fmul(a, b), 2, "a b")
divide = _operation(lambda builder, a, b: builder.fdiv(a, b), 2, "a / b")
fma = _operation(
    lambda builder, a, b, c: builder.call(_llvm(builder, "fmuladd", a.type, 3), [a, b, c]), 3, "a b + c, rounded once"
)
negate = _operation(lambda builder, a: builder.fneg(a), 1, "−a")
magnitude = _operation(lambda builder, a: builder.call(_llvm(builder, "fabs", a.type, 1), [a]), 1, "|a|")
larger = _operation(
    _larger, 2, "max(a, b) of two magnitudes: their bits, as integers, are in the same order, inf and NaN on top"
)


# --- comparisons ------------------------------------------------------------------------------------------------------


def _comparison(relation: str, meaning: str) -> Any:
    def operation(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.fcmp_ordered(relation, *arguments)

        return Mask(a.lanes)(a, b), generate

    operation.__doc__ = meaning
    return intrinsic(operation)


below = _comparison("<", "Where a < b; false where a or b is NaN.")
at_most = _comparison("<=", "Where a ≤ b; false where a or b is NaN.")


@intrinsic
def select(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where `mask` is true, b elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return a(mask, a, b), generate


# --- bits and lanes ---------------------------------------------------------------------------------------------------


def _on_bits(instruction: Callable[[Any, Any, Any], Any], meaning: str) -> Any:
    """An intrinsic that takes the bits of every number of a vector as an integer."""

    def operation(typing: Any, a: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value, amount = arguments
            bits = _bits(value.type)
            if bits.element is I32:
                amount = builder.trunc(amount, I32)
            result = instruction(builder, builder.bitcast(value, bits), _splat(builder, amount, bits))
            return builder.bitcast(result, value.type)

        return a(a, types.intp), generate

    operation.__doc__ = meaning
    return intrinsic(operation)


add_to_bits = _on_bits(lambda builder, a, b: builder.add(a, b), "`count` is added to the bits of a, taken as integers.")
shift_bits = _on_bits(lambda builder, a, b: builder.shl(a, b), "The bits of a move up by `count` places.")


@intrinsic
def first(typing: Any, a: Any) -> Any:
    """The number in the first lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.extract_element(arguments[0], I32(0))

    return a.dtype(a), generate


@intrinsic(prefer_literal=True)
def down(typing: Any, a: Any, count: Any) -> Any:
    """The number of lane i + count in lane i; the last lanes keep the number of the last one. `count` is a literal."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        lanes = [min(i + count.literal_value, a.lanes - 1) for i in range(a.lanes)]
        return builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, a.lanes), lanes))

    return a(a, count), generate


@intrinsic(prefer_literal=True)
def halves(typing: Any, a: Any, b: Any, parts: Any, upper: Any) -> Any:
    """The lower halves of all parts of a, and then of b, side by side, or the upper ones. The numbers are literals."""
    width = a.lanes // parts.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if width < 2:  # A part of one lane has no halves; only branches that are never taken ask for them.
            return arguments[0]
        lanes = [i + upper.literal_value * (width // 2) for i in range(2 * a.lanes) if i % width < width // 2]
        return builder.shuffle_vector(*arguments[:2], ir.Constant(ir.VectorType(I32, a.lanes), lanes))

    return a(a, b, parts, upper), generate
