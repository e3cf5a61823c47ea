"""CPU vectors for the compiled kernels: what they need, written out as LLVM instructions.

A vector holds LANES(dtype) numbers of one column, or of one column of A. Loops over plain scalars would leave it to the
compiler whether sums stay in registers and which terms it joins first. Here both are fixed: every product is a chain

    p_i = fma(a_ik, x_k, p_i),   k = 0, 1, …, K − 1

one lane per row i, whatever the number of columns, so that an answer does not depend on which kernel computed it.
`fmuladd` is one rounding where the CPU has it and two where it has not, in every kernel alike.
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
def transpose(typing: Any, source: Any, first: Any, apart: Any, target: Any, place: Any) -> Any:
    """A square of LANES × LANES: target[place + LANES k + l] = source[first + apart l + k]."""
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
            offset = builder.add(arguments[4], I64(lane * lanes))
            builder.store(rows[lane], _address(builder, put, offset, vector)).align = source.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp), generate


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
larger = _binary(_larger, "max(|a|, |b|) of two magnitudes; their bits are in the same order, inf and NaN on top")


def _unary(instruction: Callable[[Any, Any], Any], meaning: str) -> Any:
    def operation(typing: Any, a: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return instruction(builder, arguments[0])

        return a(a), generate

    operation.__doc__ = meaning
    return intrinsic(operation)


magnitude = _unary(lambda builder, a: builder.call(_llvm(builder, "fabs", a.type, 1), [a]), "|a|")
positive = _unary(_positive, "max(a, 0)")


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
        typing: Any, F: Any, f: Any, panel: Any, X: Any, x: Any, S: Any, s: Any, G: Any, g: Any,
        row: Any, c: Any, k0: Any, k1: Any,
    ) -> Any:  # fmt: skip
        kind = Vector(F.dtype)
        size = F.dtype.bitwidth // 8

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = context.get_value_type(kind)
            step = I64(kind.lanes)
            fma = _llvm(builder, "fmuladd", vector, 3)
            data = [_data(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 4, 5, 6, 7, 8)]
            F, X, x, S, s, G, g = data
            f, panel, row, c, first, end = (arguments[i] for i in (1, 2, 9, 10, 11, 12))

            def starts(array: Any, offsets: Any, row: Any) -> list:
                """Where each of the columns has its entry `row`."""
                j = [builder.load(builder.gep(offsets, [builder.add(c, I64(j))])) for j in range(columns)]
                return [builder.gep(array, [builder.add(offset, row)]) for offset in j]

            xs, sources, targets = starts(X, x, I64(0)), starts(S, s, row), starts(G, g, row)
            rows = [builder.gep(F, [builder.add(f, builder.mul(I64(p), panel))]) for p in range(panels)]
            sums = [[cgutils.alloca_once(builder, vector) for _ in range(panels)] for _ in range(columns)]
            for j in range(columns):
                for p in range(panels):
                    value = builder.load(_address(builder, sources[j], I64(p * kind.lanes), vector))
                    value.align = size
                    builder.store(value, sums[j][p])
            with cgutils.for_range_slice(builder, first, end, I64(1)) as (k, _):
                offset = builder.mul(k, step)
                a = [builder.load(_address(builder, row, offset, vector)) for row in rows]
                for value in a:
                    value.align = size
                for j in range(columns):
                    entry = _splat(builder, builder.load(builder.gep(xs[j], [k])), vector)
                    for p in range(panels):
                        builder.store(builder.call(fma, [a[p], entry, builder.load(sums[j][p])]), sums[j][p])
            for j in range(columns):
                for p in range(panels):
                    result = builder.store(
                        builder.load(sums[j][p]), _address(builder, targets[j], I64(p * kind.lanes), vector)
                    )
                    result.align = size
            return context.get_dummy_value()

        return types.void(F, f, panel, X, x, S, s, G, g, row, c, k0, k1), generate

    operation.__doc__ = f"G[g_j] = S[s_j] + F X[x_j] over k0 ≤ k < k1: {panels} panels, {columns} columns."
    return intrinsic(operation)


product_2xg = _product(2, GROUP)
product_1xg = _product(1, GROUP)
product_4x1 = _product(4, 1)
product_2x1 = _product(2, 1)
product_1x1 = _product(1, 1)
