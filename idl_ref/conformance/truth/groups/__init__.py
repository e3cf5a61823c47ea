"""The groups of cases, by name: each is a function that yields the cases without their truth."""

from idl_ref.conformance.truth.groups.blocks import blocks
from idl_ref.conformance.truth.groups.equation import activations, ball, contraction, counts, ill_posed, kinks, stopping
from idl_ref.conformance.truth.groups.inputs import (
    functions,
    memory,
    not_finite,
    precision,
    ranks,
    scales,
    shapes,
    storage,
)
from idl_ref.conformance.truth.groups.roots import roots
from idl_ref.conformance.truth.groups.rounding import cycles, rows
from idl_ref.conformance.truth.groups.sparse import sparse

GROUPS = {
    group.__name__.replace("_", "-"): group
    for group in (
        contraction, activations, stopping, counts, ball, blocks, sparse, ill_posed, kinks,
        shapes, ranks, precision, scales, storage, rows, cycles, memory, not_finite, functions, roots,
    )
}  # fmt: skip
