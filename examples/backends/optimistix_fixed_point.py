"""This backend uses optimistix: its fixed-point iteration under vmap, and its implicit differentiation.

idl-ref conformance run --backend examples.backends.optimistix_fixed_point:Optimistix
"""

import jax
import optimistix as optx
from jax import numpy as jnp

from .jax_model import JaxModel


def equilibrium(phi, A, Z, tol, max_iter):
    """Return X = φ(A X + Z), and which columns converged."""
    eps, tiny = jnp.finfo(Z.dtype).eps, jnp.finfo(Z.dtype).tiny

    def column(z):
        stop = tol * jnp.minimum(1, jax.lax.stop_gradient(jnp.abs(z).max())) + tiny
        solver = optx.FixedPointIteration(rtol=4 * eps, atol=stop)
        found = optx.fixed_point(
            lambda x, Az: phi(Az[0] @ x + Az[1]), solver, 0 * z, (A, z), max_steps=2**15, throw=False
        )
        return found.value, (found.result == optx.RESULTS.successful) & (found.stats["num_steps"] <= max_iter)

    return jax.vmap(column, 1, (1, 0))(Z)


class Optimistix(JaxModel):
    """Has the shared model around optimistix's solver, which takes batches that are not empty."""

    name, capabilities = "optimistix", {"empty": False, "subnormal": False}
    solve = staticmethod(equilibrium)
