"""This backend uses jaxopt: its fixed-point iteration solves each column, and its implicit differentiation the adjoint.

The conformance kit runs it by

idl-ref conformance run --backend examples.backends.jaxopt_vmap:Jaxopt
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from jax import nn
from jax import numpy as jnp
from jaxopt import FixedPointIteration
from jaxopt.linear_solve import solve_lu

from idl_ref.conformance import Problem

PHI = {
    "identity": lambda P: P,
    "relu": nn.relu,
    "leaky_relu": lambda P: nn.leaky_relu(P, 0.01),
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "softplus": nn.softplus,
    "elu": nn.elu,
    "hardtanh": nn.hard_tanh,
    "softsign": nn.soft_sign,
}


class Jaxopt:
    """Solves the columns by jaxopt's FixedPointIteration under vmap, and the adjoint equation by jaxopt's LU solver.

    Each new shape is compiled, which takes one or two seconds. XLA replaces subnormal numbers by zero. jaxopt measures
    a step by the root of a sum of squares; in float32, squares of numbers like 1e-30 underflow, and those of 1e+30
    overflow.
    """

    name = "jaxopt"
    capabilities: Any = {  # noqa: RUF012
        "X0": True,
        "f": ("inf", "rows", "triu"),
        "straight_through": True,
        "empty": False,
        "subnormal": False,
    }

    def __init__(self) -> None:
        static = ("activation", "tol", "max_iter", "f")
        self._forward = jax.jit(self._model, static_argnames=static)
        self._vjp = jax.jit(self._pullback, static_argnames=static)

    def _solve(self, W: Any, z: Any, x0: Any, activation: str, tol: float, max_iter: int) -> Any:
        """Solve one column, and return x and whether the iteration converged."""
        phi = PHI[activation]
        apply = (lambda x, W: W["A"] @ x) if "A" in W else (lambda x, W: W["L"] @ (W["R"].T @ x))
        size = jax.lax.stop_gradient(jnp.abs(z).max())
        stop = jnp.maximum(tol * jnp.minimum(1, size), 4 * jnp.finfo(z.dtype).eps * size)
        solver = FixedPointIteration(
            lambda x, W, z: phi(apply(x, W) + z), maxiter=max_iter, tol=stop, implicit_diff=True,
            implicit_diff_solve=solve_lu, jit=True,
        )  # fmt: skip
        x, state = solver.run(x0, W, z)
        small = jnp.maximum(stop, 8 * jnp.finfo(z.dtype).eps * jnp.abs(x).max())
        return x, (state.error <= small) & jnp.isfinite(state.error)

    def _effective(self, M: Any, f: str, kappa: float, straight_through: bool) -> Any:
        """Return the effective factor that `f` makes from a raw factor M."""
        stopped = jax.lax.stop_gradient
        if f == "none":
            return M
        if f == "triu":
            return jnp.triu(M, 1)
        size = jnp.abs(M)
        if f == "inf":
            norm = size.sum(axis=1).max()
            mapped = M * (kappa / jnp.where(norm > kappa, norm, kappa))
        else:
            sums = jnp.cumsum(jnp.sort(size, axis=1)[:, ::-1], axis=1)
            theta = ((sums - kappa) / jnp.arange(1, M.shape[1] + 1, dtype=M.dtype)).max(axis=1, keepdims=True)
            mapped = jnp.where(theta > 0, jnp.sign(M) * nn.relu(size - theta), M)
        return stopped(mapped) + (M - stopped(M)) if straight_through else mapped

    def _model(self, W: Any, X0: Any, activation: str, tol: float, max_iter: int, f: tuple[Any, ...]) -> Any:
        """Return Y, X and which columns converged, for the weights and inputs in W."""
        if "A" in W:
            W = W | {"A": self._effective(W["A"], *f)}
        else:
            W = W | {"L": self._effective(W["L"], *f), "R": self._effective(W["R"].T, *f).T}
        column = partial(self._solve, activation=activation, tol=tol, max_iter=max_iter)
        X, converged = jax.vmap(column, (None, 1, 1), (1, 0))(W, W["B"] @ W["U"], X0)
        Y = W["C"] @ X + (W["D"] @ W["U"] if "D" in W else 0)
        return Y, X, converged

    def _pullback(self, W: Any, X0: Any, G_Y: Any, **settings: Any) -> Any:
        """Return the gradients of everything in W."""
        _, pull = jax.vjp(lambda W: self._model(W, X0, **settings)[0], W)
        return pull(G_Y)[0]

    def _inputs(self, p: Problem) -> tuple[Any, Any, dict[str, Any]]:
        """Return weights and inputs, the start, and the settings of a problem, in the form that JAX takes."""
        W = {name: jnp.asarray(np.ascontiguousarray(M)) for name, M in p.arrays.items()}
        X0 = W.pop("X0", jnp.zeros((p.B.shape[0], p.U.shape[1]), p.dtype))
        f = (p.f, p.kappa, p.straight_through)
        return W, X0, {"activation": p.activation, "tol": p.tol, "max_iter": p.max_iter, "f": f}

    def forward(self, p: Problem) -> dict[str, Any]:
        """Return a dict with Y, X and the bool array converged."""
        with jax.enable_x64(True):
            W, X0, settings = self._inputs(p)
            Y, X, converged = self._forward(W, X0, **settings)
            return {"Y": np.asarray(Y), "X": np.asarray(X), "converged": np.asarray(converged)}

    def vjp(self, p: Problem, G_Y: np.ndarray) -> dict[str, np.ndarray]:
        """Return a dict with the gradients of A, or of L and R, and of B, C, D and U."""
        with jax.enable_x64(True):
            W, X0, settings = self._inputs(p)
            return {name: np.asarray(G) for name, G in self._vjp(W, X0, np.ascontiguousarray(G_Y), **settings).items()}
