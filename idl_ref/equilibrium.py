"""This module has one function for each equation, `solve_equilibrium` (forward) and `solve_adjoint` (backward).

`certify` bounds the errors of the answers that any other program gives to these equations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref import activation_names, activations, checks, device
from idl_ref import factors as fac
from idl_ref.activation_names import AnyActivation
from idl_ref.backends import entrywise, twin
from idl_ref.backends.equation import Equation
from idl_ref.choices import Backend
from idl_ref.solution import Solution, SolveOptions, report
from idl_ref.weights import Options, Weights

__all__ = ["certify", "solve_adjoint", "solve_equilibrium"]


def solve_equilibrium(
    A: Any,
    Z: Any,
    *,
    activation: AnyActivation = "relu",
    X0: Any = None,
    options: SolveOptions = SolveOptions(),
    backend: Backend = "auto",
) -> Solution:
    """Solve the equilibrium equation X = φ(A X + Z).

    Parameters
    ----------
    A : (n, n) array or sparse matrix, or a pair (L, R) of (n, r) arrays with A = L Rᵀ
        The product of a pair is never formed. A sparse matrix of SciPy's, or an `idl_ref.sparse.Sparse`, is not
        filled up with zeros, except by method="newton".
    Z : (n, m) array
        The constant term, one column per sample; Z = B U in a model. With backend="cuda", Z may also be an array on the
        device, of any library with `__cuda_array_interface__`; X is then an array on the device too.
    activation : str, Activation, or a list of n of them
        The name of φ in the activation table, or an activation of your own, for which backend="auto" is numpy; or a
        list of them, one per row of A, which backend="cuda" does not take.
    X0 : (n, m) array, optional
        The start of the iteration; 0 if not given.
    options : SolveOptions
        Tolerance, iteration limit, method, and what happens if a column does not converge.
    backend : {"auto", "numpy", "numba", "cuda"}
        The implementation that solves the equation; see `available_backends`.

    Returns
    -------
    Solution
        X (n, m), and for each column its status, its number of iterations, its last step and its error bound, the
        last two in the ∞-norm.

    Raises
    ------
    ValueError, TypeError
        Shapes that disagree, complex or object arrays, a method that does not fit A, an unavailable backend.
    NotConvergedError
        A column did not converge, and `options.on_failure` is "raise".

    Warns
    -----
    ConvergenceWarning
        Columns did not converge, and `options.on_failure` is "warn"; there is one warning per call.

    Notes
    -----
    In the ∞-norm, the right-hand side is Lipschitz continuous with the constant κ = Lip(φ) ‖A‖∞. If κ < 1, it is a
    contraction, and the solution exists and is unique. The computation is in float32 if all arrays are float32, else in
    float64.
    Cost per iteration: 2 n² m flops for a dense A, 4 n r m flops for a pair, 2 m for each entry of a sparse A.
    Source: El Ghaoui et al., Implicit Deep Learning, SIAM J. Math. Data Sci. 3 (2021).

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[0.0, 0.5], [-0.5, 0.0]])
    >>> solution = solve_equilibrium(A, np.array([[1.0], [2.0]]), options=SolveOptions(tol=1e-12))
    >>> solution.X.round(6).ravel()
    array([1.6, 1.2])
    >>> bool(solution.error_bound[0] < 2e-12)
    True
    """
    _check_options(options)
    factors, (Z, X0) = fac.check_equation(A, Z=Z, X0=X0)
    phi = activations.get(activation, factors[0].shape[0])
    backend = activation_names.backend_for(phi, backend)
    device.place(backend, options.stream, *factors, Z, X0)
    if backend == "cuda":
        _refuse_sparse(factors)
    layer = twin(backend).Layer(Weights.of(factors), phi, Options(options, options))
    solution = layer.solve(layer.equation(Z), X0)
    return report(solution, factors, options, "forward", "max_iter")


def solve_adjoint(
    A: Any,
    S: Any,
    G: Any,
    *,
    V0: Any = None,
    options: SolveOptions = SolveOptions(),
    backend: Backend = "auto",
) -> Solution:
    """Solve the adjoint equation V = S ∘ (Aᵀ V + G).

    Let ℓ be a function of the equilibrium X. If S = φ′(A X + Z) are the slopes at X, and G = ∂ℓ/∂X, then the solution
    is V = ∂ℓ/∂Z. The gradients of the weights follow from V: ∂A = V Xᵀ and ∂B = V Uᵀ. The activation enters by its
    slopes only, so that every backend also solves the equation for an activation of your own.

    Parameters
    ----------
    A : (n, n) array or sparse matrix, or a pair (L, R) of (n, r) arrays with A = L Rᵀ
        The same A as in the forward equation; this function transposes it, as a view. A sparse A is transposed once
        per call.
    S, G : (n, m) arrays
        The slopes, and the gradient with respect to X, one column per sample.
    V0 : (n, m) array, optional
        The start of the iteration; 0 if not given.
    options : SolveOptions
        As in `solve_equilibrium`; tol limits the largest change of an entry here too.
    backend : {"auto", "numpy", "numba", "cuda"}
        The implementation that solves the equation; see `available_backends`.

    Returns
    -------
    Solution
        Its X is V (n, m). Its `error_bound` is in the 1-norm of each column, and takes S and G as exact.

    Raises
    ------
    ValueError, TypeError, NotConvergedError
        The same errors as in `solve_equilibrium`.

    Warns
    -----
    ConvergenceWarning
        Columns did not converge, and `options.on_failure` is "warn"; there is one warning per call.

    Notes
    -----
    In the 1-norm, the right-hand side of a column is Lipschitz continuous with the constant κ = max(S) ‖A‖∞, because
    ‖Aᵀ‖₁ = ‖A‖∞. If κ < 1, it is a contraction, and the solution exists and is unique.
    For a pair (L, R) of low rank, "auto" solves (I − Lᵀ S R) t = Lᵀ S G exactly, and V = S ∘ (R t + G).
    Cost per iteration: 2 n² m flops for a dense A, 4 n r m flops for a pair, 2 m for each entry of a sparse A.
    Source: implicit differentiation of X = φ(A X + Z); El Ghaoui et al., Implicit Deep Learning, SIAM J. Math. Data
    Sci. 3 (2021), section on training.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[0.0, 0.5], [-0.5, 0.0]])
    >>> S = np.array([[1.0], [1.0]])
    >>> solution = solve_adjoint(A, S, np.array([[1.0], [0.0]]), options=SolveOptions(tol=1e-12))
    >>> solution.X.round(6).ravel()
    array([0.8, 0.4])
    """
    _check_options(options)
    factors, (S, G, V0) = fac.check_equation(A, S=S, G=G, V0=V0)
    device.place(backend, options.stream, *factors, S, G, V0)
    if backend == "cuda":
        _refuse_sparse(factors)
    layer = twin(backend).Layer(Weights.of(factors), activations.get("identity"), Options(options, options))
    solution = layer.solve(layer.adjoint(S, G), V0)
    return report(solution, factors, options, "adjoint", "max_iter")


def certify(A: Any, Z: Any, X: Any, *, activation: AnyActivation = "relu", S: Any = None) -> np.ndarray:
    """Bound the error of every entry of an approximate equilibrium X, whichever program computed it.

    Parameters
    ----------
    A : (n, n) array or sparse matrix, or a pair (L, R) of (n, r) arrays with A = L Rᵀ
        As in `solve_equilibrium`; with S, as in `solve_adjoint`, which is the same A, not its transpose.
    Z : (n, m) array
        The constant term of X = φ(A X + Z); with S, the gradient G of the adjoint equation V = S ∘ (Aᵀ V + G).
    X : (n, m) array
        The answer to be judged, in any dtype of at most 64 bits; with S, the answer V.
    activation : str, Activation, or a list of n of them
        φ, or that of each row, as in `solve_equilibrium`. The adjoint equation does not depend on it.
    S : (n, m) array, optional
        The slopes of the adjoint equation. If S is given, X is judged as a solution of the adjoint equation.

    Returns
    -------
    (n, m) float64 array
        An upper bound of |X − X*|, entry by entry, in exact arithmetic: no entry of X is further from the solution X*.
        The numbers of A, Z and S count as exact. The bound is inf in a column with NaN or inf, and where the equation
        could not be shown to have a solution near X.

    Raises
    ------
    ValueError, TypeError
        Shapes that disagree, complex or object arrays, an unknown activation, arrays on a CUDA device.

    Notes
    -----
    The bound is (I − s ∘ |A|)⁻¹ (|g(X) − X| + ρ). The residual g(X) − X is computed in float64, and ρ bounds its
    rounding. The slopes s are those that φ can have at all points that the bound itself allows. The bound is finite if
    the Perron root of Lip(φ)|A| is below 1, and for every φ with a bounded range. It is also finite if Lip(φ)(A + Aᵀ)/2
    has no eigenvalue of 1 or more, by μ‖x − x*‖₂ ≤ ‖(2 I − Lip(φ) Aᵀ)(g(x) − x)‖₂, where 1 − μ is the largest of them.
    Cost: 2/3 n³ flops for n ≤ 4096, or for a pair 2/3 r³, and about 4 n² m, or 8 n r m, for each of some 10 sweeps.
    Source: nonnegative matrices, Berman and Plemmons, Nonnegative Matrices in the Mathematical Sciences, chapter 6;
    rounding, Higham, Accuracy and Stability of Numerical Algorithms, chapters 3 and 10.

    Examples
    --------
    >>> import numpy as np
    >>> A, Z = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([[1.0], [2.0]])
    >>> X = np.array([[1.6], [1.201]])  # The equilibrium is (1.6, 1.2).
    >>> certify(A, Z, X).round(5).ravel()
    array([0.00133, 0.00167])
    """
    if S is None:
        factors, (Z, X) = fac.check_equation(A, Z=Z, X=X)
        equation = Equation(factors, activations.get(activation, factors[0].shape[0]), None, Z)
    else:
        factors, (S, Z, X) = fac.check_equation(A, S=S, Z=Z, X=X)
        activations.get(activation, factors[0].shape[0])
        equation = Equation(fac.transpose(factors), activations.get("identity"), S, Z)
    if any(isinstance(array, checks.OnDevice) for array in (*factors, S, Z, X)):
        raise ValueError("A, Z, X and S must be in the memory of the host; got an array on a CUDA device: copy it.")
    return entrywise.enclose(equation, X)


def _refuse_sparse(factors: fac.Factors) -> None:
    """Refuse a sparse A, with which the CUDA twin does not compute."""
    if fac.is_sparse(factors):
        raise ValueError(
            'a sparse A needs backend="numba" or "numpy"; got backend="cuda": choose one of them, or pass A.toarray().'
        )


def _check_options(options: Any) -> None:
    """Refuse options that are not SolveOptions."""
    if not isinstance(options, SolveOptions):
        way_out = "SolveOptions(**options)" if isinstance(options, dict) else "SolveOptions(tol=…, max_iter=…)"
        raise TypeError(f"options must be SolveOptions; got {checks.shown(options)}: pass {way_out}.")
