"""The forward and the backward equation, by name."""

from __future__ import annotations

from typing import Any

from idl_ref import activations, checks
from idl_ref import factors as fac
from idl_ref.backends import twin
from idl_ref.solution import Solution, SolveOptions, report
from idl_ref.weights import Options, Weights

__all__ = ["solve_adjoint", "solve_equilibrium"]


def solve_equilibrium(
    A: Any,
    Z: Any,
    *,
    activation: str = "relu",
    X0: Any = None,
    options: SolveOptions = SolveOptions(),
    backend: str = "auto",
) -> Solution:
    """Solve the equilibrium equation X = φ(A X + Z).

    Parameters
    ----------
    A : (n, n) array, or a pair (L, R) of (n, r) arrays with A = L Rᵀ
        The product of a pair is never formed.
    Z : (n, m) array
        One column per sample; Z = B U in a model. With backend="cuda" also arrays on the device, of any library with
        `__cuda_array_interface__`; X then stays there.
    activation : str
        φ, a name in the activation table.
    X0 : (n, m) array, optional
        Where to start; 0 if not given.
    options : SolveOptions
    backend : {"auto", "numpy", "numba", "cuda"}

    Returns
    -------
    Solution
        X (n, m), and per column status, iterations, last step and error bound in the ∞-norm.

    Raises
    ------
    ValueError, TypeError
        Shapes that disagree, complex or object arrays, a method that does not fit A, an unavailable backend.
    NotConvergedError
        With `options.on_failure="raise"`, when a column did not converge.

    Warns
    -----
    ConvergenceWarning
        With `options.on_failure="warn"`, once per call.

    Notes
    -----
    A contraction in the ∞-norm with κ = Lip(φ) ‖A‖∞; if κ < 1, the solution exists and is unique. float32 if A and Z
    are, else float64. Cost per iteration: 2 n² m flops; low rank, 4 n r m.
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
    factors, (Z, X0) = fac.check_equation(A, Z=Z, X0=X0)
    checks.place(backend, options.stream, *factors, Z, X0)
    layer = twin(backend).Layer(Weights.of(factors), activations.get(activation), Options(options, options))
    solution = layer.solve(layer.equation(Z), X0)
    return report(solution, factors, options, "forward", "max_iter")


def solve_adjoint(
    A: Any,
    S: Any,
    G: Any,
    *,
    V0: Any = None,
    options: SolveOptions = SolveOptions(),
    backend: str = "auto",
) -> Solution:
    """Solve the adjoint equation V = S ∘ (Aᵀ V + G).

    With the slopes S = φ′(A X + Z) at an equilibrium X and G = ∂ℓ/∂X at fixed Z, the solution is V = ∂ℓ/∂Z, from
    which every gradient follows: ∂A = V Xᵀ, ∂B = V Uᵀ.

    Parameters
    ----------
    A : (n, n) array, or a pair (L, R) of (n, r) arrays with A = L Rᵀ
        The same A as in the forward equation; it is transposed here, as a view.
    S, G : (n, m) arrays
        One column per sample.
    V0 : (n, m) array, optional
        Where to start; 0 if not given.
    options : SolveOptions
        Its tol measures the largest change of an entry, as in the forward equation.
    backend : {"auto", "numpy", "numba", "cuda"}

    Returns
    -------
    Solution
        Its X is V. `error_bound` is in the 1-norm, and takes S and G as exact.

    Raises
    ------
    ValueError, TypeError, NotConvergedError
        As `solve_equilibrium`.

    Notes
    -----
    A contraction in the 1-norm of a column with max(S) ‖A‖∞, because ‖Aᵀ‖₁ = ‖A‖∞. For low rank, "auto" solves
    (I − Lᵀ S R) t = Lᵀ S G exactly, V = S ∘ (R t + G). Cost per iteration: 2 n² m flops; low rank, 4 n r m.
    Source: implicit differentiation of X = φ(A X + Z); El Ghaoui et al., Implicit Deep Learning, on training.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[0.0, 0.5], [-0.5, 0.0]])
    >>> S = np.array([[1.0], [1.0]])
    >>> solution = solve_adjoint(A, S, np.array([[1.0], [0.0]]), options=SolveOptions(tol=1e-12))
    >>> solution.X.round(6).ravel()
    array([0.8, 0.4])
    """
    factors, (S, G, V0) = fac.check_equation(A, S=S, G=G, V0=V0)
    checks.place(backend, options.stream, *factors, S, G, V0)
    layer = twin(backend).Layer(Weights.of(factors), activations.get("identity"), Options(options, options))
    solution = layer.solve(layer.adjoint(S, G), V0)
    return report(solution, factors, options, "adjoint", "max_iter")
