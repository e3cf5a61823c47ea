"""What `f` makes of the raw weights: the effective A that the equation uses, and the pullback to the raw one.

| class                 | effective A                                             |
|-----------------------|---------------------------------------------------------|
| ImplicitFunction      | A as it is                                              |
| ImplicitFunctionInf   | κ A / max(κ, ‖A‖∞), one scale for the matrix            |
| ImplicitFunctionTriu  | the strict upper triangle of A                          |
| ImplicitFunctionRows  | each row projected on the ℓ1 ball of radius κ           |

Low rank: L and Rᵀ are each treated so; ‖A‖∞ ≤ ‖L‖∞ ‖Rᵀ‖∞ ≤ κ².
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from idl_ref import checks, wellposed
from idl_ref.factors import Factors

__all__ = ["ImplicitFunction", "ImplicitFunctionInf", "ImplicitFunctionRows", "ImplicitFunctionTriu"]


class ImplicitFunction:
    """A as it is; nothing keeps the model well posed.

    Parameters
    ----------
    kappa : float
        Radius of the ball that A is kept in. The constraint classes below use it; this one only keeps it.
    straight_through : bool
        Treat the map from raw to effective A as the identity when differentiating: what torchidl does for a dense A.
        Wrong by a factor ‖A‖∞/κ and in direction wherever ‖A‖∞ > κ; for comparison with torchidl only.

    Examples
    --------
    A model takes the class itself, and makes the object with its own κ:

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
                f"straight_through needs an f that moves A onto a ball; got {type(self).__name__}: "
                "use ImplicitFunctionInf or ImplicitFunctionRows."
            )

    def effective(self, factors: Factors) -> Factors:
        """The factors that the equation uses."""
        return tuple(self._map(F) for F in factors)

    def pullback(self, factors: Factors, gradients: Factors) -> Factors:
        """∂ℓ/∂(raw factors) from ∂ℓ/∂(effective factors)."""
        if self.straight_through:
            return gradients
        return tuple(self._pull(F, G) for F, G in zip(factors, gradients, strict=True))

    def project(self, factors: Factors) -> Factors | None:
        """What a training step writes back into the raw factors; None for nothing."""
        return None

    def active_set(self, factors: Factors) -> tuple[np.ndarray, ...]:
        """Which smooth piece of the map the factors are on; a finite difference must not cross into another."""
        return ()

    def _map(self, F: np.ndarray) -> np.ndarray:
        return F

    def _pull(self, F: np.ndarray, G: np.ndarray) -> np.ndarray:
        return G


class ImplicitFunctionInf(ImplicitFunction):
    """κ A / max(κ, ‖A‖∞): one scale for the whole matrix, so that ‖A‖∞ ≤ κ. The default.

    Parameters
    ----------
    kappa, straight_through
        See ImplicitFunction.

    Notes
    -----
    Pullback, for ν = ‖A‖∞ > κ: (κ/ν)(G − (⟨G, A⟩/ν) s), s = sign(A) on the row that attains ν, 0 elsewhere.
    One long row shrinks all the others; ImplicitFunctionRows does not. Cost: n² flops, either way.

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
            scaled = wellposed.norm_inf(F) > self.kappa
            pieces += [np.append(np.sign(F[row]), row) if scaled else np.zeros(F.shape[1] + 1)]
        return tuple(pieces)

    def _map(self, F: np.ndarray) -> np.ndarray:
        return wellposed.scale_to_norm(F, self.kappa)

    def _pull(self, F: np.ndarray, G: np.ndarray) -> np.ndarray:
        return wellposed.scale_to_norm_pullback(F, self.kappa, G)


class ImplicitFunctionTriu(ImplicitFunction):
    """The strict upper triangle of A: a feed-forward net, well posed whatever the weights, solved in one sweep.

    Parameters
    ----------
    kappa, straight_through
        See ImplicitFunction; neither has a meaning here, and straight_through is refused.

    Notes
    -----
    Pullback: the strict upper triangle of G. It needs a dense A.

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
    """Each row projected (Euclidean) on the ℓ1 ball of radius κ; each training step writes the projection back.

    Parameters
    ----------
    kappa, straight_through
        See ImplicitFunction.

    Notes
    -----
    Pullback of a row outside the ball, on its support S: G_S − σ_S (σ_Sᵀ G_S)/|S|, σ = sign(a).
    Cost: a sort per row, n² log n. Source: Duchi et al., Efficient projections onto the ℓ1-ball, ICML 2008.

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
        return wellposed.project_rows(F, self.kappa)

    def _pull(self, F: np.ndarray, G: np.ndarray) -> np.ndarray:
        return wellposed.project_rows_pullback(F, self.kappa, G)


FUNCTIONS: dict[str, type[ImplicitFunction]] = {
    f.name: f for f in (ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitFunction)
}
