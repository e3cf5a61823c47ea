"""What the Numba twin takes for rounding without a product is rounding by the definition, too."""

import numpy as np
import pytest

from idl_ref import activations, certificate
from idl_ref.wellposed import norm_inf

numba = pytest.importorskip("numba")
from idl_ref.backends.numba import rounded  # noqa: E402
from idl_ref.backends.numba.compiling import PLAIN  # noqa: E402

N = 16


def evident(M, places, sizes, earlier, gamma, roundings):
    return rounded.evident(M, places, sizes, earlier, 0.0, gamma, roundings)


evident = evident if PLAIN else numba.njit(evident)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stalled", [False, True])
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("name", ["identity", "relu", "leaky_relu", "tanh", "sigmoid", "softsign", "elu"])
def test_what_is_evident_is_explained(name, adjoint, stalled, dtype):
    if adjoint:
        name = "identity"  # The adjoint equation is linear in V.
    phi, rng, eps, said = activations.get(name), np.random.default_rng(0), float(np.finfo(dtype).eps), 0
    for _ in range(300):
        A, x = rng.standard_normal((N, N)), rng.standard_normal(N)
        A *= 0.9 / norm_inf(A)
        z = rng.standard_normal(N) * 10.0 ** rng.integers(-2, 3)
        A, x, z = A.astype(dtype), x.astype(dtype), z.astype(dtype)
        s = rng.uniform(0, 1, N).astype(dtype) if adjoint else np.ones(N, dtype)
        roundings = certificate.rounding((A,), phi, np.dtype(dtype), norm_inf(A))
        ulps = certificate.ROUNDED * eps
        gamma = certificate.STALLED * roundings.gamma if stalled else ulps
        wide = A.astype(float)
        p, terms = wide @ x + z, np.abs(wide) @ np.abs(x) + np.abs(z)
        g = (s * phi.phi(p)).astype(dtype)
        share = rng.choice([0.3, 0.8, 1.0, 3.0, 40.0]) * rng.choice([ulps, ulps + gamma])
        earlier = (g * (1 + share * rng.uniform(-1, 1, N))).astype(dtype)
        M, sizes = np.concatenate([x, g, z, s, earlier]), (N, 0, phi.code, N)
        places = 0, N, 2 * N, 3 * N if adjoint else -1, 5 * N
        if evident(M, places, sizes, 4 * N, gamma, roundings):
            said += 1
            change = s * (phi.phi(p + gamma * terms) - phi.phi(p - gamma * terms)) / 2
            allowed = ulps * np.abs(g) + change
            assert (np.abs(g.astype(float) - earlier) <= allowed * (1 + 1e-3)).all()
    assert said > 30


def test_terms_that_may_overflow_are_not_evident():
    phi, largest = activations.get("relu"), float(np.finfo(np.float32).max)
    A = np.full((N, N), 0.9 / N, np.float32)
    roundings = certificate.rounding((A,), phi, np.dtype(np.float32), norm_inf(A))
    for size, expected in ((1.0, True), (0.2 * largest, True), (0.9 * largest, False)):
        column = np.full(N, size, np.float32)
        M, places = np.concatenate([column, column, column, column]), (0, N, 2 * N, -1, 4 * N)
        assert evident(M, places, (N, 0, phi.code, N), 3 * N, 1e-6, roundings) is expected
