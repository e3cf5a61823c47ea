import copy
import dataclasses

import numpy as np
import pytest
from gradient_cases import planted, sweep_planted, sweep_right

from idl_ref import (
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
    activations,
    check_gradients,
    factors,
    gradcheck,
)
from idl_ref.activations import Activation
from idl_ref.analysis import ImplicitRNN
from idl_ref.backends.numpy import Layer
from idl_ref.derivatives import LossOfModel, doubled
from idl_ref.preprocessing import Standardise
from idl_ref.weights import as_factors

FUNCTIONS = (ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitFunction)
ACTIVATIONS = ("identity", "relu", "leaky_relu", "tanh", "sigmoid", "softplus", "elu", "hardtanh", "softsign")


def make(f=ImplicitFunctionInf, size=8.0, seed=0, low_rank=False, **settings):
    """Return a model whose raw weights lie far outside the ball of `f`."""
    arguments = {"bias": True, "dtype": "float64", "is_low_rank": low_rank, "rank": 2 if low_rank else None, **settings}
    made = ImplicitModel(3, 2, 5, f, seed=seed, **arguments)
    for F in as_factors(made.parameters):
        F *= 1.0 if f is ImplicitFunction else size
    return made


def data(loss="cross_entropy", m=4, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, 3)), rng.integers(0, 2, m) if loss == "cross_entropy" else rng.standard_normal(
        (m, 2)
    )


def check(made, loss="cross_entropy", **arguments):
    return check_gradients(made, *data(loss), loss=loss, **arguments)


def verdicts(report):
    return {row.name: row.verdict for row in report.rows}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_right_models_pass(f, low_rank, loss):
    if low_rank and not f.low_rank:
        return
    report = check(make(f, low_rank=low_rank), loss)
    assert report.passed, str(report)
    names = ["L", "R"] if low_rank else ["A"]
    assert [row.name for row in report.rows] == [*names, "B", "C", "D", "U"]
    for row in report.rows:
        assert row.verdict == "ok"
        assert row.entries == row.total > 0
        assert row.difference_error <= 1e-6
        assert row.complex_error <= row.allowed < 1e-9


@pytest.mark.sampled(9)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("f", FUNCTIONS)
def test_the_complex_step_agrees_to_rounding(activation, f):
    for seed in range(2):
        made = make(f, seed=seed, activation=activation, kappa=0.9)
        report = check(made, "mse", entries=6)
        assert report.passed, str(report)
        assert max(row.complex_error for row in report.rows) < 1e-12
        assert max(row.allowed for row in report.rows) < 1e-10


@pytest.mark.parametrize("f", FUNCTIONS)
def test_float32_models_are_judged_in_float64(f):
    report = check(make(f, dtype="float32"))
    assert report.passed, str(report)
    assert all(row.difference_error < 1e-5 for row in report.rows)
    assert all(1e-12 < row.configured_error < 1e-2 for row in report.rows)


def test_no_D_and_no_bias():
    report = check(make(no_D=True, bias=False))
    assert report.passed
    assert [row.name for row in report.rows] == ["A", "B", "C", "U"]


# --- planted bugs -----------------------------------------------------------------------------------------------------


def defined(*arguments, **settings):
    """Return a model of the NumPy twin, whose formulas are those that the bugs below replace."""
    return make(*arguments, backend="numpy", **settings)


def wrong_rows(report):
    assert not report.passed
    return {name for name, verdict in verdicts(report).items() if verdict == "WRONG"}


def test_a_transposed_gradient_is_found(monkeypatch):
    right = factors.gradients
    monkeypatch.setattr(factors, "gradients", lambda *arguments: tuple(G.T for G in right(*arguments)))
    assert wrong_rows(check(defined())) == {"A"}


def test_a_wrong_factor_order_is_found(monkeypatch):
    def swapped(F, X, V):
        _, Rt = F
        return V @ (Rt @ X).T, (Rt @ V) @ X.T  # Rᵀ V is wrong; it should be Lᵀ V.

    monkeypatch.setattr(factors, "gradients", swapped)
    assert wrong_rows(check(defined(low_rank=True))) == {"R"}


def plant_in_the_adjoint(monkeypatch, plant):
    """Let every adjoint solve use the equation that `plant` makes from its own."""
    right = Layer.adjoint
    monkeypatch.setattr(Layer, "adjoint", lambda layer, S, G: plant(right(layer, S, G)))


def test_an_adjoint_without_slopes_is_found(monkeypatch):
    plant_in_the_adjoint(monkeypatch, lambda e: e._replace(S=np.ones_like(e.S)))
    assert {"A", "B", "U"} <= wrong_rows(check(defined(activation="tanh")))


def test_an_adjoint_that_is_not_transposed_is_found(monkeypatch):
    plant_in_the_adjoint(monkeypatch, lambda e: e._replace(factors=factors.transpose(e.factors)))
    assert {"A", "B", "U"} <= wrong_rows(check(defined(kappa=0.5)))


@pytest.mark.parametrize("name", ["B", "C", "D"])
def test_a_wrong_sign_is_found(monkeypatch, name):
    right = Layer.backward

    def flipped(*arguments, **keywords):
        backward = right(*arguments, **keywords)
        return backward._replace(**{name: -getattr(backward, name)})

    monkeypatch.setattr(Layer, "backward", flipped)
    assert wrong_rows(check(defined())) == {name}


def test_a_gradient_that_forgets_D_is_found(monkeypatch):
    monkeypatch.setattr(Layer, "input_gradient", lambda layer, V, G_Y: layer.weights.B[:, :-1].T @ V)
    assert wrong_rows(check(defined())) == {"U"}


@pytest.mark.parametrize("relative", [1e-5, 1e-10])
def test_a_small_error_in_one_entry_is_found(monkeypatch, relative):
    right = factors.gradients

    def off(*arguments):
        (G,) = right(*arguments)
        G = G.copy()
        G[1, 2] += relative * np.abs(G).max()
        return (G,)

    monkeypatch.setattr(factors, "gradients", off)
    assert wrong_rows(check(defined(kappa=0.5, size=0.9))) == {"A"}


def test_an_error_in_an_entry_that_was_not_drawn_is_found(monkeypatch):
    """The random direction involves every entry."""
    right = factors.gradients

    def off(*arguments):
        (G,) = right(*arguments)
        return (G + 1e-3 * np.abs(G).max() * (np.arange(G.size).reshape(G.shape) == 7),)

    monkeypatch.setattr(factors, "gradients", off)
    for seed in range(5):
        assert wrong_rows(check(defined(kappa=0.5, size=0.9), entries=1, seed=seed)) == {"A"}


@pytest.mark.parametrize("f", [ImplicitFunctionInf, ImplicitFunctionRows])
def test_straight_through_is_wrong_outside_the_ball_and_right_inside(f):
    assert wrong_rows(check(make(f, straight_through=True))) == {"A"}
    assert check(make(f, size=0.5, straight_through=True)).passed


def test_a_wrong_slope_is_found(monkeypatch):
    right = Layer.backward

    def wrong(layer, *arguments, **keywords):
        phi = layer.activation
        scaled = activations._row(phi.name, phi.code, phi.phi, lambda P: 0.99 * phi.slope(P), phi.lipschitz)
        return right(type(layer)(layer.weights, scaled, layer.options), *arguments, **keywords)

    monkeypatch.setattr(Layer, "backward", wrong)
    assert {"A", "B", "U"} <= wrong_rows(check(defined(activation="sigmoid", kappa=2.0)))


def test_a_gradient_that_is_not_finite_is_wrong(monkeypatch):
    right = factors.gradients
    monkeypatch.setattr(factors, "gradients", lambda *arguments: tuple(G * np.nan for G in right(*arguments)))
    assert not check(defined()).passed


def negated(right, left, a, flops, *products):
    right(left, a, flops, *products)
    for _, _, out in products:
        np.negative(out, out=out)


def rolled(right, left, a, flops, *products):
    right(left, a, flops, *((np.roll(R, sizes[3]), sizes, out) for R, sizes, out in products))


@pytest.mark.parametrize(
    ("name", "plant", "wrong"),
    [
        ("launch_outer", negated, {"A", "B", "C", "D", "U"}),
        ("launch_outer", rolled, {"A", "B", "C", "D", "U"}),
        ("product", lambda right, F, X: (1.001 if len(F) == 2 else 1) * right(F, X), {"L"}),
    ],
)
def test_a_wrong_product_of_the_compiled_twin_is_found(monkeypatch, name, plant, wrong):
    launches = pytest.importorskip("idl_ref.backends.numba.launches")
    right = getattr(launches, name)
    monkeypatch.setattr(launches, name, lambda *arguments: plant(right, *arguments))
    assert wrong_rows(check(make(backend="numba", low_rank="L" in wrong))) == wrong


@pytest.mark.parametrize("name", ["A", "B", "C", "D", "U"])
def test_an_error_in_one_entry_is_found_beside_entries_that_are_zero(name):
    """A parameter that holds a zero once turned the random direction off."""
    made, (U, y) = make(size=0.5), data()
    for value in (*made.parameters.values(), U):
        value[0, 0] = 0

    def wrong(G):
        G.flat[G.size - 2] += 1e-3 * np.abs(G).max()

    for seed in range(3):
        with planted(name, wrong):
            report = check_gradients(made, U, y, entries=1, seed=seed)
        assert wrong_rows(report) == {name}


def test_an_error_in_the_derivative_of_zero_entries_is_found():
    """The row that attains ‖A‖∞ has zeros, where |a| has a kink; the gradient there follows from sign(0) = 0."""
    made = make()
    made.parameters["A"][2] *= 5
    made.parameters["A"][2, :2] = 0
    assert check(made).passed

    def wrong(G):
        G[2, 0] += 1e-3 * np.abs(G).max()

    with planted("A", wrong):
        assert wrong_rows(check(made, entries=1)) == {"A"}


@pytest.mark.parametrize("row", range(5))
def test_a_negated_row_is_found(row):
    def wrong(G):
        G[row] *= -1

    with planted("A", wrong):
        assert wrong_rows(check(make(activation="tanh"), entries=1)) == {"A"}


def test_a_huge_resolvent_excuses_nothing():
    """With A × 120, ‖(I − |A|)⁻¹‖ is about 1e7, and an allowance proportional to it would pass any gradient."""
    made = make(ImplicitFunctionTriu, size=120.0)
    assert check(made).passed
    with planted("A", lambda G: np.multiply(G, 1.1, out=G)):
        assert wrong_rows(check(made)) == {"A"}


def test_the_gradients_of_a_subclass_are_checked():
    class Wrong(ImplicitModel):
        def _gradients(self, *arguments):
            return {name: G * (1 + 1e-3 * (name == "B")) for name, G in super()._gradients(*arguments).items()}

    made = make()
    assert wrong_rows(check(Wrong.from_parameters(made.settings, made.parameters))) == {"B"}


@pytest.mark.parametrize("count", [7, pytest.param(200, marks=pytest.mark.long)])
def test_no_planted_error_passes(count):
    verdicts, missed = sweep_planted(count, seed=count)
    assert not missed
    assert sum(n for (_, verdict), n in verdicts.items() if verdict == "WRONG") > 0.9 * count


# --- kinks ------------------------------------------------------------------------------------------------------------


def kinked(u):
    """Return a model x = relu(0.25 x + u) with one hidden unit, an input u near the kink at 0, and a target."""
    made = ImplicitModel(1, 1, 1, no_D=True, dtype="float64", seed=0)
    made.parameters["A"][...] = 0.25
    made.parameters["B"][...] = 1
    made.parameters["C"][...] = 2
    return made, np.array([[u]]), np.array([[0.7]])


@pytest.mark.parametrize("u", [1e-7, -1e-7])
def test_a_kink_between_the_steps_is_reported_and_not_wrong(u):
    made, U, T = kinked(u)
    report = check_gradients(made, U, T, loss="mse")
    rows = {row.name: row for row in report.rows}
    assert rows["U"].kinks == 1
    assert np.isnan(rows["U"].difference_error)  # A central difference would be wrong by a factor 2.
    assert rows["U"].complex_error <= rows["U"].allowed
    assert "WRONG" not in verdicts(report).values()
    assert report.passed


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "hardtanh", "tanh"])
def test_an_input_of_zeros_is_not_wrong(bias, activation):
    """Without a bias, every argument of relu is exactly at the kink."""
    made = make(bias=bias, activation=activation)
    report = check_gradients(made, np.zeros((4, 3)), [0, 1, 1, 0])
    assert "WRONG" not in verdicts(report).values(), str(report)


def test_a_kink_of_the_constraint_is_not_wrong():
    """At ‖A‖∞ = κ, the scaling of A begins, which is a kink."""
    for f in (ImplicitFunctionInf, ImplicitFunctionRows):
        made = make(f, size=1.0)
        A = made.parameters["A"]
        A *= made.kappa / np.abs(A).sum(axis=1, keepdims=True)
        assert "WRONG" not in verdicts(check(made)).values()


def test_zeros_in_A_are_not_wrong():
    """|a| has a kink at 0, which affects the row that attains the norm."""
    for f in (ImplicitFunctionInf, ImplicitFunctionRows):
        made = make(f)
        made.parameters["A"][:, 1] = 0
        report = check(made)
        assert "WRONG" not in verdicts(report).values(), str(report)


def test_units_at_a_kink_do_not_stop_the_check():
    """The preactivation of one unit and sample is exactly 0, and the gradient takes the slope 0 there."""
    made, (U, T) = make(kappa=0.5, bias=False), data("mse")
    U[1] = 0
    report = check_gradients(made, U, T, loss="mse")
    assert report.passed, str(report)
    assert max(row.allowed for row in report.rows) < 1e-10


def test_rows_that_tie_are_judged():
    """The gradient and the complex step choose the same one of the rows that attain ‖A‖∞."""
    made = ImplicitModel(3, 2, 12, dtype="float64", seed=0)
    row = np.random.default_rng(0).standard_normal(12)
    made.parameters["A"][...] = [np.roll(row, i) for i in range(12)]
    assert {name: verdict for name, verdict in verdicts(check(made)).items() if name != "A"} == dict.fromkeys(
        "BCDU", "ok"
    )
    assert verdicts(check(made))["A"] != "WRONG"


# --- right gradients that are hard to check ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [7, pytest.param(200, marks=pytest.mark.long)])
def test_no_right_gradient_is_called_wrong(count):
    found, alarms = sweep_right(count, seed=count)
    assert not alarms
    told = sum(n for (kind, verdict), n in found.items() if verdict == "ok" and kind != "optimal")
    assert told > 0.9 * sum(n for (kind, _), n in found.items() if kind != "optimal")


@pytest.mark.parametrize("factor", [10, 1e2, 1e3])
def test_confident_classifiers_pass(factor):
    made = make(kappa=0.5)
    made.parameters["C"] *= factor
    U, _ = data()
    assert check_gradients(made, U, made(U).argmax(axis=1)).passed


@pytest.mark.parametrize("activation", ["softsign", "elu", "tanh"])
def test_large_inputs_pass(activation):
    made, (U, y) = make(activation=activation), data()
    assert check_gradients(made, 100 * U, y).passed


def test_what_rounding_hides_is_not_called_ok():
    """The outputs differ from the targets in their last digits only, so that the gradient has none."""
    made, (U, _) = make(), data()
    made.settings = dataclasses.replace(made.settings, tol=0)
    report = check_gradients(made, U, made(U) * (1 + 1e-14), loss="mse")
    assert report.verdict == "cannot tell"
    assert not report.passed
    assert all("check the model at" in row.reason for row in report.rows)
    assert "cannot tell for A, B, C, D, U: rounding may change this gradient by more than 1e-6" in str(report)


class ThriceNegated(ImplicitModel):
    def loss_and_gradients(self, *arguments, **named):
        loss, gradients = super().loss_and_gradients(*arguments, **named)
        return loss, {name: G if name == "C" else -3 * G for name, G in gradients.items()}


def test_a_gradient_below_what_the_complex_step_resolves_is_not_called_ok():
    """Where tanh is saturated, gradients are near 1e-277, and this wrong one passed. At u = 1000 they are 0."""
    made = ThriceNegated(1, 2, 3, activation="tanh", dtype="float64", seed=0, no_D=True)
    made.parameters["B"][:] = [[1.0], [1.1], [1.2]]
    for u, verdict in ((1.0, "WRONG"), (320.0, "cannot tell"), (1000.0, "ok")):
        report = check_gradients(made, np.full((2, 1), u), np.array([0, 1]))
        found = {row.name: row.verdict for row in report.rows}
        assert found == {"C": "ok"} | dict.fromkeys("ABU", verdict), str(report)


@pytest.mark.parametrize("mean", [0.5, 1e9])
def test_gradients_by_raw_inputs_are_checked(monkeypatch, mean):
    made, (U, y) = make(), data()
    made.preprocessing = Standardise([mean, -mean, 0.0], [1e-3, 1.0, 1e3])
    raw = made.preprocessing.inverse(U)
    report = check_gradients(made, raw, y)
    assert report.passed, str(report)
    assert max(row.allowed for row in report.rows) < 1e-10
    monkeypatch.setattr(Standardise, "pullback", lambda pre, G: G)
    assert wrong_rows(check_gradients(made, raw, y)) == {"U"}


def test_a_wrong_slope_of_an_activation_of_ones_own_does_not_pass():
    """The complex step uses the same slope, but central differences contradict both."""
    arctan = Activation("arctan", np.arctan, lambda P: 1 / (1 + P * P), lipschitz=1.0)
    assert check(make(activation=arctan)).passed
    wrong = activations._row("arctan", activations.OWN, np.arctan, lambda P: 1.01 / (1 + P * P))
    found = verdicts(check(make(activation=wrong)))
    assert found == {"A": "cannot tell", "B": "cannot tell", "C": "ok", "D": "ok", "U": "cannot tell"}


class NotForComplexNumbers(ImplicitFunctionInf):
    """The right gradient for a map that uses the modulus |a|, whose complex step is wrong."""

    def _map(self, F):
        return F * (self.kappa / np.abs(F).sum(axis=1).max())


def test_a_function_that_does_not_take_complex_numbers_is_not_called_wrong():
    found = verdicts(check(make(NotForComplexNumbers)))
    assert found == {"A": "cannot tell", "B": "ok", "C": "ok", "D": "ok", "U": "ok"}


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_is_a_table():
    report = check(make())
    lines = str(report).splitlines()
    assert lines[0].split() == ["entries", "complex", "step", "allowed", "difference", "kinks", "as", "configured"]
    assert [line.split()[0] for line in lines[1:]] == ["A", "B", "C", "D", "U"]
    assert all(line.endswith("ok") for line in lines[1:])
    assert {len(line) for line in lines[1:]} == {len(lines[1])}


def test_the_model_is_not_changed():
    made = make(dtype="float32")
    kept, settings = copy.deepcopy(made.parameters), made.settings
    U, y = data()
    kept_U = U.copy()
    check_gradients(made, U, y)
    assert made.settings == settings
    for name, value in kept.items():
        assert made.parameters[name].tobytes() == value.tobytes()
    np.testing.assert_array_equal(U, kept_U)


def test_the_draw_is_reproducible():
    one, two, other = (check(make(), entries=3, seed=seed) for seed in (0, 0, 1))
    assert one == two
    assert str(one) != str(other)
    assert {row.entries for row in one.rows} == {3}


def test_a_loose_tolerance_shows_as_configured_and_not_as_wrong():
    report = check(make(tol=1e-2, grad_tol=1e-2))
    assert report.passed
    assert max(row.configured_error for row in report.rows) > 1e-4


def test_no_samples():
    report = check_gradients(make(), np.zeros((0, 3)), [])
    assert "WRONG" not in verdicts(report).values()


def test_hard_models_pass():
    made = make(kappa=0.99, bias=False)
    A = np.random.default_rng(0).random((5, 5)) + 0.1
    made.parameters["A"][...] = A / A.sum(axis=1, keepdims=True)
    made.parameters["A"][0] *= 1.01
    made.parameters["B"][...] = np.abs(made.parameters["B"])
    U, T = data("mse")
    report = check_gradients(made, np.abs(U), T, loss="mse")
    assert report.passed, str(report)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"entries": 0}, "entries must be a whole number, at least 1"),
        ({"seed": -1}, "seed must be a whole number, at least 0"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"U": np.zeros((4, 2))}, "U must have shape"),
        ({"targets": [0, 1]}, "targets must have shape"),
    ],
)
def test_validation(arguments, words):
    U, y = data()
    with pytest.raises((ValueError, TypeError), match=words):
        check_gradients(make(), **{"U": U, "targets": y, **arguments})


def test_what_is_no_model_is_refused():
    for other in (3, ImplicitRNN(2, 2, 3, 2)):
        with pytest.raises(TypeError, match=r"model must be an ImplicitModel; got .* rnn.check_gradients"):
            check_gradients(other, np.zeros((4, 2)), [0, 1, 0, 1])


def test_difference_curve_is_a_v():
    steps = np.logspace(-12, -1, 12)
    errors, kinks, complex_error = gradcheck.difference_curve(make(activation="tanh"), *data(), steps)
    assert errors.shape == kinks.shape == (12,)
    assert not kinks.any()
    assert complex_error < 1e-12
    best = errors.argmin()
    assert 3 <= best <= 9
    assert errors[best] < 1e-8 < min(errors[0], errors[-1])


def test_the_oracle_does_not_use_what_it_checks(monkeypatch):
    """If every gradient routine is broken, central differences and the complex step still agree with each other."""
    made, (U, T) = defined(), data("mse")
    truth = check_gradients(made, U, T, loss="mse")
    assert truth.passed
    monkeypatch.setattr(Layer, "backward", None)
    monkeypatch.setattr(factors, "gradients", None)
    oracle = LossOfModel(doubled(made), U, T, "mse")
    for name, value in oracle.values.items():
        E = np.random.default_rng(0).standard_normal(value.shape)
        difference, _ = oracle.difference({name: E}, 1e-6)
        # The rounding error of the difference is about eps/h.
        assert oracle.complex_step({name: E}) == pytest.approx(difference, rel=1e-6, abs=1e-9)


def test_no_samples_are_no_proof():
    none = np.zeros(0, int)
    for report in (
        check_gradients(ImplicitModel(3, 2, 5, seed=0), np.zeros((0, 3)), none),
        ImplicitRNN(2, 2, 5, 3, seed=0).check_gradients(np.zeros((0, 3, 2)), none),
    ):
        assert not report.passed
        assert set(verdicts(report).values()) == {"cannot tell"}
        assert "there are no samples" in str(report)
