"""The activations as text, for what is exported: the formulas of `idl_ref.activations` in other languages."""

from __future__ import annotations

from typing import NamedTuple

from idl_ref.activations import LEAK


class Formula(NamedTuple):
    """φ in NumPy, of an array P, and in C99, of a number p; `f` stands for the suffix of libm's float functions."""

    numpy: str
    c: str
    at_zero: float = 0  # φ(0)
    largest: float = float("inf")  # of |φ|
    libm: bool = False


SOFTPLUS_AT_ZERO = 0.6931471805599454  # log 2, rounded up

FORMULAS = {
    "identity": Formula("P", "p"),
    "relu": Formula("np.maximum(P, 0)", "p < 0 ? 0 : p"),
    "leaky_relu": Formula(f"np.maximum(P, {LEAK} * P)", f"p < 0 ? (real){LEAK} * p : p"),
    "tanh": Formula("np.tanh(P)", "tanh{f}(p)", largest=1, libm=True),
    "sigmoid": Formula(
        "np.where(P >= 0, 1, np.exp(-np.abs(P))) / (1 + np.exp(-np.abs(P)))",
        "p < 0 ? exp{f}(p) / (1 + exp{f}(p)) : 1 / (1 + exp{f}(-p))",
        at_zero=0.5,
        largest=1,
        libm=True,
    ),
    "softplus": Formula(
        "np.maximum(P, 0) + np.log1p(np.exp(-np.abs(P)))",
        "(p < 0 ? 0 : p) + log1p{f}(exp{f}(p < 0 ? p : -p))",
        at_zero=SOFTPLUS_AT_ZERO,
        libm=True,
    ),
    "elu": Formula("np.where(P > 0, P, np.expm1(np.minimum(P, 0)))", "p < 0 ? expm1{f}(p) : p", libm=True),
    "hardtanh": Formula("np.clip(P, -1, 1)", "p < -1 ? -1 : p > 1 ? 1 : p", largest=1),
    "softsign": Formula("P / (1 + np.abs(P))", "p / (1 + (p < 0 ? -p : p))", largest=1),
}
