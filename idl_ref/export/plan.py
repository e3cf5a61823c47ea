"""What an export needs to know about a model: its effective weights, how many iterations suffice, and its error.

The exported code solves x = φ(A x + z) for z = B u + b, by x ← φ(A x + z) from x = 0, in floating point. This module
proves that **no sample inside the declared range fails**, and how far its outputs can be from the exact ones. All
bounds hold in every entry on its own, so that a row with large entries makes no allowance for another one.

Let γ bound the relative rounding of the sums in one application, u be the unit roundoff, and M = Lip(φ)|A|(1 + γ)(1 +
16 u), whose Perron root must be below 1. Inside the range, |z| ≤ Z in every entry, the rounding of z included, and

    |x̂ₖ|  ≤  X = (I − M)⁻¹ f,   f = (Lip(φ)(1 + γ) Z + |φ(0)|)(1 + 16 u),   but never above the largest |φ|:

if it holds for x̂ₖ₋₁, then |x̂ₖ| ≤ M X + f = X. So rounding changes an application by at most

    ρ  =  γ P + 16 u (P + |φ(0)|),   P = M X + Lip(φ) Z,   but never by more than twice the largest |φ|.

The first step is x̂₁, which f bounds. A later step differs from M times the step before by the rounding of two
applications, |step k| ≤ M |step k−1| + 2 ρ, so that

    |step k|  ≤  Mᵏ⁻¹ f + 2 (I − M)⁻¹ ρ  ≤  LIMIT        for k = ITERATIONS.

ITERATIONS is the first k for which no entry of Mᵏ⁻¹ f exceeds max(tol, 4·eps)/4, and a sample is accepted after so many
iterations if no entry of its step exceeds LIMIT. The right-hand side shows that every finite sample inside the range is
accepted. It is accepted with a right answer, because from x* − x̂ₖ = φ(A x* + z) − φ(A x̂ₖ₋₁ + z) up to ρ,

    |x* − x̂ₖ|  ≤  Mᵏ |x*| + (I − M)⁻¹ ρ.

For the scale s = max(‖z‖, |φ(0)|) < 1 of a small sample, (Lip(φ) + 1) s takes the place of f (Lip(φ) s if φ(0) = 0), so
that the iterations leave at most s·max(tol, 4·eps)/4 and the rounding of that sample.

Most samples stop earlier: after a step that is at most tol·min(1, s) in every entry; and after every eighth iteration
also if each entry of the step is at most 4·eps times |φ(0)| + Lip(φ)(|A||x̂| + |z|) in that row, or 4·eps times 16 where
that is less and φ is bounded. With J as the largest such limit inside the range, either way

    |x* − x̂|  ≤  (I − M)⁻¹ (M max(tol, J) + ρ + Lip(φ) ζ),      ζ = the rounding of z, preprocessing included,
    |y* − ŷ|  ≤  |C||x* − x̂| + γ (|C| X + |D||u| + |d|) + |D| η,   η = the rounding of u in the preprocessing.

The first line with |step k| in the place of max(tol, J) holds for every k, and certifies each step of a trajectory.

If A is strictly triangular, NumPy and C code makes one sweep, which has no step: M max(tol, J) is left out. Numbers
that underflow add a few times the smallest normal number to each bound. A model or a range for which the bounds exceed
the largest number of the dtype is refused, because then an overflow cannot be excluded.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activation_names, activations, reasons
from idl_ref import factors as fac
from idl_ref.activations import LEAK, Rows
from idl_ref.certificate import SAFETY, ULPS, limits, upward
from idl_ref.export import inputs
from idl_ref.export.majorant import Majorant
from idl_ref.model import ImplicitModel
from idl_ref.preprocessing import Standardise
from idl_ref.weights import by_name

MOST_ITERATIONS = 100_000
EVERY = 8  # After so many iterations, the exported code judges by rounding, which takes one more product with |A|.
ROUNDED = 4  # A step of at most this many times eps times the terms of its row is as small as rounding allows.
SATURATED = 16.0  # the largest sum of such terms for which rounding explains a step, if φ is bounded


Number = Any  # a float, or an array (n,) with one for each row, if rows have different φ


class Formula(NamedTuple):
    """φ as text: in NumPy for an array P; in C99 for a number p, with {f} for the suffix of libm's float functions.

    If rows have different φ, the texts are empty, and `Plan.kinds` has those of every row.
    """

    numpy: str
    c: str
    at_zero: Number = 0  # φ(0)
    largest: Number = float("inf")  # the supremum of |φ|
    libm: bool = False  # whether the C99 text calls functions of libm


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
        at_zero=0.6931471805599454,  # log 2, rounded up
        libm=True,
    ),
    "elu": Formula("np.where(P > 0, P, np.expm1(np.minimum(P, 0)))", "p < 0 ? expm1{f}(p) : p", libm=True),
    "hardtanh": Formula("np.clip(P, -1, 1)", "p < -1 ? -1 : p > 1 ? 1 : p", largest=1),
    "softsign": Formula("P / (1 + np.abs(P))", "p / (1 + (p < 0 ? -p : p))", largest=1),
}


@dataclass(frozen=True)
class Plan:
    """A model to be exported.

    B is (n, p), C is (q, n), and D is (q, p), or None for a model without D. The bias is b (n,) and d (q,), or None.
    """

    factors: fac.Factors
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray | None
    b: np.ndarray | None
    d: np.ndarray | None
    activation: str
    kinds: tuple[tuple[str, Rows], ...]  # the names of the activations, and the rows that have them
    lipschitz: Number
    tol: float
    preprocessing: Standardise | None
    classes: np.ndarray | None  # (q,), the labels of the outputs
    inputs: inputs.Inputs
    triangle: str | None  # "upper" or "lower" if the target makes one sweep, because A is strictly triangular
    iterations: int  # the number of Picard iterations that suffices
    limit: np.ndarray  # (n,), the largest step after so many iterations
    error_bound: float  # of every entry of Ŷ, for samples in the range
    growth: float  # the largest entry of (I − M)⁻¹ M 1: a step of 1 leaves at most this error of a state
    residue: float  # the largest entry of (I − M)⁻¹ (ρ + Lip(φ) ζ): what rounding adds to it

    @property
    def dtype(self) -> np.dtype:
        return self.B.dtype

    @property
    def is_sparse(self) -> bool:
        return fac.is_sparse(self.factors)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """n, p, q"""
        return *self.B.shape, len(self.C)

    @property
    def formula(self) -> Formula:
        if len(self.kinds) == 1:
            return FORMULAS[self.activation]
        each = [FORMULAS[name] for name, _ in self.kinds]
        of_rows = (self.by_rows([phi.at_zero for phi in each]), self.by_rows([phi.largest for phi in each]))
        return Formula("", "", *of_rows, any(phi.libm for phi in each))

    def by_rows(self, values: Sequence[float]) -> Number:
        """The value of each row (n,), for values of the kinds of rows; the value itself if all are the same."""
        if len(set(values)) == 1:
            return values[0]
        result = np.empty(len(self.B))
        for value, (_, rows) in zip(values, self.kinds, strict=True):
            result[rows] = value
        return result

    @property
    def kind(self) -> np.ndarray | None:
        """The number of the kind of each row (n,), or None if all rows have one activation."""
        return None if len(self.kinds) == 1 else self.by_rows(range(len(self.kinds))).astype(np.uint8)

    @property
    def zero(self) -> float:
        """The largest |φ(0)| of a row."""
        return float(np.max(self.formula.at_zero))

    @property
    def saturated(self) -> Number:
        """The cap of the terms by which rounding is judged, in rows with a bounded φ; None if there are none."""
        bounded = np.less(self.formula.largest, np.inf)
        if not bounded.any():
            return None
        return SATURATED if bounded.all() else np.where(bounded, SATURATED, float(np.finfo(self.dtype).max))

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """A, or L and R; B and C; and D, b and d where the model has them."""
        others = {"B": self.B, "C": self.C, "D": self.D, "b": self.b, "d": self.d}
        return by_name(self.factors) | {name: W for name, W in others.items() if W is not None}

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """What differs between rows or features, by the names that exported code gives it."""
        found: dict[str, np.ndarray] = {} if self.triangle else {"LIMIT": self.limit}
        of_rows = {"LIPSCHITZ": self.lipschitz, "AT_ZERO": self.formula.at_zero, "SATURATED": self.saturated}
        if not self.triangle:
            found |= {name: v.astype(self.dtype) for name, v in of_rows.items() if isinstance(v, np.ndarray)}
        pre, kind = self.preprocessing, self.kind
        found |= {} if kind is None else {"KIND": kind}
        return found if pre is None or not pre.mean.ndim else found | {"MEAN": pre.mean, "SCALE": pre.scale}

    @property
    def fingerprint(self) -> int:
        """A checksum of everything in the plan. The files of an export carry it, so that those of two never mix."""
        total = 0 if self.kind is None else zlib.crc32(self.kind.tobytes())
        for field in [field for field in fields(self) if field.name != "kinds"]:
            value = getattr(self, field.name)
            parts = value if isinstance(value, tuple) else (value,)
            if fac.is_sparse(parts):
                parts = tuple(vars(parts[0])[name] for name in ("data", "indices", "indptr"))
            for part in parts:
                content = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
                total = zlib.crc32(content, total)
        return total

    def equations(self, phi: str = "φ") -> str:
        """The equations that the exported code solves, as text."""
        D, b = "" if self.D is None else " + D U", "" if self.b is None else " + b"
        return f"Y = C X{D}, where X solves X = {phi}(A X + B U{b})"

    def promise(self) -> str:
        """What holds for inputs in the range, as text."""
        effort = "one sweep" if self.triangle else f"at most {self.iterations} iterations"
        return f"{effort}, to within {upward(self.error_bound, 2)}"


def make(model: ImplicitModel, to: str, bounds: Any = None) -> Plan:
    """The plan for a model, what it is exported to, and the declared range of its inputs.

    ValueError if a weight is not finite, or if the number of iterations or the size of the numbers cannot be bounded.
    """
    s, P = model.settings, model.parameters
    activation = activation_names.built_in(
        s.activation, "an exported model", "serve this one in Python, by model.freeze()"
    )
    factors, phi = model.effective_weights().factors, activations.get(s.activation)
    if fac.is_sparse(factors):  # C code holds the entries that are not 0; the other targets hold all of them.
        factors = (factors[0].nonzero() if to == "c" else factors[0].dense(),)
    kinds = tuple([(row.name, rows) for row, rows in phi.segments])
    lipschitz = np.ravel(phi.steepness) if len({row.lipschitz for row, _ in phi.segments}) > 1 else phi.lipschitz
    for name, F in [*(("A", F) for F in factors), *((name, P[name]) for name in "BCD" if name in P)]:
        if not fac.is_finite(F):
            raise ValueError(f"{name} must be finite to be exported; got NaN or inf: the training has diverged.")
    inputs.normal("tol", s.tol, model.dtype)
    (B, b), (D, d) = (_split(P.get(name), s.bias) for name in "BD")
    assert B is not None
    given = np.dtype(np.float64) if to in ("numpy", "js") else model.dtype  # These take U in float64, too.
    box = inputs.make(bounds, model.preprocessing, s.input_dim, model.dtype, given)
    triangle = None if to == "onnx" else fac.triangle(factors)  # A Loop of ONNX has no rows to go through.
    made = Plan(
        factors, B, P["C"], D, b, d, _ascii(activation), kinds, lipschitz, s.tol, model.preprocessing, model.classes,
        box, triangle, 0, np.zeros(len(B)), 0.0, 0.0, 0.0,
    )  # fmt: skip
    return _completed(made, to, phi)


class Sums(NamedTuple):
    """How sums are rounded: a sum differs from the exact one by at most γ Σ|terms| + underflow."""

    gamma: float
    underflow: float

    @classmethod
    def of(cls, to: str, dtype: np.dtype, *lengths: int) -> Sums:
        """For sums over products that are nested as A = L Rᵀ nests them, with three more terms.

        C code adds four products at a time; nothing is assumed of the order of summation elsewhere. JavaScript adds in
        float64, so that the sum of a float32 model is rounded once.
        """
        eps, tiny = limits(dtype)
        k = sum(min(n, n // 4 + n % 4 + 3) if to == "c" else n for n in lengths) + 3
        if to == "js" and dtype == np.float32:
            k = 3
        if k * eps >= 1:
            raise ValueError(f"sums of {k} terms cannot be bounded in {dtype}: use dtype='float64'.")
        return cls(k * eps / 2 / (1 - k * eps / 2), (sum(lengths) + 3) * tiny)


def _completed(plan: Plan, to: str, phi: activations.Activation) -> Plan:
    """The plan with its number of iterations, LIMIT and error bound, in the order of the proof above."""
    factors, formula, dtype = plan.factors, plan.formula, plan.dtype
    (eps, tiny), cap = limits(dtype), (1 + ULPS * limits(dtype)[0] / 2) * formula.largest
    # A sweep, and the product of a sparse A, adds the terms of a row one after the other, in C too.
    row_by_row = plan.triangle or fac.is_sparse(factors)
    sums = Sums.of("numpy" if row_by_row else to, dtype, *map(fac.longest, factors))
    least = _least(plan, sums, to)
    Z, zeta = _pre_activation(plan, Sums.of(to, dtype, plan.B.shape[1]))
    M = Majorant(factors, np.reshape(plan.lipschitz, (-1, 1)) * (1 + sums.gamma) * (1 + ULPS * eps / 2))
    grown = SAFETY * (1 + sums.gamma) * (1 + ULPS * eps / 2)
    f = np.minimum(grown * (plan.lipschitz * Z + formula.at_zero) + least, cap)
    tolerance = max(plan.tol, ROUNDED * eps)
    small = np.minimum(grown * (plan.lipschitz + (formula.at_zero > 0)), cap)
    iterations, left = M.first_below(np.maximum(f, small), tolerance / 4, MOST_ITERATIONS)
    ones = M.resolvent(np.ones_like(f))
    if iterations > MOST_ITERATIONS or not np.isfinite(ones).all():
        raise ValueError(_too_many(iterations, factors, phi))
    X = np.minimum(M.resolvent(f), cap)
    P = M(X) + grown * plan.lipschitz * Z
    rho = sums.gamma * P + ULPS * eps / 2 * np.minimum(P + formula.at_zero, cap) + least
    rho = np.minimum(SAFETY * rho, 2 * cap)
    _refuse_overflow(plan, X, P)
    limit = np.minimum((1 + 4 * eps) * (left + 2 * M.resolvent(rho)), 4 * X + tiny)
    J = ROUNDED * eps * np.minimum(P + formula.at_zero, np.inf if plan.saturated is None else plan.saturated)
    step = 0.0 if plan.triangle else M((1 + 4 * eps) * np.maximum(J, tolerance) + tiny)
    rounded = SAFETY * (rho + plan.lipschitz * zeta)
    E = np.minimum(M.resolvent(SAFETY * step + rounded), 2 * np.minimum(X, cap))
    return replace(
        plan,
        iterations=1 if plan.triangle else iterations,
        limit=np.nextafter(limit.astype(dtype), dtype.type(np.inf)),
        error_bound=_output_error(plan, X, E, Sums.of(to, dtype, plan.B.shape[0], plan.B.shape[1])),
        growth=float(SAFETY * (1 + 4 * eps) * (ones - 1).max()),  # A step is rounded, too.
        residue=float(M.resolvent(rounded).max()),
    )


def _least(plan: Plan, sums: Sums, to: str) -> np.ndarray:
    """The part of ρ that does not shrink with the numbers: what underflow adds.   (n,)"""
    # An underflow in Rᵀ x is multiplied by L.
    entered = fac.row_sums(plan.factors[:1]) if len(plan.factors) > 1 else np.zeros(len(plan.B))
    least = SAFETY * sums.underflow * (1 + plan.lipschitz * (1 + entered))
    # Runtimes of ONNX may compute expm1(p) as exp(p) − 1, and log1p(e) as log(1 + e).
    return least + (ULPS * limits(plan.dtype)[0] / 2 if to == "onnx" and plan.formula.libm else 0.0)


def _pre_activation(plan: Plan, sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """The largest |z| inside the range, and the largest rounding of z.   (n,), (n,)"""
    B, box = plan.B.astype(np.float64), plan.inputs
    b = np.zeros(len(B)) if plan.b is None else plan.b.astype(np.float64)
    terms = np.abs(B) @ box.largest + np.abs(b)
    zeta = SAFETY * (sums.gamma * terms + np.abs(B) @ box.rounding) + sums.underflow
    # The rounding of this line is far below 1e-9 of the terms.
    return np.abs(B @ box.centre + b) + np.abs(B) @ box.radius + 1e-9 * terms + zeta, zeta


def _output_error(plan: Plan, X: np.ndarray, E: np.ndarray, sums: Sums) -> float:
    """|C||x* − x̂| + γ (|C||x̂| + |D||u| + |d|) + |D| η, the largest entry."""
    terms, error = _outputs(plan, X), _outputs(plan, E, plan.inputs.rounding, 0.0)
    return float(SAFETY * (error + sums.gamma * terms + sums.underflow).max())


def _outputs(plan: Plan, x: np.ndarray, u: np.ndarray | None = None, constant: float = 1.0) -> np.ndarray:
    """|C| x + |D| u + |d|, with the largest |u| inside the range unless u is given.   -> (q,)"""
    y = np.abs(plan.C).astype(np.float64) @ x
    if plan.D is not None:
        y += np.abs(plan.D).astype(np.float64) @ (plan.inputs.largest if u is None else u)
    return y if plan.d is None else y + constant * np.abs(plan.d)


def _refuse_overflow(plan: Plan, X: np.ndarray, P: np.ndarray) -> None:
    """Refuse a model whose numbers may exceed those of its dtype inside the range."""
    sizes = [P / plan.lipschitz, 2 * X, _outputs(plan, X)]
    sizes += [np.abs(F).astype(np.float64) @ X for F in plan.factors[1:]]
    largest, most = max(float(size.max()) for size in sizes), float(np.finfo(plan.dtype).max)
    if not largest < most / 4:
        raise ValueError(
            f"numbers must stay below {most / 4:.1e} inside the range of the inputs, {plan.inputs.text()}, to be "
            f"exported in {plan.dtype}; the bound is {largest:.1e}: narrow the range, or use dtype='float64'."
        )


def _too_many(iterations: int, factors: fac.Factors, phi: activations.Activation) -> str:
    """The message for a model whose iterations cannot be bounded by MOST_ITERATIONS."""
    would = "no number is known to suffice" if iterations == sys.maxsize else f"about {iterations} would be needed"
    way_out = "train it with an f that keeps ‖A‖∞ below 1, give it a larger tol, or serve it with model.freeze()"
    reason = reasons.strongest(factors, phi) if iterations == sys.maxsize else None
    if reason and reason.name in ("monotone", "cycles", "P-matrix"):
        would += f", although its state is unique ({reason.name}), because exported code makes Picard's iteration"
        way_out = "serve it with model.freeze(), or train it with an f that keeps ‖A‖∞ or the Perron root below 1"
    return (
        f"a model can be exported if its iterations can be bounded, by {MOST_ITERATIONS} at most; got a model with "
        f"‖A‖∞ = {fac.norm_inf(factors):.4f}, for which {would}: {way_out}."
    )


def decimal(value: Any) -> str:
    """A finite number as the shortest decimal text that is read as the same float64, in C and in Python."""
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"a constant must be finite to be exported; got {number}.")
    return float.__repr__(number)


def _ascii(activation: Any) -> str:
    """The name of an activation, or those of the rows, in ASCII, as C has it."""
    return str(activation).replace("×", "x ").replace("…", "...")


def _split(F: np.ndarray | None, bias: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
    """F without its last column, and that column, if it is the bias; otherwise F, and None."""
    return (F, None) if F is None or not bias else (F[:, :-1], F[:, -1])
