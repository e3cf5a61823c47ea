"""The layer of the CUDA twin: it launches the solvers, one block per tile of columns. docs/gpu.md describes its tests.

The answer of a column does not depend on the other columns, on the width of a tile or on the size of a block: the terms
of every sum have a fixed order, and no sum contains entries of two columns.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from idl_ref import activations, certificate
from idl_ref import factors as fac
from idl_ref.activations import MIXED, Activation, Mixed
from idl_ref.backends import methods
from idl_ref.backends.cuda import algebra, api, kernels, newton, plans
from idl_ref.backends.cuda.api import Matrix, by_rows, matrix, on_device
from idl_ref.backends.cuda.plans import INTEGERS, KEPT, LANES, Kept, Levels, Plan, Task, filled
from idl_ref.backends.cuda.states import SLOW
from idl_ref.backends.cuda.trials import HISTORY
from idl_ref.backends.equation import Equation
from idl_ref.backends.numpy import layer as definition
from idl_ref.choices import Method
from idl_ref.solution import Solution, SolveOptions
from idl_ref.weights import Options, Weights

# With one step per launch, the host asks only after this many steps which columns go on, because the answer has to
# wait for the device. The second number is for Newton.
CHECK, CHECK_NEWTON = 8, 2
ROOM = 1 << 28  # bytes of device memory for the linear systems that Newton solves at the same time
LONGEST = (1 << 31) - 1  # the largest count of applications: it is an int32


# --- arguments --------------------------------------------------------------------------------------------------------


class Packed(NamedTuple):
    """A as the kernels and the certificate need it, computed once for as long as the factors stay as they are."""

    d_F1: Any  # the first factor, packed, on the device
    d_F2: Any  # the second factor, likewise; empty for a dense A
    rounding: certificate.Rounding  # with an upper bound of ‖A‖∞ of the forward A, also for the adjoint
    triangle: str | None  # "upper" or "lower" if A is dense and strictly triangular, else None
    d_codes: Any  # those of the activations of the rows, (n,) int32; empty if all have the same


def pack(factors: fac.Factors, activation: Activation, adjoint: bool, stream: Any) -> Packed:
    """Pack the factors on the device, bound ‖A‖∞ of the forward A by |A| 1 ≤ |F₁| |F₂| … 1, and look for a triangle."""
    dtype = factors[0].dtype
    matrices: Any = tuple(matrix(F, dtype, stream) for F in factors)
    packed = [api.empty(filled(F.shape[0]) * filled(F.shape[1]), dtype, stream) for F in matrices]
    for F, d_packed in zip(matrices, packed, strict=True):
        api.launch(algebra.pack, min(1024, -(-d_packed.size // 128)), 128, 0, stream, F, d_packed)
    d_nothing = d_sums = api.empty(0, dtype, stream)
    forward: Any = fac.transpose(matrices) if adjoint else matrices
    for F in reversed(forward):
        d_sums, d_sides = row_sums(F, d_sums, stream)
    triangle = None
    if len(factors) == 1:
        sides = int(np.bitwise_or.reduce(api.download(d_sides, stream)))
        above, below = (sides & side for side in ((2, 1) if adjoint else (1, 2)))
        triangle = "upper" if not below else "lower" if not above else None
    lengths = sum(sum(F.shape) for F in factors)
    top = float(np.max(api.download(d_sums, stream)))
    norm = methods.norm_bound(top, lengths, dtype, len(factors) > 1)
    if not norm < 1 or activation.code == MIXED:  # The exact value is needed, or that of rows with their own Lip(φ).
        norm = fac.norm_inf(certificate.contracting(forward_factors(factors, adjoint), activation))
    d_F1, d_F2 = [*packed, d_nothing][:2]
    # `certificate.rounding` reads the entries of L and R, which may be on the device.
    rounding = certificate.rounding(on_host(*factors) if len(factors) > 1 else factors, activation, dtype, norm)
    return Packed(d_F1, d_F2, rounding, triangle, codes(activation, stream))


def codes(activation: Activation, stream: Any = 0) -> Any:
    """Return the codes of the activations of all rows on the device; none if the rows have one activation."""
    rows = activation.codes if isinstance(activation, Mixed) else np.zeros(0)
    return api.upload(rows.astype(np.int32), stream)


def row_sums(F: Matrix, d_weights: Any, stream: Any = 0) -> tuple[Any, Any]:
    """Return Σ_k |F_ik| w_k of every row of F and the sides of the diagonal with nonzero entries, on the device.

    An empty `d_weights` stands for ones; `algebra.row_sums` defines the sides.
    """
    d_sums, d_sides = (api.empty(F.shape[0], kind, stream) for kind in (F.dtype, np.int32))
    api.launch(algebra.row_sums, -(-F.shape[0] // 128), 128, 0, stream, F, d_weights, d_sums, d_sides)
    return d_sums, d_sides


def on_host(*arrays: Any) -> tuple:
    """Return the arguments with device arrays copied to NumPy arrays; host arrays and None stay as they are."""
    return tuple(matrix(array, array.dtype).download() if on_device(array) else array for array in arrays)


def forward_factors(factors: fac.Factors, adjoint: bool) -> fac.Factors:
    """Return the factors of the forward equation as NumPy arrays, from those of an equation of either direction."""
    factors = on_host(*factors)
    return fac.transpose(factors) if adjoint else factors


# --- solving ----------------------------------------------------------------------------------------------------------


class DeviceEquation(NamedTuple):
    """An equation whose arrays are on the device, with the options and the stream of its solve."""

    packed: Packed
    r: int  # 0 for a dense A
    activation: Activation
    S: Matrix  # (n, m); empty for the forward equation
    Z: Matrix  # (n, m)
    X0: Matrix  # (n, m); empty to start from 0
    F: Any  # (n m,), what Picard tells Anderson; empty unless the method is "auto"
    options: SolveOptions
    stream: Any
    other: float  # the cost of Newton's method in applications, where "auto" may turn to it; inf elsewhere


def steepest(norm: float, dtype: np.dtype) -> Any:
    """Return the largest number s of a dtype with s·‖A‖∞ < 1, as `certify` computes this product; −1 if there is none.

    The kernels thereby know exactly in which columns the certificate takes g for a contraction.
    """
    norm, limits = float(norm), np.finfo(dtype)  # a product of Python floats overflows to inf without a warning
    if not norm < np.inf:
        return dtype.type(-1)
    s = limits.max if norm * float(limits.max) < 1 else dtype.type(min(1 / norm, float(limits.max)))
    while not float(s) * norm < 1:
        s = np.nextafter(s, dtype.type(0))
    while s < limits.max and float(np.nextafter(s, limits.max)) * norm < 1:
        s = np.nextafter(s, limits.max)
    return s


def levels(method: str, e: DeviceEquation) -> Levels:
    """Return the numbers that steer an iteration by this method, as scalars of the dtype."""
    rounding, activation, dtype = e.packed.rounding, e.activation, e.Z.dtype
    numbers = Levels(
        tol=min(float(e.options.tol), rounding.largest),
        ratio=methods.DECREASE if method in ("anderson", "newton") else methods.SLOW,
        other=e.other,
        rate=float(methods.ANDERSON_RATE * methods.window(int(e.options.max_iter))),
        eps=2 * rounding.unit,
        root=math.sqrt(2 * rounding.unit),
        rounded=certificate.ROUNDED * 2 * rounding.unit,
        tiny=rounding.tiny,
        underflow=min(2 * rounding.unit * rounding.underflow, rounding.largest),
        gamma=min(certificate.STALLED * rounding.gamma, 1.0),
        lipschitz=rounding.lipschitz,
        steepest=steepest(rounding.norm, dtype),
        gap=max(1 - rounding.norm, -rounding.largest),
        at_zero=activation.at_zero,
    )
    return Levels(*(dtype.type(number) for number in numbers))


def solve_columns(method: str, e: DeviceEquation, index: np.ndarray, answer: tuple[Any, Any, Any, Any]) -> None:
    """Solve the columns `index` by one method, and write into the arrays `answer`: out, status, iterations, numbers.

    "auto" stands for Picard. It gives columns that converge slowly the status SLOW, and so does "anderson" if Newton's
    method can continue.
    """
    (n, m), r, dtype, options = e.Z.shape, e.r, e.Z.dtype, e.options
    limit = api.shared_limit()
    plan = plans.plan(method, (n, r, len(index)), dtype.itemsize, limit, api.multiprocessors(), options.tile)
    plans.check(plan, limit)
    max_iter, numbers = min(int(options.max_iter), LONGEST), levels(method, e)
    slow_steps = methods.SLOW_STEPS if method == "auto" else LONGEST
    enough = methods.enough(max_iter) if method == "auto" or numbers.other < np.inf else LONGEST
    task = Task(
        e.Z,
        e.S,
        e.X0,
        e.F,
        api.upload(index.astype(np.int32), e.stream),
        *(n, r, filled(n), filled(r), m, e.activation.code, e.packed.d_codes),
        *(max_iter, slow_steps, enough, methods.window(max_iter)),
        numbers,
        plans.places(plan.kind, method, n, r, plan.width, dtype.itemsize),
        *answer,
    )
    run = _at_once if method == "substitution" or plan.kind != "large" else _large
    run(method, e, plan, task)


def _at_once(method: str, e: DeviceEquation, plan: Plan, task: Task) -> None:
    """Solve in one launch, in which every block iterates until all columns of its tile are done."""

    def vectors(count: int) -> Any:
        """Allocate `count` vectors of `end` entries for every column."""
        return api.empty(plan.grid * count * task.end * plan.width, e.Z.dtype, e.stream)

    arguments: tuple = e.packed[:2]
    if method == "substitution":
        upper = int(e.packed.triangle == "upper")
        kernel, arguments = kernels.substitute, (e.packed.d_F1, vectors(1), vectors(1), upper)
    elif method == "anderson":
        kernel, arguments = kernels.guarded(plan.kind, plan.width), (*arguments, vectors(HISTORY))
    else:
        kernel = kernels.picard(plan.kind, plan.width)
    api.launch(kernel, plan.grid, plan.threads, plan.shared, e.stream, *arguments, task)


def _large(method: str, e: DeviceEquation, plan: Plan, task: Task) -> None:
    """Solve with one step per launch: products P = A X for all tiles, then an epilogue, until no column goes on."""
    r, grid, dtype = e.r, plan.grid, e.Z.dtype
    kept = Kept(
        api.empty(grid * INTEGERS * plan.width, np.int32, e.stream),
        api.empty(grid * KEPT * plan.width, dtype, e.stream),
        api.empty(grid, np.int32, e.stream),
    )

    def tiles(rows: int) -> Any:
        """Allocate a matrix of `rows` rows for every tile."""
        return api.empty(grid * rows * plan.width, dtype, e.stream)

    def launch(kernel: Any, blocks: int, shared: int, *arguments: Any) -> None:
        """Launch a kernel on the stream of the solve, with blocks of the planned size."""
        api.launch(kernel, blocks, plan.threads, shared, e.stream, *arguments)

    def product(d_F: Any, rows: int, inner: int, d_from: Any, d_to: Any) -> None:
        """Multiply F (rows, inner) with every tile of `d_from`."""
        blocks = -(-rows // plans.APPLY_ROWS)
        launch(kernels.apply, grid * blocks, 0, d_F, d_from, d_to, (rows, inner, blocks), kept.running)

    d_X, d_P, d_T, d_W = tiles(task.end), tiles(task.end), tiles(task.narrow), tiles(2 * task.narrow)
    launch(kernels.open_tiles, grid, plan.shared, d_X, task, kept)
    often, step, more = CHECK, kernels.step_picard, []
    if method == "anderson":
        step, more = kernels.step_guarded, [tiles(HISTORY * task.end)]
    elif method == "newton":
        often, step, more = CHECK_NEWTON, kernels.step_newton, [tiles(task.end), tiles(task.end)]
        system = (r or task.n) * ((r or task.n) + 1)
        systems = max(1, min(task.columns.size, ROOM // (system * dtype.itemsize)))
        d_J = api.empty(systems * system, dtype, e.stream)
    while api.download(kept.running, e.stream).any():
        for _ in range(often):
            if r:
                product(e.packed.d_F2, task.narrow, task.end, d_X, d_T)
            product(e.packed.d_F1, task.end, task.narrow if r else task.end, d_T if r else d_X, d_P)
            launch(step, grid, plan.shared, *e.packed[:2], d_X, d_P, *more, d_W, task, kept)
            if step is kernels.step_picard:
                d_X, d_P = d_P, d_X
            if method == "newton":
                shared = 2 * LANES * dtype.itemsize
                launch(newton.solve_systems, systems, shared, *e.packed[:2], d_X, d_P, *more, d_J, task, kept)


class Layer(definition.Layer):
    """The layer of the NumPy twin, with the equations solved on the device.

    Notes
    -----
    The arrays of an equation, and X0, are NumPy arrays or contiguous arrays on the device: those of any library with
    `__cuda_array_interface__`, or an `api.Matrix`. If Z is on the device, X in the Solution is on the device, too. The
    status, iterations, step and error bound of the columns are NumPy arrays in either case.
    """

    _packed: tuple[Packed | None, Packed | None] = (None, None)  # forward and adjoint, packed when first needed

    def packed(self, factors: fac.Factors, activation: Activation, adjoint: bool, stream: Any) -> Packed:
        """Return the packed factors of the forward or the adjoint equation, and pack them at the first call."""
        packed = self._packed[adjoint]
        if packed is None:
            packed = pack(factors, activation, adjoint, stream)
            self._packed = (self._packed[0], packed) if adjoint else (packed, self._packed[1])
        return packed

    @staticmethod
    def on_host(equation: Equation, X: Any) -> tuple[Equation, np.ndarray]:
        """Return an equation and its answer, copied from the device where they are there."""
        S, Z, X = on_host(equation.S, equation.Z, X)
        return Equation(on_host(*equation.factors), equation.activation, S, Z), X

    def iterate(self, equation: Equation, X0: Any, options: SolveOptions) -> Solution:
        """Solve `equation` or `adjoint` of this layer on the device."""
        factors, activation, S, Z = equation
        adjoint = S is not None
        (n, m), stream, dtype = Z.shape, api.stream(options.stream), np.dtype(Z.dtype)
        if n == 0 or m == 0 or 0 in factors[-1].shape or options.method not in methods.COMPILED:
            return self._solve_on_host(equation, X0, options)
        arguments = factors, activation, adjoint, stream
        method = methods.choose(options.method, factors, adjoint, lambda _: self.packed(*arguments).triangle)
        packed = self.packed(*arguments)  # A method is refused before anything is copied to the device.
        d_Z, d_S, d_X0 = (matrix(array, dtype, stream) for array in (Z, S, X0))
        if method == "substitution" and X0 is not None:
            # Substitution ignores X0, but in every backend a column whose X0 is not finite gets the status NONFINITE:
            # set its Z to NaN.
            Z_here, finite = d_Z.download(stream), np.isfinite(d_X0.download(stream)).all(axis=0)
            d_Z, d_X0 = (matrix(array, dtype, stream) for array in (np.where(finite, Z_here, dtype.type(np.nan)), None))
        if not np.isfinite(packed.rounding.norm) and not all(map(fac.is_finite, on_host(*factors))):
            d_Z = matrix(np.full((n, m), np.nan, dtype), dtype, stream)  # as `unspoiled` has it
        r = factors[0].shape[1] if len(factors) > 1 else 0
        F = api.empty(n * m if method == "auto" else 0, dtype, stream)
        given = DeviceEquation(packed, r, activation, d_S, d_Z, d_X0, F, options, stream, np.inf)
        answer = d_out, d_status, d_iterations, d_numbers = (
            api.empty(n * m, dtype, stream),
            api.empty(m, np.int32, stream),
            api.upload(np.zeros(m, np.int32), stream),
            api.empty(7 * m, dtype, stream),
        )
        X = by_rows(d_out, n, m)
        solve_columns(method, given, np.arange(m), answer)
        status = api.download(d_status, stream)
        for slower in ("anderson", "newton"):
            if (slow := np.flatnonzero(status == SLOW)).size:
                cost = methods.newton_cost(on_host(*factors)) if slower == "anderson" else np.inf
                solve_columns(slower, given._replace(X0=X, other=cost), slow, answer)
                status = api.download(d_status, stream)
        iterations = api.download(d_iterations, stream).astype(np.intp)
        numbers = api.download(d_numbers, stream).reshape(7, m).astype(np.float64)
        bound = certify(factors, activation, packed.rounding, adjoint, numbers)
        return Solution(returned(X, Z, stream), status.astype(np.int8), iterations, numbers[0].copy(), bound)

    def _solve_on_host(self, equation: Equation, X0: Any, options: SolveOptions) -> Solution:
        """Solve what has no entries, or by a method without a kernel, by the NumPy twin, and return X where Z is."""
        factors, activation, S, Z = equation
        S_here, Z_here, X0_here = on_host(S, Z, X0)
        here = Equation(on_host(*factors), activation, S_here, Z_here)
        solution, stream = super().iterate(here, X0_here, options), api.stream(options.stream)
        return replace(solution, X=returned(by_rows(api.upload(solution.X, stream), *Z.shape), Z, stream))


def returned(X: Matrix, Z: Any, stream: Any) -> Any:
    """Return X as what Z was given as: a Matrix, a device array of numba.cuda, or a NumPy array."""
    if isinstance(Z, Matrix):
        return X
    return X.array.reshape(*X.shape) if on_device(Z) else X.download(stream)


def certify(
    factors: fac.Factors,
    activation: Activation,
    rounding: certificate.Rounding,
    adjoint: bool,
    numbers: np.ndarray,
) -> np.ndarray:
    """Return the error bound of every column from the norms that the kernels recorded.   numbers (7, m) -> (m,)"""
    _, change, x, z, g, lipschitz, _ = numbers
    kappa, entries = lipschitz * rounding.norm, factors[0].shape[0] if adjoint else 1
    with np.errstate(over="ignore", invalid="ignore"):
        numerator = certificate.excess(kappa, lipschitz, change, x, z, g, entries, rounding)
        numerator *= certificate.norms_rounding(entries, rounding.unit)
    # `divide` needs the factors only for columns with κ ≥ 1, so that they are not copied to the host for other solves.
    forward: fac.Factors = ()
    if not np.all(kappa < 1):
        forward = certificate.contracting(forward_factors(factors, adjoint), activation)
    return certificate.divide(numerator, kappa, lipschitz, forward, adjoint)


def warmup(dtype: np.dtype) -> None:
    """Compile the kernels of small dense and of low-rank equations for one dtype, by solving two columns with each."""
    half, shift, L = np.eye(2, dtype=dtype) / 2, np.eye(2, k=1, dtype=dtype), np.ones((2, 1), dtype) / 4
    iterative: tuple[Method, ...] = ("picard", "anderson", "newton")
    cases: list[tuple[fac.Factors, Method]] = [(F, method) for F in ((half,), (L, L.T)) for method in iterative]
    for factors, method in [*cases, ((shift,), "substitution")]:
        options = SolveOptions(method=method)
        layer = Layer(Weights.of(factors), activations.get("relu"), Options(options, options))
        layer.solve(layer.equation(np.ones((2, 2), dtype)))
