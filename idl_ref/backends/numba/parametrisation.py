"""This module has the way from raw parameters to effective weights and back, with the compiled maps `f`."""

from __future__ import annotations

import numpy as np

from idl_ref.backends.numba import maps
from idl_ref.backends.numba.launches import flat
from idl_ref.certificate import numbers
from idl_ref.functions import FUNCTIONS, ImplicitFunction
from idl_ref.weights import BackwardPass, Gradients, Parameters, Parametrisation, Weights, as_factors, by_name


class Compiled(Parametrisation):
    """A parametrisation with compiled maps; a function that `maps` does not have, or a sparse A, is mapped as usual."""

    @classmethod
    def of(cls, parametrisation: Parametrisation) -> Compiled:
        """Return the same parametrisation with compiled maps."""
        return cls(parametrisation.function, parametrisation.bias, parametrisation.pattern)

    @property
    def is_compiled(self) -> bool:
        """Whether the map of A and its pullback are compiled."""
        return self.pattern is None and is_known(self.function)

    def weights(self, parameters: Parameters) -> Weights:
        """Return the effective weights; B, C and D are the arrays of the parameters, not copies."""
        if not self.is_compiled:
            return super().weights(parameters)
        factors = tuple([effective(self.function, F, np.empty_like(F)) for F in as_factors(parameters)])
        return Weights(factors, parameters["B"], parameters["C"], parameters.get("D"), self.bias)

    def pullback(self, parameters: Parameters, backward: BackwardPass) -> Gradients:
        """Return the gradients of the raw parameters, by pulling back those of the effective weights."""
        if not self.is_compiled:
            return super().pullback(parameters, backward)
        factors = zip(as_factors(parameters), backward.factors, strict=True)
        raw = tuple([pulled_back(self.function, F, G, np.empty_like(F)) for F, G in factors])
        named = by_name(raw) | {"B": backward.B, "C": backward.C}
        return named if backward.D is None else named | {"D": backward.D}

    def project(self, parameters: Parameters) -> None:
        """Project A, or L and R, in place if the function asks for that."""
        if not self.is_compiled:
            super().project(parameters)
        elif self.function.name == "rows":
            for F in as_factors(parameters):
                effective(self.function, F, F)


def is_known(f: ImplicitFunction) -> bool:
    """Tell whether the maps of f are those of `functions`, and not those of a user, and are compiled."""
    return f.name in maps.KINDS and type(f) is FUNCTIONS.get(f.name) and vars(f).keys() <= {"kappa", "straight_through"}


def effective(f: ImplicitFunction, F: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return the effective factor of a raw one: `out`, which is laid out as F is, or F itself if f changes nothing."""
    kind = maps.KINDS[f.name]
    if kind == maps.NONE:
        return F
    if not (_is_packed(F) and maps.effective(kind, flat(F), F.shape, f.kappa, numbers(F.dtype)[0], flat(out)[0])):
        with np.errstate(over="ignore", invalid="ignore"):  # The status of a column reports overflow, not a warning.
            (out[...],) = f.effective((F,))
    return out


def pulled_back(f: ImplicitFunction, F: np.ndarray, G: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return the gradient with respect to a raw factor F, for that with respect to the effective one: `out`, or G."""
    kind = maps.NONE if f.straight_through else maps.KINDS[f.name]
    if kind == maps.NONE:
        return G
    eps = numbers(F.dtype)[0]
    if not (_is_packed(F) and maps.pullback(kind, flat(F), F.shape, flat(G), f.kappa, eps, flat(out)[0])):
        with np.errstate(over="ignore", invalid="ignore"):  # The trainer reports what is not finite.
            (out[...],) = f.pullback((F,), (G,))
    return out


def _is_packed(F: np.ndarray) -> bool:
    """Tell whether the entries of F fill their memory, which may be written."""
    return bool(F.size) and (F.flags.carray or F.flags.farray)
