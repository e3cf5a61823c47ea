"""The function `f` maps the raw A that training changes to the effective A that the equation uses.

Each class defines such a map, and its pullback, which takes gradients of the effective A to gradients of the raw A.

| class                 | effective A                                             |
|-----------------------|---------------------------------------------------------|
| ImplicitFunction      | A as it is                                              |
| ImplicitFunctionInf   | κ A / max(κ, ‖A‖∞), one scale for the matrix            |
| ImplicitFunctionTriu  | the strict upper triangle of A                          |
| ImplicitFunctionRows  | each row projected on the ℓ1 ball of radius κ           |
| ImplicitFunctionPerron| A min(1, κ/λ) with the Perron root λ of |A|             |
| …Monotone             | κ I − Pᵀ P + Q − Qᵀ, P and Q the triangles of √κ I − A  |

For A = L Rᵀ of low rank, the map is applied to L and to Rᵀ, so that ‖A‖∞ ≤ ‖L‖∞ ‖Rᵀ‖∞ ≤ κ². ImplicitFunctionPerron
takes L and Rᵀ together: the Perron root of |L||Rᵀ| is then at most κ². The triangles of ImplicitFunctionTriu and
ImplicitFunctionMonotone need a dense A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

import numpy as np

from idl_ref import balls, checks, monotone, perron
from idl_ref.factors import Factors

__all__ = [
    "ImplicitFunction",
    "ImplicitFunctionInf",
    "ImplicitFunctionMonotone",
    "ImplicitFunctionPerron",
    "ImplicitFunctionRows",
    "ImplicitFunctionTriu",
]


class ImplicitFunction:
    """Uses A as it is, so that nothing keeps the model well posed; the base of the other classes.

    Parameters
    ----------
    kappa : float
        Radius κ ≥ 0 of the ball in which the derived classes keep A. This class stores κ and does not use it.
    straight_through : bool
        Differentiate as if the map from the raw to the effective A were the identity, as torchidl does for a dense A.
        Where ‖A‖∞ > κ, such gradients are wrong by a factor ‖A‖∞/κ and in direction; use them only to compare with
        torchidl.

    Raises
    ------
    ValueError, TypeError
        A kappa that is not a number ≥ 0, or straight_through for a class that does not map A into a ball.

    Examples
    --------
    A model takes the class itself, and creates an object of it with the model's κ:

    >>> from idl_ref import ImplicitModel
    >>> ImplicitModel(4, 3, 20, f=ImplicitFunction).f.__name__
    'ImplicitFunction'
    """

    name: ClassVar[str] = "none"
    low_rank: ClassVar[bool] = True
    constrains: ClassVar[bool] = False

    def __init__(self, kappa: float = 0.99, straight_through: bool = False) -> None:
        self.kappa: float = checks.number("kappa", kappa, 0)
        self.straight_through: bool = checks.flag("straight_through", straight_through)
        if straight_through and not self.constrains:
            raise ValueError(
                f"straight_through needs an f that maps A into a ball; got {type(self).__name__}: "
                "use ImplicitFunctionInf, ImplicitFunctionRows or ImplicitFunctionPerron."
            )

    def effective(self, factors: Factors) -> Factors:
        """Map raw factors to the effective factors, which the equation uses."""
        return tuple(self._map(F) for F in factors)

    def pullback(self, factors: Factors, gradients: Factors) -> Factors:
        """Return ∂ℓ/∂(raw factors) for given `gradients` = ∂ℓ/∂(effective factors)."""
        if self.straight_through:
            return gradients
        return tuple(self._pull(F, G) for F, G in zip(factors, gradients, strict=True))

    def project(self, factors: Factors) -> Factors | None:
        """Return what a training step writes back into the raw factors, or None if it writes nothing back."""
        return None

    def active_set(self, factors: Factors) -> tuple[np.ndarray, ...]:
        """Return arrays that identify the smooth piece of the map at these factors.

        The map is piecewise smooth. A finite difference is valid only if both of its points lie on the same piece.
        """
        return ()

    def _map(self, F: np.ndarray) -> np.ndarray:
        """Map one raw factor to its effective factor."""
        return F

    def _pull(self, F: np.ndarray, G: np.ndarray) -> np.ndarray:
        """Return the gradient of one raw factor F, for the gradient G of its effective factor."""
        return G


class ImplicitFunctionInf(ImplicitFunction):
    """Scales the whole matrix by one number, κ A / max(κ, ‖A‖∞), so that ‖A‖∞ ≤ κ. A model uses this by default.

    Parameters
    ----------
    kappa, straight_through
        See ImplicitFunction.

    Notes
    -----
    If ν = ‖A‖∞ > κ, the pullback of G is (κ/ν)(G − (⟨G, A⟩/ν) s), with s = sign(A) on the row that attains ν, and s = 0
    elsewhere. If ν ≤ κ, it is G. One row with a large sum shrinks all other rows, which ImplicitFunctionRows avoids.
    Cost: O(n²) flops for the map and for its pullback. Source: the pullback is derived in the documentation on theory.

    Examples
    --------
    >>> f = ImplicitFunctionInf(kappa=0.5)
    >>> (A,) = f.effective((np.array([[1.0, 1.0], [0.0, 1.0]]),))
    >>> print(A.round(3))
    [[0.25 0.25]
     [0.   0.25]]
    """

    name = "inf"
    constrains = True

    def active_set(self, factors: Factors) -> tuple[np.ndarray, ...]:
        pieces = []
        for F in factors:
            row = np.abs(F).sum(axis=1, dtype=np.float64).argmax()
            scaled = balls.norm_inf(F) > self.kappa
            pieces += [np.append(np.sign(F[row]), row) if scaled else np.zeros(F.shape[1] + 1)]
        return tuple(pieces)

    def _map(self, F: np.ndarray) -> np.ndarray:
        return balls.scale_to_norm(F, self.kappa)

    def _pull(self, F: np.ndarray, G: np.ndarray) -> np.ndarray:
        return balls.scale_to_norm_pullback(F, self.kappa, G)


class ImplicitFunctionTriu(ImplicitFunction):
    """Uses the strict upper triangle of A, which makes the model a feed-forward network.

    Such a model is well posed for all weights, and one sweep of back-substitution solves its equation exactly.

    Parameters
    ----------
    kappa, straight_through
        See ImplicitFunction; kappa has no effect here, and straight_through=True is refused.

    Notes
    -----
    The pullback of G is the strict upper triangle of G. A must be dense, because the triangle of L Rᵀ is not a product
    of two such factors. Cost: a copy of n² entries for the map and for its pullback.
    Source: El Ghaoui et al., Implicit Deep Learning, SIAM J. Math. Data Sci. 3 (2021), which writes feed-forward
    networks as implicit models with a strictly upper triangular A.

    Examples
    --------
    >>> (A,) = ImplicitFunctionTriu().effective((np.ones((2, 2)),))
    >>> print(A)
    [[0. 1.]
     [0. 0.]]
    """

    name = "triu"
    low_rank = False

    def _map(self, F: np.ndarray) -> np.ndarray:
        return np.triu(F, 1)

    def _pull(self, F: np.ndarray, G: np.ndarray) -> np.ndarray:
        return np.triu(G, 1)


class ImplicitFunctionRows(ImplicitFunction):
    """Projects each row, in the Euclidean norm, on the ℓ1 ball of radius κ, so that ‖A‖∞ ≤ κ.

    Each training step writes the projection back into the raw weights (projected gradient descent).

    Parameters
    ----------
    kappa, straight_through
        See ImplicitFunction.

    Notes
    -----
    For a row a outside the ball, let S be the support of its projection and σ = sign(a). The pullback of G is
    G_S − σ_S (σ_Sᵀ G_S)/|S| on S, and 0 elsewhere. For a row inside the ball, it is G.
    Cost: each row is sorted, O(n² log n) operations for the map and for its pullback.
    Source: Duchi et al., Efficient projections onto the ℓ1-ball for learning in high dimensions, ICML 2008.

    Examples
    --------
    >>> f = ImplicitFunctionRows(kappa=0.5)
    >>> (A,) = f.effective((np.array([[1.0, 0.75], [0.0, 0.25]]),))
    >>> print(A.round(3))
    [[0.375 0.125]
     [0.    0.25 ]]
    """

    name = "rows"
    constrains = True

    def project(self, factors: Factors) -> Factors | None:
        return self.effective(factors)

    def active_set(self, factors: Factors) -> tuple[np.ndarray, ...]:
        return tuple(
            np.where(np.abs(F).sum(axis=1, dtype=np.float64)[:, None] > self.kappa, np.sign(self._map(F)), 2.0)
            for F in factors
        )

    def _map(self, F: np.ndarray) -> np.ndarray:
        return balls.project_rows(F, self.kappa)

    def _pull(self, F: np.ndarray, G: np.ndarray) -> np.ndarray:
        return balls.project_rows_pullback(F, self.kappa, G)


class ImplicitFunctionPerron(ImplicitFunction):
    """Scales the whole matrix by one number, A min(1, κ/λ), so that the Perron root λ of |A| becomes at most κ.

    The Perron root is at most ‖A‖∞, and usually far below it, so that this class lets A be larger than the others do.
    ‖A‖∞ may exceed 1. The model is well posed nevertheless, and `error_bound` shows it.

    Parameters
    ----------
    kappa, straight_through
        See ImplicitFunction.

    Notes
    -----
    Let u and v be the left and right Perron vectors of the irreducible block of |A| that has the largest root. If
    λ > κ, the pullback of G is (κ/λ)(G − (⟨G, A⟩/λ) sign(A) ∘ u vᵀ/uᵀv), where u vᵀ is 0 outside of the block. If
    λ ≤ κ, it is G. A matrix without cycles, such as a strictly triangular one, has λ = 0, and is not scaled.
    For A = L Rᵀ, λ is the Perron root of |L||Rᵀ|. L and Rᵀ are scaled by min(1, κ/√λ), so that it becomes at most κ².
    λ is computed as an upper bound that holds including rounding. Where two blocks have the same root, λ has a kink,
    and the pullback is that of one of them; near such a place, rounding decides between them.
    Cost: about ten solutions of an n × n system, 7 n³ flops, for the map, and twice as many for its pullback; r × r for
    low rank. Source: Noda, Note on the computation of the maximal eigenvalue of a non-negative irreducible matrix,
    Numer. Math. 17 (1971); the pullback is derived in the documentation on the Perron root.

    Examples
    --------
    >>> f = ImplicitFunctionPerron(kappa=0.5)
    >>> (A,) = f.effective((np.array([[0.0, 4.0], [1.0, 0.0]]),))
    >>> print(A.round(3))
    [[0.   1.  ]
     [0.25 0.  ]]
    """

    name = "perron"
    constrains = True

    def effective(self, factors: Factors) -> Factors:
        return perron.scale(factors, self.kappa)

    def pullback(self, factors: Factors, gradients: Factors) -> Factors:
        return gradients if self.straight_through else perron.pullback(factors, self.kappa, gradients)

    def active_set(self, factors: Factors) -> tuple[np.ndarray, ...]:
        return perron.active_set(factors, self.kappa)


class ImplicitFunctionMonotone(ImplicitFunction):
    """Uses W = κ I − Pᵀ P + Q − Qᵀ, which makes I − W monotone, so that ‖W‖ may have any size.

    P = √κ I − triu(A) and Q = tril(A, −1) are the two triangles of the raw A, so that A = 0 gives W = 0, and every W
    with (W + Wᵀ)/2 ⪯ κ I has an A. With m = 1 − κ, this is the parametrisation W = (1 − m) I − Pᵀ P + Q − Qᵀ of
    monotone operator equilibrium networks, in as many numbers as W has.

    Parameters
    ----------
    kappa, straight_through
        See ImplicitFunction; κ bounds the eigenvalues of (W + Wᵀ)/2, and straight_through=True is refused.

    Notes
    -----
    The pullback of G is the upper triangle of P (G + Gᵀ), and below the diagonal G − Gᵀ. It has no kinks.
    X = φ(W X + Z) has one solution for every φ that does not decrease, as the built-in ones. Picard's iteration need
    not find it. "auto" and "newton" usually do, in a few steps for relu, but may fail for very large W, where φ is
    bounded most of all; the status of a sample tells. Exports, which rely on Picard's iteration, refuse a model whose
    Perron root is not below 1. A must be dense, because W has full rank.
    Cost: 2 n³ flops for the map and for its pullback.
    Source: Winston and Kolter, Monotone operator equilibrium networks, NeurIPS 2020.

    Examples
    --------
    >>> f = ImplicitFunctionMonotone(kappa=0.25)
    >>> (W,) = f.effective((np.array([[0.5, 0.0], [3.0, -1.0]]),))
    >>> print(W.round(3))
    [[ 0.25 -3.  ]
     [ 3.   -2.  ]]
    """

    name = "monotone"
    low_rank = False

    def _map(self, F: np.ndarray) -> np.ndarray:
        return monotone.make_monotone(F, self.kappa)

    def _pull(self, F: np.ndarray, G: np.ndarray) -> np.ndarray:
        return monotone.make_monotone_pullback(F, self.kappa, G)


FUNCTIONS_OF_ROWS = (ImplicitFunction, ImplicitFunctionInf, ImplicitFunctionRows)  # what a sparse A may have

# A class that was written for torchidl may define these names, which nothing here uses. The sentences say what
# takes their place in this library.
_METHODS = {
    ("phi", "dphi"): "pass activation=idl_ref.Activation(name, phi, slope, lipschitz), with functions of NumPy arrays",
    ("forward", "backward", "inn_pred", "inn_pred_grad", "set_parameters"): (
        "override effective and pullback, which map A and its gradient, and pass mitr, tol, … to ImplicitModel"
    ),
}
_SETTINGS = {("kappa", "mitr", "grad_mitr", "tol", "grad_tol"): "pass kappa, mitr, tol, … to ImplicitModel"}


def without_overrides(f: type, known: Callable[[type], bool], way_out: str = "", own: Iterable[str] = ()) -> None:
    """Refuse a class that defines names of torchidl's classes, which would be ignored, outside of the `known` classes.

    `own` are further names, those that an object of the class has for itself. With `way_out`, which takes the place of
    other ways out, only methods are looked at: torchidl itself stores the settings of a model on the class.
    """
    defined = {name for cls in f.__mro__ if not known(cls) for name in vars(cls)} | {*own}
    for names, own_way_out in (_METHODS if way_out else _METHODS | _SETTINGS).items():
        if found := [name for name in names if name in defined]:
            raise TypeError(
                f"f must be a class that maps the raw A to the effective A; got f={f.__name__} with "
                f"{' and '.join(found)}, which would be ignored: {way_out or own_way_out}."
            )


FUNCTIONS: dict[str, type[ImplicitFunction]] = {
    f.name: f
    for f in (
        ImplicitFunctionInf,
        ImplicitFunctionRows,
        ImplicitFunctionPerron,
        ImplicitFunctionMonotone,
        ImplicitFunctionTriu,
        ImplicitFunction,
    )
}
