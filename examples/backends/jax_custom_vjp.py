"""This backend is plain JAX: a while loop, whose derivative `custom_vjp` defines by LU factorisations.

idl-ref conformance run --backend examples.backends.jax_custom_vjp:PlainJax
"""

from functools import partial

import jax
import numpy as np
from jax import nn
from jax import numpy as jnp


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def equilibrium(phi, A, Z, tol, max_iter):
    """Return X = φ(A X + Z), and which columns have converged, or cycle in the last digits of a contraction."""
    contracts, floor = jnp.abs(A).sum(1).max() < 1, tol * jnp.minimum(1, jnp.abs(Z).max(0))

    def body(state):
        k, X, _, earlier, _ = state
        G = phi(A @ X + Z)
        noise = 4 * jnp.finfo(Z.dtype).eps * (jnp.abs(A) @ jnp.abs(G) + jnp.abs(Z) + jnp.abs(G))
        done = (jnp.abs(G - X) <= jnp.maximum(floor, noise)).all(0)
        done |= contracts & (k > 64) & (jnp.abs(G - earlier) <= noise).all(0)
        return k + 1, G, X, jnp.where(k & (k - 1) == 0, G, earlier), done

    more = lambda s: (s[0] <= max_iter) & ~(s[4] | ~jnp.isfinite(s[1]).all(0)).all()  # noqa: E731
    start = jnp.zeros_like(Z)
    _, X, last, _, done = jax.lax.while_loop(more, body, (1, start, start, start, jnp.zeros(Z.shape[1], bool)))
    return jnp.where(contracts, X, last), done & jnp.isfinite(X).all(0)


def forward(phi, A, Z, tol, max_iter):
    X, done = equilibrium(phi, A, Z, tol, max_iter)
    return (X, done), (A, Z, X)


def backward(phi, kept, cotangents):
    A, Z, X = kept
    S = jax.vjp(phi, A @ X + Z)[1](jnp.ones_like(X))[0]
    solve = lambda s, g: jnp.linalg.solve(jnp.eye(len(s), dtype=s.dtype) - s[:, None] * A.T, s * g)  # noqa: E731
    V = jax.vmap(solve, 1, 1)(S, cotangents[0])
    return V @ X.T, V, None, None


equilibrium.defvjp(forward, backward)


class PlainJax:
    """Compiles each new shape, which takes a second. XLA replaces subnormal numbers by zero."""

    name, capabilities = "plain JAX", {"subnormal": False}
    names = {"hardtanh": "hard_tanh", "softsign": "soft_sign"}  # noqa: RUF012  JAX's, where they differ
    solve = staticmethod(equilibrium)

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
