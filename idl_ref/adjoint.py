"""The backward equation, by name."""

from __future__ import annotations

from typing import Any

from idl_ref import activations, checks
from idl_ref import factors as fac
from idl_ref.backends import fixed_point
from idl_ref.equilibrium import report
from idl_ref.solution import Solution, SolveOptions


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
    identity = activations.get("identity")
    solution = fixed_point(backend)(fac.transpose(factors), identity, S, G, V0, options)
    return report(solution, factors, options, "adjoint", "max_iter")
