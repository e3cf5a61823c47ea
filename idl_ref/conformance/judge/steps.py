"""The answer to a problem step by step in float64, in which any step can be replaced by a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from idl_ref import activations
from idl_ref import factors as fac
from idl_ref.conformance.truth.problem import COLUMNS, Arrays, Case
from idl_ref.weights import by_name

INPUTS = ("A", "L", "R", "B", "C", "D", "U", "G_Y", "X0")
# The steps on which each solved equation depends: without a change in one of them its solution is the true one.
EQUATION = {*INPUTS[:4], "U", "raw", "f", "F", "Z", "phi", "X"}
ADJOINT = EQUATION | {"C", "G_Y", "P", "S", "G", "Ft", "V", "Xb"}


ORDINARY = 1e30  # where φ of a smaller number overflows, it is computed in a wrong way


class UnsolvedError(ArithmeticError):
    """The changed equation has no solution that was found."""


class Steps:
    """Every quantity of a problem in float64 by name, computed when it is first asked for.

    Parameters
    ----------
    case : Case
        Its columns without an answer are left out.
    changes : dict of str to callable
        Functions that replace the step of their name; each is called with this object.

    Notes
    -----
    The steps are A, L, R, B, C, D, U, G_Y, X0 (the inputs); raw, F, Ft (the weights before and after f, and their
    transpose, as factors); Z, phi, X (what is solved), Xf and Xb (what is returned, and what the gradients are computed
    from), Y; P, S, G, V (the adjoint); dF (the gradients of F), dB, dC, dD, dU; pulled (the raw gradients, as factors).
    """

    def __init__(self, case: Case, changes: Mapping[str, Callable[[Steps], Any]] = {}) -> None:
        self.case, self.problem, self.changes = case, case.problem, changes
        self.activation = activations.get(case.problem.activation)
        self.truth: Arrays = case.truths[0] if case.truths else {}
        self.good = case.good
        self._known: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._known:
            self._known[name] = self.changes[name](self) if name in self.changes else self.right(name)
        return self._known[name]

    def right(self, name: str) -> Any:
        """What a step gives if it is not replaced itself."""
        return self._input(name) if name in INPUTS else getattr(self, f"_{name}")()

    def changed(self, names: set[str]) -> bool:
        """Whether a step of these names is replaced."""
        return not names.isdisjoint(self.changes)

    def answer(self, check: str) -> Arrays:
        """The answer to "forward" or "vjp" under the names of the truth."""
        with np.errstate(all="ignore"):
            if check == "forward":
                return {"Y": self.Y, "X": self.Xf}
            out = {"B": self.dB, "C": self.dC, "U": self.dU, **by_name(self.pulled)}
            return out if self.D is None else out | {"D": self.dD}

    # --- the inputs, in the columns that have an answer ---------------------------------------------------------------

    def _input(self, name: str) -> np.ndarray | None:
        M = self.case.G_Y if name == "G_Y" else getattr(self.problem, name)
        if M is None:
            return None
        M = M.astype(np.float64)
        return M if name not in ("U", "G_Y", "X0") else M[:, self.good]

    def _raw(self) -> fac.Factors:
        return (self.A,) if self.A is not None else (self.L, self.R.T)

    def _f(self) -> Any:
        return self.problem.function

    def _F(self) -> fac.Factors:
        factors: fac.Factors = self.f.effective(self.raw)
        return factors

    def _Ft(self) -> fac.Factors:
        return fac.transpose(self.F)

    # --- the equation -------------------------------------------------------------------------------------------------

    def _Z(self) -> np.ndarray:
        Z: np.ndarray = self.B @ self.U
        return Z

    def _phi(self) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
        """φ and its slope."""
        return self.activation.phi, self.activation.slope

    def _X(self) -> np.ndarray:
        X = self._true("X")
        return X if not self.changed(EQUATION) else equilibrium(self.F, self.Z, self.phi[0], self.phi[1], X)

    def _true(self, name: str) -> np.ndarray:
        M = self.truth[name]
        return M if self.good.all() else M[:, self.good]

    def _Xf(self) -> np.ndarray:
        X: np.ndarray = self.X
        return X

    _Xb = _Xf

    def _Y(self) -> np.ndarray:
        Y: np.ndarray = self.C @ self.Xf
        return Y if self.D is None else Y + self.D @ self.U

    # --- the adjoint equation, and the gradients ----------------------------------------------------------------------

    def _P(self) -> np.ndarray:
        P: np.ndarray = fac.apply(self.F, self.Xb) + self.Z
        return P

    def _S(self) -> np.ndarray:
        S: np.ndarray = self.phi[1](self.P)
        return S

    def _G(self) -> np.ndarray:
        G: np.ndarray = self.C.T @ self.G_Y
        return G

    def _V(self) -> np.ndarray:
        return adjoint(self.Ft, self.S, self.G) if self.changed(ADJOINT) else self._true("V")

    def _dF(self) -> fac.Factors:
        return fac.gradients(self.F, self.Xb, self.V)

    def _dB(self) -> np.ndarray:
        G: np.ndarray = self.V @ self.U.T
        return G

    def _dC(self) -> np.ndarray:
        G: np.ndarray = self.G_Y @ self.Xb.T
        return G

    def _dD(self) -> np.ndarray:
        G: np.ndarray = self.G_Y @ self.U.T
        return G

    def _dU(self) -> np.ndarray:
        G: np.ndarray = self.B.T @ self.V
        return G if self.D is None else G + self.D.T @ self.G_Y

    def _pulled(self) -> fac.Factors:
        gradients: fac.Factors = self.f.pullback(self.raw, self.dF)
        return gradients


def equilibrium(F: fac.Factors, Z: np.ndarray, phi: Any, slope: Any, start: np.ndarray) -> np.ndarray:
    """The X with X = φ(F X + Z) by Newton's method, column by column; UnsolvedError if it fails.   (n, m)"""
    if Z.size == 0:
        return Z
    A, X = product(F), np.where(np.isfinite(start), start, 0.0)
    for _ in range(30):
        P = A @ X + Z
        residual = phi(P) - X
        if not np.isfinite(residual).all():
            break
        if (np.abs(residual) <= 1e-14 * (np.abs(X) + np.abs(P)) + 1e-322).all():
            return X
        try:
            X = X + resolved(slope(P).T[:, :, None] * A, residual)
        except np.linalg.LinAlgError:
            break
    X, lost = np.zeros_like(Z), np.zeros(Z.shape[1], bool)
    for _ in range(2000):
        P = A @ X + Z
        X, last = phi(P), X
        lost |= (np.isfinite(P) & ~np.isfinite(X) & (np.abs(P) < ORDINARY)).any(axis=0)
        if not np.isfinite(X[:, ~lost]).all():
            break
        if (np.abs(X - last) <= 1e-13 * np.abs(X) + 1e-322)[:, ~lost].all():
            return X
    raise UnsolvedError


def adjoint(Ft: fac.Factors, S: np.ndarray, G: np.ndarray) -> np.ndarray:
    """The V with V = S ∘ (Ft V + G); UnsolvedError if the equation is singular.   (n, m)"""
    if G.size == 0:
        return G
    try:
        return resolved(S.T[:, :, None] * product(Ft), S * G)
    except np.linalg.LinAlgError:
        raise UnsolvedError from None


def resolved(M: np.ndarray, right: np.ndarray) -> np.ndarray:
    """For every column j the x with (I − Mⱼ) x = rightⱼ.   (m, n, n), (n, m) -> (n, m)"""
    return np.linalg.solve(np.eye(M.shape[-1]) - M, right.T[:, :, None])[:, :, 0].T


def product(F: fac.Factors) -> np.ndarray:
    return F[0] if len(F) == 1 else F[0] @ F[1]


@cache
def right(case: Case, check: str) -> Arrays:
    """The right answer as far as it is known: the truth under the names of the check."""
    names = ("Y", "X") if check == "forward" else tuple(n for n in case.truths[0] if n not in ("X", "Y", "V"))
    return {n: M[:, case.good] if n in COLUMNS else M for n, M in case.truths[0].items() if n in names}
