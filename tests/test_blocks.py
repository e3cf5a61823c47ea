"""Solving by blocks of units: their order, answers within their bounds, the same bits, and what "auto" chooses."""

import itertools

import numpy as np
import pytest

from idl_ref import ImplicitFunction, ImplicitModel, SolveOptions, available_backends, solve_adjoint, solve_equilibrium
from idl_ref import blocks as ordering
from idl_ref.activations import get
from idl_ref.solution import Status

BACKENDS = [name for name in ("numpy", "numba") if name in available_backends()]
PHI = {"relu": lambda P: np.maximum(P, 0), "tanh": np.tanh, "sigmoid": lambda P: 1 / (1 + np.exp(-P))}


def structured(rng, sizes, kappa, density, dtype=np.float64):
    """Return a matrix with a cycle for each negative size and a layer for each positive one, its units shuffled."""
    n = sum(map(abs, sizes))
    A, first = np.zeros((n, n)), 0
    for size in sizes:
        k = abs(size)
        rows = slice(first, first + k)
        A[rows, :first] = rng.standard_normal((k, first)) * (rng.random((k, first)) < density)
        if size < 0:
            own = rng.uniform(0.1, 1, (k, k)) * rng.choice([-1, 1], (k, k))
            A[rows, rows] = own * (kappa / np.abs(own).sum(axis=1).max())
        first += k
    shuffled = rng.permutation(n)
    return A[np.ix_(shuffled, shuffled)].astype(dtype)


def fixed_point(apply, X):
    """Iterate in extended precision, more often than any A of these tests needs."""
    for _ in range(6000):
        X, before = apply(X), X
        if (before == X).all():
            break
    return X


def exact(A, Z, phi):
    A, Z = A.astype(np.longdouble), Z.astype(np.longdouble)
    return fixed_point(lambda X: PHI[phi](A @ X + Z), np.zeros_like(Z))


def exact_adjoint(A, S, G):
    A, S, G = (M.astype(np.longdouble) for M in (A, S, G))
    return fixed_point(lambda V: S * (A.T @ V + G), np.zeros_like(G))


# --- order ------------------------------------------------------------------------------------------------------------


def units(rows, n):
    return np.arange(n)[rows]


@pytest.mark.parametrize("seed", range(12))
def test_every_unit_is_in_one_block_behind_what_it_depends_on(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 14))
    A = rng.standard_normal((n, n)) * (rng.random((n, n)) < rng.uniform(0, 0.3))
    reach = A != 0  # After this loop, whether a unit depends on another one in any number of steps.
    for k in range(n):
        reach |= np.outer(reach[:, k], reach[k])
    done: list[int] = []
    for block in ordering.order(A):
        rows, before = units(block.rows, n), units(block.columns, n)
        assert not set(rows) & set(done)
        assert set(before) <= set(done)
        others = np.setdiff1d(np.arange(n), np.concatenate([rows, before]))
        assert not A[np.ix_(rows, others)].any()
        np.testing.assert_array_equal(block.F, A[np.ix_(rows, before)])
        if block.cycle is None:
            assert not A[np.ix_(rows, rows)].any()
        else:
            np.testing.assert_array_equal(block.cycle, A[np.ix_(rows, rows)])
            assert reach[np.ix_(rows, rows)].all()
        done += list(rows)
    assert sorted(done) == list(range(n))


def test_layers_of_a_network_are_slices():
    A = np.zeros((7, 7))
    A[3:5, :3], A[5:, 3:5] = 1, 1
    assert [block.rows for block in ordering.order(A)] == [slice(0, 3), slice(3, 5), slice(5, 7)]
    A[0, 0] = 0.5
    assert sum(block.cycle is not None for block in ordering.order(A)) == 1


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(4)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_are_within_their_bounds(backend, dtype):
    rng = np.random.default_rng(5)
    for phi in PHI:
        for tol in (1e-4, 0.0):
            sizes = rng.choice([-4, -3, -1, 1, 3, 5], int(rng.integers(1, 6)))
            A, m = structured(rng, sizes, rng.choice([0.5, 0.99]), rng.uniform(0.2, 1), dtype), int(rng.integers(1, 6))
            Z = (rng.standard_normal((len(A), m)) * 10.0 ** rng.integers(-5, 3)).astype(dtype)
            S = rng.uniform(0, 1, Z.shape).astype(dtype)
            options = SolveOptions(tol=tol, max_iter=6000, method="blocks")
            forth = solve_equilibrium(A, Z, activation=phi, backend=backend, options=options)
            back = solve_adjoint(A, S, Z, backend=backend, options=options)
            assert forth.succeeded.all()
            assert back.succeeded.all()
            assert (np.abs(forth.X - exact(A, Z, phi)).max(axis=0) <= forth.error_bound).all()
            assert (np.abs(back.X - exact_adjoint(A, S, Z)).sum(axis=0) <= back.error_bound).all()
            if tol:
                for solution in (forth, back):
                    assert (solution.step <= tol * np.minimum(1, np.abs(Z).max(axis=0))).all()
            assert np.isfinite([forth.error_bound, back.error_bound]).all()


def even(rng, sizes, units):
    """Return an A ≥ 0 whose blocks have equal entries, so that every norm is attained, and the block of each unit.

    Negative sizes stand for cycles, whose norm is 1/2; `units` is the order of the units. If the last
    block is no cycle, one of its units has smaller entries.
    """
    n, owner = sum(map(abs, sizes)), np.repeat(np.arange(len(sizes)), np.abs(sizes))[units]
    A = np.zeros((n, n))
    for b, c in itertools.product(range(len(sizes)), repeat=2):
        norm = 0.5 * (sizes[b] < 0) if b == c else 10.0 ** rng.uniform(-1, 2) * (b > c)
        A[np.ix_(owner == b, owner == c)] = norm / abs(sizes[c])
    if sizes[-1] > 1:
        A[np.argmax(owner == len(sizes) - 1)] /= 10
    return A, owner


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("backend", BACKENDS)
def test_bounds_are_the_errors_where_every_norm_is_attained(backend, seed):
    """A ≥ 0, Z ≥ 0 and a start at 0: all errors of Picard's iteration add up, as the bound expects them to do."""
    rng = np.random.default_rng(seed)
    sizes = np.array([-3, 2, -1, 4, -2])[rng.permutation(5)] if seed else np.array([-1, -2, 3])
    A, owner = even(rng, sizes, rng.permutation(np.abs(sizes).sum()))
    z, s = rng.uniform(1, 2, (2, len(sizes), 6))
    z, s = z * 10.0 ** rng.integers(-3, 1, 6), s / 2
    Z, S = z[owner], s[owner]
    options = SolveOptions(tol=1e-3, method="blocks")
    forth = solve_equilibrium(A, Z, backend=backend, options=options)
    back = solve_adjoint(A, S, Z, backend=backend, options=options)
    error = np.abs(forth.X - np.linalg.solve(np.eye(len(A)) - A, Z)).max(axis=0)
    V = np.stack([np.linalg.solve(np.eye(len(A)) - S[:, [j]] * A.T, S[:, j] * Z[:, j]) for j in range(6)], axis=1)
    assert error.min() > 1e-8
    for bound, true in ((forth.error_bound, error), (back.error_bound, np.abs(back.X - V).sum(axis=0))):
        assert (true <= bound).all()
        assert (bound <= 1.001 * true).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bound_covers_the_rounding_of_a_long_sum(backend):
    """All terms are equal, such that additions round in one direction: more than φ may have rounded each of them."""
    terms, candidates = 127, (1 + np.random.default_rng(0).random(20_000)).astype("f4")
    total = np.zeros_like(candidates)
    for _ in range(terms):
        total += candidates
    worst = np.argsort(-np.abs(total - terms * candidates.astype(float)) / total)[:40]
    A, Z = np.zeros((terms + 1, terms + 1), "f4"), np.zeros((terms + 1, 40), "f4")
    A[-1, :-1], Z[:-1] = 1, candidates[worst]
    options = SolveOptions(method="blocks")
    forth = solve_equilibrium(A, Z, activation="identity", backend=backend, options=options)
    back = solve_adjoint(A.T.copy(), np.ones_like(Z), Z, backend=backend, options=options)
    exactly = terms * candidates[worst].astype(float)
    error = np.abs(forth.X[-1] - exactly)
    if backend == "numba":  # BLAS may add in an order that rounds less.
        assert error.max() > 20 * 2.0**-24 * exactly.max()
    assert (error <= forth.error_bound).all()
    assert (np.abs(back.X[-1] - exactly) <= back.error_bound).all()
    assert (forth.error_bound < 1e-4 * exactly).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_column_ends_as_the_worst_of_its_blocks(backend, order):
    """One of two cycles needs many iterations, and has not converged after three; the other one has."""
    A = np.diag(np.array([0.5, 1e-12])[order])
    options = SolveOptions(tol=1e-9, max_iter=3, method="blocks", on_failure="ignore")
    solution = solve_equilibrium(A, np.ones((2, 1)), backend=backend, options=options)
    assert (solution.status[0], solution.iterations[0]) == (Status.MAX_ITER, 3)
    assert solution.step[0] > 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_norm_that_overflows_is_no_failure(backend):
    S = np.ones((3, 1), "f4")
    solution = solve_adjoint(
        np.zeros((3, 3), "f4"), S, 3e38 * S, backend=backend, options=SolveOptions(method="blocks")
    )
    assert solution.converged
    np.testing.assert_array_equal(solution.X, 3e38 * S)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cycle_behind_large_weights_stops_by_the_z_of_the_column(backend):
    """The constant term of its own equation is 10⁶ times as large, and so would be the step at which it stops."""
    A = np.array([[0.0, 0, 0], [1e6, 0.5, 0.4], [0, 0.4, 0.5]])
    Z = np.array([[1e-3, 2.0], [0, 0], [0, 0]])
    solution = solve_equilibrium(A, Z, backend=backend, options=SolveOptions(tol=1e-4, max_iter=999, method="blocks"))
    assert (solution.step <= 1e-4 * np.array([1e-3, 1])).all()
    np.testing.assert_array_equal(solution.status, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_columns_that_fail_are_reported_and_spoil_no_other(backend):
    A = np.array([[0.5, 0.45, 0], [0.45, 0.5, 0], [1, 1, 0]])
    Z = np.ones((3, 4))
    Z[0, 1], Z[2, 2] = np.nan, np.inf
    X0 = np.zeros((3, 4))
    X0[1, 3] = np.nan
    options = SolveOptions(tol=1e-9, max_iter=3, method="blocks", on_failure="ignore")
    solution = solve_equilibrium(A, Z, X0=X0, backend=backend, options=options)
    assert [Status(s).name for s in solution.status] == ["MAX_ITER", "NONFINITE", "NONFINITE", "NONFINITE"]
    assert np.isnan(solution.X[:, 1:]).all()
    assert solution.iterations.tolist() == [3, 0, 0, 0]
    assert abs(solution.X[:, 0] - [20, 20, 41]).max() <= solution.error_bound[0] < np.inf
    overflow = solve_equilibrium(
        3e38 * np.tri(3, k=-1, dtype="f4"), np.ones((3, 1), "f4"), backend=backend, options=options
    )
    assert (overflow.status[0], overflow.error_bound[0]) == (Status.NONFINITE, np.inf)


def test_products_of_factors_are_refused():
    with pytest.raises(ValueError, match='method "blocks" needs a dense A'):
        solve_equilibrium((np.ones((3, 1)), np.ones((3, 1))), np.ones((3, 1)), options=SolveOptions(method="blocks"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_equations_have_answers(backend):
    for n, m in ((0, 3), (3, 0)):
        options = SolveOptions(method="blocks")
        assert solve_equilibrium(np.zeros((n, n)), np.zeros((n, m)), backend=backend, options=options).X.shape == (n, m)


# --- models -----------------------------------------------------------------------------------------------------------


def network(rng, sizes, dtype="float32", **settings):
    """Return the weights and biases of a feed-forward net, and the implicit model that computes the same."""
    layers = [
        (rng.standard_normal((b, a)) * (2 / a) ** 0.5, rng.standard_normal(b) / 9) for a, b in itertools.pairwise(sizes)
    ]
    hidden = np.cumsum([0, *sizes[1:-1]])
    p, q, n = sizes[0], sizes[-1], hidden[-1]
    model = ImplicitModel(p, q, n, f=ImplicitFunction, bias=True, dtype=dtype, **settings)
    for W in model.parameters.values():
        W[...] = 0
    for i, (W, b) in enumerate(layers[:-1]):
        rows = slice(hidden[i], hidden[i + 1])
        model.parameters["B"][rows, p] = b
        if i == 0:
            model.parameters["B"][rows, :p] = W
        else:
            model.parameters["A"][rows, hidden[i - 1] : hidden[i]] = W
    model.parameters["C"][:, hidden[-2] :], model.parameters["D"][:, p] = layers[-1]
    return layers, model


def feed_forward(layers, U):
    H = [U.astype(np.float64)]
    for W, b in layers[:-1]:
        H.append(np.maximum(H[-1] @ W.T + b, 0))
    return H, H[-1] @ layers[-1][0].T + layers[-1][1]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_feed_forward_net_has_its_outputs_gradients_and_a_finite_bound(backend, dtype):
    rng, exactly = np.random.default_rng(2), 1e-5 if dtype == "float32" else 1e-13
    layers, model = network(rng, (30, 70, 65, 4), dtype, backend=backend, on_failure="raise")
    assert model.settings.layer(model.effective_weights()).method() == "blocks"
    U, G_Y = rng.standard_normal((9, 30)).astype(dtype), rng.standard_normal((9, 4)).astype(dtype)
    H, Y = feed_forward(layers, U)
    forward = model.forward_pass(U)
    np.testing.assert_allclose(forward.Y.T, Y, rtol=0, atol=exactly * abs(Y).max())
    assert (forward.solution.iterations == 1).all()
    assert (forward.solution.error_bound < 1e4 * exactly).all()
    _, pullback = model.vjp(U)
    gradients = pullback(G_Y)
    G = G_Y.astype(np.float64)
    back = [G]
    for (W, _), X in zip(layers[:0:-1], H[:0:-1], strict=True):
        back.append((back[-1] @ W) * (X > 0))
    expected = {"C": G.T @ np.hstack(H[1:]), "B": np.hstack(back[:0:-1]).T @ np.hstack([U, np.ones((9, 1))])}
    expected |= {"U": back[-1] @ layers[0][0]}
    for name, M in expected.items():
        np.testing.assert_allclose(gradients[name], M, rtol=0, atol=9 * exactly * abs(M).max(), err_msg=name)


def test_auto_takes_blocks_where_they_read_less():
    rng = np.random.default_rng(0)
    _, model = network(rng, (5, 100, 100, 2))
    A = model.parameters["A"]
    assert len(ordering.pays(A)) == 2
    assert ordering.pays(A[:120, :120]) == ()  # small
    assert ordering.pays(rng.standard_normal((200, 200))) == ()  # dense
    assert ordering.pays(np.tri(200, k=-1)) == ()  # as many blocks as units
    two = np.kron(np.eye(2), rng.standard_normal((100, 100)))
    assert [block.cycle is None for block in ordering.pays(two)] == [False, False]
    sparse = rng.standard_normal((200, 200)) * (rng.random((200, 200)) < 0.05)
    assert ordering.pays(sparse) == ()  # one cycle of all units


@pytest.mark.skipif("numba" not in BACKENDS, reason="numba is not installed")
def test_bits_depend_on_no_other_sample(monkeypatch):
    rng = np.random.default_rng(1)
    _, model = network(rng, (40, 60, 110, 3), backend="numba")
    model.parameters["A"][:60, :60] = np.abs(rng.standard_normal((60, 60))) / 200  # The first layer becomes a cycle.
    assert model.settings.layer(model.effective_weights()).method() == "blocks"
    U, G_Y = rng.standard_normal((300, 40)).astype("f4"), rng.standard_normal((300, 3)).astype("f4")
    Y = model(U)
    for j in (0, 7, 299):
        np.testing.assert_array_equal(model(U[[j]])[0], Y[j])
    import numba

    _, expected = model.vjp(U)[0], model.vjp(U)[1](G_Y)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(model(U), Y)
        for name, M in model.vjp(U)[1](G_Y).items():
            np.testing.assert_array_equal(M, expected[name], err_msg=name)
    finally:
        numba.set_num_threads(before)


def test_bounds_depend_on_no_other_column():
    rng = np.random.default_rng(0)
    for n in (33, 200):
        A = np.triu(rng.standard_normal((n, n)) / n, 1) * (rng.random((n, n)) < 0.3)
        Z, S = rng.standard_normal((n, 40)), rng.random((n, 40))
        for backend in BACKENDS:
            how = {"options": SolveOptions(method="blocks"), "backend": backend}
            whole = solve_equilibrium(A, Z, **how), solve_adjoint(A, S, Z, **how)
            for j in range(40):
                one = solve_equilibrium(A, Z[:, [j]], **how), solve_adjoint(A, S[:, [j]], Z[:, [j]], **how)
                assert [s.error_bound[0] for s in one] == [s.error_bound[j] for s in whole]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sample_that_is_not_finite_is_never_a_success(backend, value):
    """Not even if the number is an input that no unit reads, or if relu takes what depends on it to 0."""
    _, model = network(np.random.default_rng(3), (20, 70, 70, 2), backend=backend, on_failure="ignore")
    model.parameters["B"][:, 4] = 0
    U = np.random.default_rng(4).standard_normal((5, 20)).astype("f4")
    expected = model(U)
    U[1, 4] = U[3, 0] = value
    solution = model.forward_pass(U).solution
    assert solution.status.tolist() == [0, Status.NONFINITE, 0, Status.NONFINITE, 0]
    assert np.isnan(solution.X[:, [1, 3]]).all()
    np.testing.assert_array_equal(model(U)[::2], expected[::2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "softplus"])
def test_units_in_any_order_have_the_outputs_and_gradients_of_the_iteration(activation, dtype):
    """Layers of sizes around those of a vector, their units and the inputs that they read in any order."""
    rng, exactly = np.random.default_rng([7, len(activation)]), 2e-4 if dtype == "float32" else 1e-12
    for sizes in ((1, 15, 17), (33, 16, 2, 1), (31, 64, 5)):
        n, p, q, m = sum(sizes), int(rng.integers(1, 40)), int(rng.integers(1, 6)), int(rng.integers(1, 70))
        models = [
            ImplicitModel(p, q, n, f=ImplicitFunction, bias=True, activation=activation, dtype=dtype, seed=1, **how)
            for how in (
                {"method": "picard", "backend": "numpy", "tol": 0, "grad_tol": 0},
                *({"method": "blocks", "backend": b} for b in BACKENDS),
            )
        ]
        A, B = structured(rng, sizes, 0, 0.5) / 4, rng.standard_normal((n, p + 1)) * (rng.random((n, p + 1)) < 0.3)
        B[rng.permutation(n)[: n // 3]] = 0
        U, G_Y = rng.standard_normal((m, p)), rng.standard_normal((m, q))
        results, bounds = [], []
        for model in models:
            model.parameters["A"][...], model.parameters["B"][...] = A, B
            forward, (_, pullback) = model.forward_pass(U), model.vjp(U)
            results.append((forward.Y, forward.Z, forward.solution.X, *pullback(G_Y).values()))
            adjoint = model.settings.layer(model.effective_weights()).backward(forward, G_Y.T.astype(dtype)).solution
            bounds.append(np.concatenate([forward.solution.error_bound, adjoint.error_bound]))
            assert np.isfinite(bounds[-1]).all()
        for bound in bounds[2:]:  # The bounds of both twins have one definition.
            np.testing.assert_allclose(bound, bounds[1], rtol=1e-3)
        for result in results[1:]:
            for got, expected in zip(result, results[0], strict=True):
                np.testing.assert_allclose(got, expected, rtol=0, atol=exactly * max(1, abs(expected).max()))


def test_inputs_that_a_block_does_not_read_may_become_ones_that_it_reads():
    _, model = network(np.random.default_rng(3), (20, 70, 70, 2))
    U = np.random.default_rng(4).standard_normal((3, 20)).astype("f4")
    before = model(U)
    model.parameters["B"][100, 0] = 1  # Weights may change in place.
    assert not np.array_equal(model(U), before)


def test_the_activations_of_the_oracle_are_those_of_the_library():
    P = np.linspace(-3, 3, 7)
    for name, phi in PHI.items():
        np.testing.assert_allclose(get(name).phi(P), phi(P), rtol=1e-15)
