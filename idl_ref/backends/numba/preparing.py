"""This module prepares a solve: it chooses the method, packs the factors, and bounds what rounding does to them."""

from __future__ import annotations

import numpy as np

from idl_ref import certificate
from idl_ref import factors as fac
from idl_ref.activations import IDENTITY, MIXED, Activation, Mixed
from idl_ref.backends import methods
from idl_ref.backends.equation import Equation
from idl_ref.backends.numba.launches import ENTRY_FLOPS, NOTHING, Prepared, flat
from idl_ref.backends.numba.products import ROWS, pack
from idl_ref.solution import SolveOptions


def packed_size(height: int, width: int) -> int:
    """Return the size of an array for the panels of a factor, with ROWS to spare for an aligned start."""
    return methods.filled(height, ROWS) * width + ROWS


def codes_size(n: int, activation: Activation) -> int:
    """Return the number of entries that the codes of the rows take behind the panels of F1, 0 for one activation."""
    return methods.filled(n, ROWS) if isinstance(activation, Mixed) else 0


def write_codes(activation: Activation, F1: np.ndarray) -> None:
    """Write the codes of the rows to the end of F1, where it has room for them; see `mixed`."""
    if isinstance(activation, Mixed):
        codes = activation.codes
        end = F1[len(F1) - codes_size(len(codes), activation) :]
        end[:] = IDENTITY
        end[: len(codes)] = codes


def prepare(equation: Equation, options: SolveOptions, known: Prepared | None) -> Prepared:
    """Choose the method and pack the factors; `known`, prepared for other options, saves packing them again."""
    factors, activation, S, _ = equation
    A, dtype, product = factors[0], factors[0].dtype, len(factors) > 1
    n, width = A.shape
    method, r = methods.choose(options.method, factors, S is not None), width if product else 0
    sizes = n, r, activation.code, min(int(options.max_iter), methods.ENDLESS)
    if known is not None:
        return known._replace(options=options, method=method, sizes=sizes)
    F1 = np.empty(packed_size(n, width) + (codes_size(n, activation) if activation.code == MIXED else 0), dtype)
    if activation.code == MIXED:
        write_codes(activation, F1)
    F2 = np.empty(packed_size(r, n), dtype) if product else NOTHING[dtype][0]
    flops = ENTRY_FLOPS * n + 2 * (2 * n * r if product else n * n)
    largest = pack(*packing(equation, F1, F2))
    return Prepared(options, method, sizes, F1, F2, roundings(equation, largest), flops)


def packing(equation: Equation, F1: np.ndarray, F2: np.ndarray) -> tuple:
    """Return what `pack` takes to write the factors of an equation to F1 and F2."""
    factors, (n, width), product = equation.factors, equation.factors[0].shape, len(equation.factors) > 1
    second = flat(factors[1]) if product else NOTHING[F1.dtype]
    return flat(factors[0]), second, (n, width if product else 0), equation.S is not None, F1, F2


def roundings(equation: Equation, largest: float) -> tuple[float, ...]:
    """Return the fields of a Rounding for an equation, whose factors were packed.

    Packing also computes |F₁| |F₂| … 1, or |… F₂ F₁|ᵀ 1 for the adjoint. Its `largest` entry bounds ‖A‖∞.
    """
    factors, activation, S, _ = equation
    A, product = factors[0], len(factors) > 1
    terms = ROWS + 2 * (sum(A.shape) if product else len(A))
    norm = methods.norm_bound(largest, terms, A.dtype, product)
    if not norm < 1 or activation.code == MIXED:  # The certificate then depends on the exact value.
        norm = fac.norm_inf(certificate.contracting(factors, activation) if S is None else fac.transpose(factors))
    return tuple(certificate.rounding(factors, activation, A.dtype, norm))
