"""This backend is plain JAX: a while loop, whose derivative `custom_vjp` defines by LU factorisations.

idl-ref conformance run --backend examples.backends.jax_custom_vjp:PlainJax
"""

from functools import partial

import jax
from jax import numpy as jnp

from .jax_model import JaxModel


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


class PlainJax(JaxModel):
    """Has the shared model around this loop."""

    name = "plain JAX"
    solve = staticmethod(equilibrium)
