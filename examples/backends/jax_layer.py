"""This is a layer for JAX that `idl_ref` computes and differentiates: X = φ(X Aᵀ + U Bᵀ), with samples as rows.

python examples/backends/jax_layer.py checks its gradients, and trains it in front of a linear layer.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.test_util import check_grads

import idl_ref
from idl_ref import activations, datasets, factors, solve_adjoint, solve_equilibrium

OPTIONS = idl_ref.SolveOptions(on_failure="ignore")  # A sample that does not converge is NaN, as is usual in JAX.


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def equilibrium(A: Any, Z: Any, activation: str = "relu", options: idl_ref.SolveOptions = OPTIONS) -> Any:
    """Return X of X = φ(X Aᵀ + Z), where A is a matrix (n, n) or a pair (L, R) with A = L Rᵀ.   Z (…, n) -> (…, n)"""
    return call(lambda A, Z: solve_equilibrium(A, Z, activation=activation, options=options), A, Z)


def forward(A: Any, Z: Any, activation: str, options: idl_ref.SolveOptions) -> Any:
    X = equilibrium(A, Z, activation, options)
    return X, (A, Z, X)


def backward(activation: str, options: idl_ref.SolveOptions, kept: Any, G: Any) -> Any:
    def adjoint(A: Any, Z: np.ndarray, X: np.ndarray, G: np.ndarray) -> idl_ref.Solution:
        P = factors.apply((A[0], A[1].T) if isinstance(A, tuple) else (A,), X) + Z
        return solve_adjoint(A, activations.get(activation).slope(P) + 0 * P, G, options=options)  # NaN remains NaN.

    A, Z, X = kept
    V = call(adjoint, A, Z, X, G)  # ∂ℓ/∂Z
    x, v = X.reshape(-1, X.shape[-1]), V.reshape(-1, X.shape[-1])
    return (v.T @ (x @ A[1]), x.T @ (v @ A[0])) if isinstance(A, tuple) else v.T @ x, V


equilibrium.defvjp(forward, backward)


def call(solver: Any, A: Any, *rows: Any) -> Any:
    """Call a solver of NumPy arrays from JAX, eagerly or under jit and vmap.   rows (…, n) -> (…, n)"""
    dtypes = {M.dtype.name for M in (*jax.tree.leaves(A), *rows)}
    if dtypes not in ({"float32"}, {"float64"}):
        raise TypeError(f"A and Z must both be float32, or both float64; got {sorted(dtypes)}: call .astype.")
    result = jax.ShapeDtypeStruct(rows[0].shape, rows[0].dtype)
    return jax.pure_callback(partial(on_host, solver), result, A, *rows, vmap_method="expand_dims")


def on_host(solver: Any, A: Any, *rows: Any) -> np.ndarray:
    """Solve for arrays with further leading axes, which have length 1 where vmap does not map an array.

    All samples that share A, as in a vmap over samples, are solved in one call.   A (…, n, n), rows (…, n) -> (…, n)
    """
    (*pair,), rows = np.broadcast_arrays(*jax.tree.leaves(A)), np.broadcast_arrays(*rows)
    while pair[0].ndim > 2 and pair[0].shape[-3] == 1:
        pair = [F[..., 0, :, :] for F in pair]
    k = pair[0].ndim - 2  # the number of leading axes over which A differs
    shape = np.broadcast_shapes(pair[0].shape[:k], rows[0].shape[:k])
    pair = [np.broadcast_to(F, shape + F.shape[k:]) for F in pair]
    rows = [np.broadcast_to(M, shape + M.shape[k:]) for M in rows]
    result = np.empty(rows[0].shape, rows[0].dtype)
    for i in np.ndindex(shape):
        columns = [M[i].reshape(-1, M.shape[-1]).T for M in rows]
        solution = solver(tuple(F[i] for F in pair) if isinstance(A, tuple) else pair[0][i], *columns)
        result[i] = np.where(solution.succeeded, solution.X, np.nan).T.reshape(result[i].shape)
    return result


def layer(W: dict[str, Any], U: Any, kappa: float = 0.99, **settings: Any) -> Any:
    """Return X (…, n) for U (…, p) and parameters A, or L and R, and B, with A, or L and Rᵀ, scaled to a norm ≤ κ."""
    scaled = lambda M: M * (kappa / jnp.maximum(kappa, jnp.abs(M).sum(1).max()))  # noqa: E731
    A = scaled(W["A"]) if "A" in W else (scaled(W["L"]), scaled(W["R"].T).T)
    return equilibrium(A, U @ W["B"].T, **settings)


def main(low_rank: dict[str, Any]) -> None:
    model, (U, y) = idl_ref.ImplicitModel(2, 2, 20, seed=0, **low_rank), map(jnp.asarray, datasets.two_moons(200))
    W = jax.tree.map(jnp.asarray, model.parameters)
    loss = lambda W: -jax.nn.log_softmax(layer(W, U) @ W["C"].T)[jnp.arange(len(y)), y].mean()  # noqa: E731
    step = jax.jit(lambda W: jax.tree.map(lambda M, G: M - 0.5 * G, W, jax.grad(loss)(W)))
    before = loss(W)
    for _ in range(100):
        W = step(W)
    print(f"{' '.join(W)}: loss {before:.3f} before and {loss(W):.3f} after training")
    with jax.enable_x64(True):
        W, U = jax.tree.map(lambda M: M.astype("float64"), (W, U[:5]))
        exact = idl_ref.SolveOptions(1e-13, on_failure="ignore")
        check_grads(partial(layer, activation="tanh", options=exact), (W, U), order=1, modes=["rev"], rtol=1e-6)


if __name__ == "__main__":
    main({})
    main({"is_low_rank": True, "rank": 2})
