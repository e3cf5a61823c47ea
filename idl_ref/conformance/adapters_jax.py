"""A backend on jaxopt: its fixed-point iteration, column by column, with its implicit differentiation."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from idl_ref.conformance.capabilities import F
from idl_ref.conformance.problem import Arrays, Problem


class Jaxopt:
    """jaxopt's FixedPointIteration under vmap over columns; the adjoint by its LU solve.

    It compiles for every new shape, which takes a second or two each time. XLA sets subnormal numbers to zero. jaxopt
    measures a step by a root of a sum of squares: in float32 those of 1e-30 and 1e+30 leave the range.
    """

    name = "jaxopt"
    capabilities: Any = {"X0": True, "f": F, "straight_through": True, "empty": False, "subnormal": False}  # noqa: RUF012

    def __init__(self) -> None:
        try:
            import jax
            from jaxopt import FixedPointIteration, linear_solve
        except ImportError:
            raise ImportError("this backend needs JAX and jaxopt: pip install jax jaxopt") from None
        self.jax, self.Solver, self.lu = jax, FixedPointIteration, linear_solve.solve_lu
        nn, np_ = jax.nn, jax.numpy
        self.phi = {
            "identity": lambda P: P,
            "relu": nn.relu,
            "leaky_relu": lambda P: nn.leaky_relu(P, 0.01),
            "tanh": np_.tanh,
            "sigmoid": nn.sigmoid,
            "softplus": nn.softplus,
            "elu": nn.elu,
            "hardtanh": nn.hard_tanh,
            "softsign": nn.soft_sign,
        }
        static = ("activation", "tol", "max_iter", "f")
        self._forward = jax.jit(self._model, static_argnames=static)
        self._vjp = jax.jit(self._pullback, static_argnames=static)

    def _solve(self, W: Any, z: Any, x0: Any, activation: str, tol: float, max_iter: int) -> Any:
        """One column: x and its last step."""
        np_ = self.jax.numpy
        phi = self.phi[activation]
        apply = (lambda x, W: W["A"] @ x) if "A" in W else (lambda x, W: W["L"] @ (W["R"].T @ x))
        size = self.jax.lax.stop_gradient(np_.abs(z).max())
        stop = np_.maximum(tol * np_.minimum(1, size), 4 * np_.finfo(z.dtype).eps * size)
        solver = self.Solver(
            lambda x, W, z: phi(apply(x, W) + z), maxiter=max_iter, tol=stop, implicit_diff=True,
            implicit_diff_solve=self.lu, jit=True,
        )  # fmt: skip
        x, state = solver.run(x0, W, z)
        return x, state.error <= np_.maximum(stop, 8 * np_.finfo(z.dtype).eps * np_.abs(x).max())

    def _effective(self, M: Any, f: str, kappa: float, straight_through: bool) -> Any:
        """What `f` makes of a raw factor."""
        np_, stopped = self.jax.numpy, self.jax.lax.stop_gradient
        if f == "none":
            return M
        if f == "triu":
            return np_.triu(M, 1)
        size = np_.abs(M)
        if f == "inf":
            norm = size.sum(axis=1).max()
            mapped = M * (kappa / np_.where(norm > kappa, norm, kappa))
        else:
            sums = np_.cumsum(np_.sort(size, axis=1)[:, ::-1], axis=1)
            theta = ((sums - kappa) / np_.arange(1, M.shape[1] + 1, dtype=M.dtype)).max(axis=1, keepdims=True)
            mapped = np_.where(theta > 0, np_.sign(M) * self.jax.nn.relu(size - theta), M)
        return stopped(mapped) + (M - stopped(M)) if straight_through else mapped

    def _model(self, W: Any, X0: Any, activation: str, tol: float, max_iter: int, f: tuple[Any, ...]) -> Any:
        if "A" in W:
            W = W | {"A": self._effective(W["A"], *f)}
        else:
            W = W | {"L": self._effective(W["L"], *f), "R": self._effective(W["R"].T, *f).T}
        column = partial(self._solve, activation=activation, tol=tol, max_iter=max_iter)
        X, converged = self.jax.vmap(column, (None, 1, 1), (1, 0))(W, W["B"] @ W["U"], X0)
        Y = W["C"] @ X + (W["D"] @ W["U"] if "D" in W else 0)
        return Y, X, converged

    def _pullback(self, W: Any, X0: Any, G_Y: Any, **settings: Any) -> Any:
        _, pull = self.jax.vjp(lambda W: self._model(W, X0, **settings)[0], W)
        return pull(G_Y)[0]

    def _inputs(self, p: Problem) -> tuple[Any, Any, dict[str, Any]]:
        W = {name: self.jax.numpy.asarray(np.ascontiguousarray(M)) for name, M in p.arrays.items()}
        X0 = W.pop("X0", self.jax.numpy.zeros((p.B.shape[0], p.U.shape[1]), p.dtype))
        f = (p.f, p.kappa, p.straight_through)
        return W, X0, {"activation": p.activation, "tol": p.tol, "max_iter": p.max_iter, "f": f}

    def forward(self, p: Problem) -> dict[str, Any]:
        """{"Y", "X", "converged"}."""
        with self.jax.enable_x64(True):
            W, X0, settings = self._inputs(p)
            Y, X, converged = self._forward(W, X0, **settings)
            return {"Y": np.asarray(Y), "X": np.asarray(X), "converged": np.asarray(converged)}

    def vjp(self, p: Problem, G_Y: np.ndarray) -> Arrays:
        """{"A"} or {"L", "R"}, "B", "C", "D", "U"."""
        with self.jax.enable_x64(True):
            W, X0, settings = self._inputs(p)
            return {name: np.asarray(G) for name, G in self._vjp(W, X0, np.ascontiguousarray(G_Y), **settings).items()}
