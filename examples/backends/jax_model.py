"""What the backends in JAX share: the model around an equilibrium that each of them finds in its own way."""

import jax
import numpy as np
from jax import nn


class JaxModel:
    """Compiles each new shape, which takes a second. XLA replaces subnormal numbers by zero."""

    capabilities = {"subnormal": False}  # noqa: RUF012
    names = {"hardtanh": "hard_tanh", "softsign": "soft_sign"}  # noqa: RUF012  JAX's, where they differ
    solve = None  # a function of φ, A, Z, the tolerance and the most iterations: X, and which columns converged

    def __init__(self):
        self._forward = jax.jit(self._model, static_argnums=0)
        self._vjp = jax.jit(lambda name, W, limits, G: jax.vjp(
            lambda W: self._model(name, W, limits)[0], W)[1](G)[0], static_argnums=0)  # fmt: skip

    def _model(self, name, W, limits):
        """Return Y, X and which columns converged."""
        A = W["A"] if "A" in W else W["L"] @ W["R"].T
        X, done = self.solve(getattr(nn, self.names.get(name, name)), A, W["B"] @ W["U"], *limits)
        return W["C"] @ X + (W["D"] @ W["U"] if "D" in W else 0), X, done

    def _arguments(self, p):
        return p.activation, {name: np.ascontiguousarray(M) for name, M in p.arrays.items()}, (p.tol, p.max_iter)

    def forward(self, p):
        with jax.enable_x64(p.dtype == np.float64):
            return dict(zip(("Y", "X", "converged"), map(np.asarray, self._forward(*self._arguments(p))), strict=True))

    def vjp(self, p, G_Y):
        with jax.enable_x64(p.dtype == np.float64):
            return jax.tree.map(np.asarray, self._vjp(*self._arguments(p), np.ascontiguousarray(G_Y)))
