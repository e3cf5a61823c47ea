"""A backend on jaxopt: its fixed-point iteration, column by column, with its implicit differentiation.

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
    """jaxopt's FixedPointIteration under vmap over columns; the adjoint by its LU solve.

    It compiles for every new shape, which takes a second or two each time. XLA sets subnormal numbers to zero. jaxopt
    measures a step by a root of a sum of squares: in float32 those of 1e-30 and 1e+30 leave the range.
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
        """One column: x and its last step."""
        phi = PHI[activation]
        apply = (lambda x, W: W["A"] @ x) if "A" in W else (lambda x, W: W["L"] @ (W["R"].T @ x))
        size = jax.lax.stop_gradient(jnp.abs(z).max())
        stop = jnp.maximum(tol * jnp.minimum(1, size), 4 * jnp.finfo(z.dtype).eps * size)
        solver = FixedPointIteration(
            lambda x, W, z: phi(apply(x, W) + z), maxiter=max_iter, tol=stop, implicit_diff=True,
            implicit_diff_solve=solve_lu, jit=True,
        )  # fmt: skip
        x, state = solver.run(x0, W, z)
        return x, state.error <= jnp.maximum(stop, 8 * jnp.finfo(z.dtype).eps * jnp.abs(x).max())

    def _effective(self, M: Any, f: str, kappa: float, straight_through: bool) -> Any:
        """What `f` makes of a raw factor."""
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
        if "A" in W:
            W = W | {"A": self._effective(W["A"], *f)}
        else:
            W = W | {"L": self._effective(W["L"], *f), "R": self._effective(W["R"].T, *f).T}
        column = partial(self._solve, activation=activation, tol=tol, max_iter=max_iter)
        X, converged = jax.vmap(column, (None, 1, 1), (1, 0))(W, W["B"] @ W["U"], X0)
        Y = W["C"] @ X + (W["D"] @ W["U"] if "D" in W else 0)
        return Y, X, converged

    def _pullback(self, W: Any, X0: Any, G_Y: Any, **settings: Any) -> Any:
        _, pull = jax.vjp(lambda W: self._model(W, X0, **settings)[0], W)
        return pull(G_Y)[0]

    def _inputs(self, p: Problem) -> tuple[Any, Any, dict[str, Any]]:
        W = {name: jnp.asarray(np.ascontiguousarray(M)) for name, M in p.arrays.items()}
        X0 = W.pop("X0", jnp.zeros((p.B.shape[0], p.U.shape[1]), p.dtype))
        f = (p.f, p.kappa, p.straight_through)
        return W, X0, {"activation": p.activation, "tol": p.tol, "max_iter": p.max_iter, "f": f}

    def forward(self, p: Problem) -> dict[str, Any]:
        """{"Y", "X", "converged"}."""
        with jax.enable_x64(True):
            W, X0, settings = self._inputs(p)
            Y, X, converged = self._forward(W, X0, **settings)
            return {"Y": np.asarray(Y), "X": np.asarray(X), "converged": np.asarray(converged)}

    def vjp(self, p: Problem, G_Y: np.ndarray) -> dict[str, np.ndarray]:
        """{"A"} or {"L", "R"}, "B", "C", "D", "U"."""
        with jax.enable_x64(True):
            W, X0, settings = self._inputs(p)
            return {name: np.asarray(G) for name, G in self._vjp(W, X0, np.ascontiguousarray(G_Y), **settings).items()}
