"""These tests check why models count as well posed: each reason where it holds, in the right order, and no other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from test_monotone import hard

import idl_ref
from idl_ref import Activation, ImplicitFunction, ImplicitFunctionMonotone, ImplicitModel, activations
from idl_ref import reasons as proofs
from idl_ref.__main__ import main
from idl_ref.analysis import reasons
from idl_ref.wellposed import norm_inf, perron_root, unique_relu

BALANCE = np.array([[0.5, -4.0], [1.0, 0.5]])  # a P-matrix, but neither monotone nor below 1 by its Perron root
ROTATION = np.array([[0.5, -2.0], [2.0, 0.5]])  # monotone with m = ½
ORDER = ("no cycles", "norm", "Perron root", "monotone", "cycles", "P-matrix")


def names(A, activation="relu"):
    factors = (A[0], A[1].T) if isinstance(A, tuple) else (np.asarray(A, float),)
    return [reason.name for reason in proofs.reasons(factors, activations.get(activation))]


def test_each_reason():
    assert names(np.triu(5 * np.ones((4, 4)), 1)) == ["no cycles", "Perron root", "P-matrix"]
    assert names([[0.5]]) == ["norm", "Perron root", "monotone", "P-matrix"]
    assert names([[0.0, 4.0], [0.05, 0.0]]) == ["Perron root", "P-matrix"]
    assert names(ROTATION) == ["monotone", "P-matrix"]
    assert names(BALANCE) == ["P-matrix"]
    assert names([[0.0, -2.0], [-2.0, 0.0]]) == []
    assert names([[np.nan]]) == []
    assert names(np.zeros((1, 1))) == ["no cycles", "norm", "Perron root", "monotone", "P-matrix"]


def cyclic(*blocks, couple=1.0):
    """Return a block triangular matrix, in an order that hides its blocks."""
    n = sum(len(block) for block in blocks)
    A, start = couple * np.tril(np.ones((n, n)), -1), 0
    for block in blocks:
        A[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    order = np.random.default_rng(0).permutation(n)
    return A[np.ix_(order, order)]


def test_cycles_may_have_different_reasons():
    A = cyclic(ROTATION, [[0.9]], BALANCE, [[0.0]], couple=10)
    assert names(A) == ["cycles", "P-matrix"]
    (first, _) = proofs.reasons((A,), activations.get("relu"))
    assert first.constant == pytest.approx(0.9)
    assert all(words in first.text for words in ("3 cycles", "monotonicity", "the Perron root", "principal minors"))
    assert names(cyclic(ROTATION, np.array([[0.0, -2.0], [-2.0, 0.0]]))) == []


def test_many_units_in_small_cycles():
    """Minors of 40 units are too many, but those of each cycle are not."""
    assert names(cyclic(*[BALANCE] * 20)) == ["cycles"]


@given(st.integers(1, 6), seeds, st.sampled_from([0.2, 0.5, 1.0]))
def test_every_reason_implies_a_p_matrix_and_they_come_in_order(n, seed, scale):
    rng = np.random.default_rng(seed)
    A = scale * rng.standard_normal((n, n)) * (rng.random((n, n)) < rng.choice([0.3, 1.0]))
    found = names(A)
    assert found == [name for name in ORDER if name in found]
    assert ("P-matrix" in found) == bool(unique_relu(A))
    if found:
        assert found[-1] == "P-matrix"
    assert ("norm" in found) == (norm_inf(A) < 1)
    assert ("Perron root" in found) == (perron_root(A).upper < 1)
    assert ("monotone" in found) == (np.linalg.eigvalsh((A + A.T) / 2)[-1] < 1)


@given(seeds)
def test_the_constants_bound_what_they_say(seed):
    rng = np.random.default_rng(seed)
    A = hard(5, 0.4, rng) if seed % 2 else rng.uniform(-0.3, 0.3, (5, 5))
    constants = {reason.name: reason.constant for reason in proofs.reasons((A,), activations.get("sigmoid"))}
    exact = {
        "norm": norm_inf(A) / 4,
        "Perron root": np.abs(np.linalg.eigvals(np.abs(A))).max() / 4,
        "monotone": np.linalg.eigvalsh((A + A.T) / 2)[-1] / 4,
    }
    for name, value in exact.items():
        if name in constants:
            assert value - 1e-12 <= constants[name] <= value + 1e-4
        else:
            assert value > 0.999


def test_low_rank():
    L, R = np.array([[1.0], [2.0]]), np.array([[-1.0], [-2.0]])
    assert names((L, R)) == ["monotone"]  # L Rᵀ = −L Lᵀ
    assert names((L / 10, R)) == ["norm", "Perron root", "monotone"]
    assert names((L, -R)) == []


def test_an_activation_of_your_own_may_decrease():
    """For φ(p) = −p and A = −1, every x solves x = φ(A x), although A is monotone."""
    down = Activation("down", lambda P: -P, lambda P: -np.ones_like(P), lipschitz=1.0)
    assert [reason.name for reason in proofs.reasons((np.array([[-1.0]]),), down)] == []
    assert "monotone" in names([[-1.0]])
    assert [reason.name for reason in proofs.reasons((np.array([[-0.5]]),), down)] == ["norm", "Perron root"]


@pytest.mark.parametrize(
    ("A", "name"), [(ROTATION, "monotone"), (BALANCE, "P-matrix"), (np.triu(3 * np.ones((2, 2)), 1), "no cycles")]
)
def test_the_command_says_the_strongest_reason(A, name, tmp_path, capsys):
    model = ImplicitModel(3, 2, 2, f=ImplicitFunction, seed=0, on_failure="ignore")
    model.parameters["A"][...] = A
    model.save(tmp_path / "model.npz")
    assert main(["check", str(tmp_path / "model.npz")]) == 0
    out = capsys.readouterr().out
    assert f"strongest reason: {name}; " in out
    assert out.rstrip().endswith("well-posedness: ok; gradients: ok")
    assert ("the error of X has no bound" in out) == (name == "P-matrix")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("standardised", [False, True])
def test_the_bound_of_a_monotone_model_holds(dtype, standardised):
    """The command bounds errors for monotone models, all rounding of B u included."""
    from idl_ref.interface import by_monotonicity
    from idl_ref.preprocessing import Standardise

    model = ImplicitModel(3, 2, 6, f=ImplicitFunctionMonotone, bias=True, kappa=0.7, seed=0, dtype=dtype)
    model.parameters["A"] *= 15
    U = np.random.default_rng(0).standard_normal((12, 3)).astype(dtype)
    if standardised:
        model.preprocessing = Standardise(np.full(3, 0.1), np.full(3, 3.0))
    forward = model.forward_pass(U)
    W, phi = forward.weights, activations.get("relu")
    bound = by_monotonicity(forward, phi, standardised)
    exact = ImplicitModel(3, 2, 6, f=ImplicitFunction, bias=True, dtype="float64", tol=1e-14, method="newton")
    exact.parameters["A"][...], exact.parameters["B"][...] = W.A, W.B
    u = (U.astype(float) - 0.1) / 3.0 if standardised else U
    error = np.abs(exact.equilibrium(u).X - forward.solution.X).max(axis=0)
    assert not (np.isfinite(forward.solution.error_bound)).any()
    assert (error <= bound).all()
    assert (bound < 1e-2).all()
    own = by_monotonicity(forward._replace(weights=W._replace(factors=(5 * np.ones((6, 6)),))), phi, False)
    assert (own == np.inf).all()


def test_a_report_says_it(tmp_path):
    model = ImplicitModel(2, 2, 6, f=ImplicitFunctionMonotone, bias=True, kappa=0.7, seed=0)
    model.parameters["A"] *= 20
    from idl_ref.report import _facts

    assert "I − Lip(φ)(A + Aᵀ)/2 ⪰ m I with m = 0.3" in _facts(model)
    assert [reason.name for reason in reasons(model)] == ["monotone", "P-matrix"]


def test_a_model_that_diverges_has_no_reason():
    model = ImplicitModel(2, 2, 6, f=ImplicitFunction, seed=0)
    model.parameters["A"][...] = 3
    assert reasons(model) == ()
    with pytest.raises(ValueError, match="for which no number is known to suffice: train it"):
        idl_ref.export.export(model, "numpy", ".")
