"""This module tells for a model why its equation has one solution for every input."""

from __future__ import annotations

from idl_ref import activations
from idl_ref import reasons as proofs
from idl_ref.composition import check_models
from idl_ref.model import ImplicitModel
from idl_ref.reasons import Reason

__all__ = ["Reason", "reasons"]


def reasons(model: ImplicitModel) -> tuple[Reason, ...]:
    """Return every reason that shows X = φ(A X + B U) to have one solution for every U, the strongest first.

    Parameters
    ----------
    model : ImplicitModel
        Its effective weights are looked at, and nothing is solved.

    Returns
    -------
    tuple of Reason
        Each with a name, a constant and a text. An empty tuple means that nothing could be shown, which is not the same
        as that a solution is missing or not unique. In this order:

        - "no cycles": no unit depends on itself. As many steps as there are levels give the states. The constant is 0.
        - "norm": Lip(φ)‖A‖∞ < 1. Picard's iteration shrinks errors in the ∞-norm by this factor.
        - "Perron root": Lip(φ) times the Perron root of the absolute values of A is below 1. The same in a weighted
          ∞-norm.
        - "monotone": Lip(φ)(A + Aᵀ)/2 ⪯ (1 − m) I with m > 0. Errors are bounded in the 2-norm, but Picard's iteration
          may diverge. The constant is 1 − m.
        - "cycles": each cycle of units is well posed by one of the other reasons. The constant is the largest one.
        - "P-matrix": all principal minors of I − Lip(φ) A are positive; looked for up to 12 units. There is one
          solution, and no bound. The constant is 1 − the smallest minor.

    Notes
    -----
    All numbers include their rounding. The last three reasons need a φ that does not decrease, as all built-in ones;
    nothing is known of an activation of your own but Lip(φ). The second last one and the last one need a dense A.
    Cost: O(n³ log n) operations to find the cycles, and about 20 n³ for the Perron root and the eigenvalues.
    Source: the page on the Perron root and P-matrices in the documentation derives all of them.

    Examples
    --------
    >>> from idl_ref import ImplicitFunctionMonotone, ImplicitModel
    >>> model = ImplicitModel(2, 1, 20, f=ImplicitFunctionMonotone, kappa=0.9, dtype="float64", seed=0)
    >>> [reason.name for reason in reasons(model)]
    ['norm', 'Perron root', 'monotone']
    >>> model.parameters["A"] *= 20
    >>> print(*(f"{reason.name}: {reason.constant:.3f}" for reason in reasons(model)))
    monotone: 0.900
    """
    check_models({"model": model})
    return tuple(proofs.reasons(model.effective_weights().factors, activations.get(model.activation)))
