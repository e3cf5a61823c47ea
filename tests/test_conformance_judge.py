"""The kit's judge: right backends pass, failures must be reported, and only declarations skip a check."""

import os
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from idl_ref import activations
from idl_ref.conformance import adapters, check_backend, parametrize
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.bugs import BUGS
from idl_ref.conformance.truth import vectors
from idl_ref.conformance.truth.backend import EVERYTHING, Capabilities
from idl_ref.conformance.truth.groups import GROUPS

TWINS = [adapters.IdlRef(*names) for names in (("numba",), ("numpy",), ("numpy", "picard"), ("numba", "anderson"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    [Plain(), *TWINS[:2], *(pytest.param(twin, marks=pytest.mark.long) for twin in TWINS[2:])],
    ids=lambda b: b.name,
)
def test_right_backends_pass_and_nothing_is_skipped(backend):
    report = check_backend(backend)
    assert report.failed == []
    assert {r.message.partition("\n")[0] for r in report.skipped} <= {"iterations is not declared"}
    assert report.ok
    assert len(report.passed) > 500


class Silent(Plain):
    """No status: what does not converge comes as numbers."""

    capabilities = EVERYTHING

    def forward(self, p):
        out = super().forward(p)
        return {"X": np.nan_to_num(out["X"]), "Y": np.nan_to_num(out["Y"])}


def test_silent_failures_are_found_and_named():
    report = check_backend(Silent(), groups=["ill-posed"])
    assert len(report.failed) >= 4
    assert "failures to converge are not reported" in report.causes[0][0]


def test_said_failures_pass():
    class Says(Silent):
        def forward(self, p):
            import warnings

            warnings.warn("did not converge", stacklevel=1)
            return super().forward(p)

    class Raises(Plain):
        capabilities = Silent.capabilities

        def forward(self, p):
            out = super().forward(p)
            if not out["converged"].all():
                raise RuntimeError("did not converge")
            return out

    for backend in (Says(), Raises()):
        assert not [r for r in check_backend(backend, groups=["ill-posed"]).failed if r.id.endswith("forward")]


# --- vacuity, expectations, declarations ------------------------------------------------------------------------------


class Nothing(Plain):
    capabilities: ClassVar = {"dtypes": ["float64"], "activations": ["relu"], "vjp": False}

    def forward(self, p):
        raise NotImplementedError("later")


def test_not_implemented_is_a_failure_and_not_a_skip():
    report = check_backend(Nothing(), groups=["ranks"])
    assert len(report.failed) == 5
    assert "raised NotImplementedError: later" in report.failed[0].message


def test_a_run_that_asserts_nothing_is_not_ok():
    class Elsewhere(Nothing):
        capabilities: ClassVar = {"activations": ["gelu"]}

    report = check_backend(Elsewhere(), groups=["ranks"])
    assert not report.failed
    assert not report.ok
    assert "nothing was asserted" in report.problems[0]


@pytest.mark.slow
def test_expected_failures():
    expected = {"rank-*": "no low rank yet"}
    report = check_backend(BUGS["FactorsSwapped"](), ["ranks"], expected)
    assert report.ok
    assert {r.outcome for r in report.results} == {"passed", "expected failure"}
    report = check_backend(Plain(), ["ranks"], {"rank-2-float64:forward": "thought so", "nowhere": "stale"})
    assert not report.ok
    assert report.failed[0].message == "passed, but was expected to fail"
    assert any("matches no check" in text for text in report.problems)


def test_unknown_groups_are_refused():
    with pytest.raises(ValueError, match=r"groups must be among contraction.*got 'contractoin'"):
        check_backend(Plain(), groups=["contractoin"])


def test_capabilities():
    assert Capabilities.declared({}) == Capabilities.declared(None) == Capabilities.declared(set()) == Capabilities()
    words = Capabilities.declared({"float64", "relu", "vjp", "forward"})
    assert (words.dtypes, words.activations, words.vjp, words.low_rank) == (("float64",), ("relu",), True, False)
    assert Capabilities.declared({"dense", "forward"}) == replace(Capabilities(), low_rank=False, vjp=False)
    assert "batch" in str(check_backend(_with({"batch": 3}), groups=["kinks"]))
    with pytest.raises(TypeError, match="mapping or a collection"):
        Capabilities.declared(3)


@pytest.mark.parametrize(
    ("given", "noted"),
    [
        ({"dtypes": ["Float32", np.dtype("float64"), np.float32]}, "dtypes: 'Float32' (did you mean 'float32'?)"),
        ({"activations": "Tanh"}, "activations: 'Tanh' (did you mean 'tanh'?)"),
        ({"low_rank": "no"}, "low_rank: 'no' (True or False is due; ignored)"),
        ({"lowrank": True}, "'lowrank' (did you mean 'low_rank'?)"),
        ({"float64", "Relu", "vjp"}, "'Relu' (did you mean 'relu'?)"),
        ({"phi0": 3}, "phi0: 3 (a number from 0 to 1 is due; ignored)"),
        ({"phi0": {"hard_tanh": 1}}, "phi0: 'hard_tanh' (did you mean 'hardtanh'?)"),
        ({"straight_through": "Rows"}, "straight_through: 'Rows' (did you mean 'rows'?)"),
        ({"stops": "Residual"}, "stops: 'Residual' (did you mean 'residual'?)"),
        ({"kappa": "0.9"}, "kappa: '0.9' (a number of at least 0 is due; ignored)"),
        ({"iteration_slack": 0.5}, "iteration_slack: 0.5 (an integer of at least 0 is due; ignored)"),
    ],
)
def test_what_the_kit_does_not_know_is_noted(given, noted):
    declared = Capabilities.declared(given)
    assert declared.unknown == (noted,)
    assert noted in str(check_backend(_with(given), groups=["rank-2-*"]))


def test_declared_limits():
    declared = Capabilities.declared({"f": ("inf", "rows"), "kappa": 0.9, "straight_through": ["rows"]})
    (far,) = (case for case in vectors.load() if case.id == "f-rows-far-float64")
    assert declared.refusal(far) == "kappa is declared to be 0.9, not 0.96875"
    inside = replace(far, problem=replace(far.problem, kappa=0.9, straight_through=True))
    assert declared.refusal(inside) is None
    through = replace(inside, problem=replace(inside.problem, f="inf"))
    assert declared.refusal(through) == 'straight_through is not declared for f = "inf"'
    half = Capabilities.declared({"phi0": {"relu": 0, "leaky_relu": 1, "hardtanh": 0.25}, "dtypes": ["bfloat16"]})
    assert [half.kink(phi) for phi in ("relu", "leaky_relu", "hardtanh", "tanh")] == [0, 1, 0.25, None]
    assert half.dtypes == ("bfloat16",)


def test_any_declared_convention_at_a_kink_is_judged_by_its_own_truth():
    class Quarter(Plain):
        def slope(self, p, P):
            phi = activations.get(p.activation)
            low, high = (phi.slope(np.nextafter(P, side)) for side in (-np.inf, np.inf))
            between = np.minimum(low, high) + 0.25 * np.abs(high - low)
            return np.where(np.isin(P, phi.kinks), between, phi.slope(P)).astype(p.dtype)

    backend = Quarter()
    backend.capabilities = {**Plain.capabilities, "phi0": 0.25}
    assert check_backend(backend, groups=["kinks"]).failed == []
    backend.capabilities = {**Plain.capabilities, "phi0": {"relu": 0.25, "leaky_relu": 0.25, "hardtanh": 0}}
    failed = {r.case for r in check_backend(backend, groups=["kinks"]).failed}
    assert failed == {"kink-hardtanh+1-exact", "kink-hardtanh-1-exact"}


def _with(declared):
    backend = Plain()
    backend.capabilities = declared
    return backend


@parametrize(adapters.IdlRef("numpy"), groups=["kinks", "rank-*"])
def test_parametrised(check):
    check()


@parametrize(adapters.IdlRef("numpy"), groups="kinks")
def test_parametrised_by_one_group(check):
    check()


def test_parametrised_failures_are_raised():
    @parametrize(BUGS["DDropped"](), groups=["rank-2-float64"])
    def test(check):
        check()

    (mark,) = test.pytestmark
    with pytest.raises(pytest.fail.Exception, match="error matches: D U left out of Y"):
        mark.args[1][0].values[0]()


@pytest.mark.slow
def test_relations_fail_on_what_depends_on_the_batch():
    class Coupled(Plain):
        def readout(self, p, X):
            return super().readout(p, X) + p.dtype.type(1e-3) * X.max()

    failed = {r.id.rpartition(":")[2] for r in check_backend(Coupled(), groups=["relations"]).failed}
    assert "split" in failed


def test_adjoint_identity_fails_on_a_wrong_gradient():
    failed = check_backend(BUGS["GradientOfATransposed"](), groups=["relation-adjoint"]).failed
    assert failed
    assert "⟨G_Y, dY⟩" in failed[0].message


def test_either_side_of_the_ball_is_accepted_on_it():
    """A backend that scales wherever ‖A‖∞ ≥ κ has the other one-sided derivative on the ball, and is as right."""

    class Closed(Plain):
        def raw(self, p, gradients):
            (A,), (G,) = p.factors, gradients
            norms = np.abs(A).sum(axis=1)
            s = np.sign(A) * (norms == norms.max())[:, None]
            return {"A": G - (G * A).sum() / norms.max() * s}

    (result,) = [r for r in check_backend(Closed(), groups=["f-inf-on"]).results if r.id.endswith("vjp")]
    assert (result.outcome, result.message) == ("passed", "acceptable answer 3 of 3")


def test_what_is_not_finite_has_not_converged():
    failed = check_backend(BUGS["AlwaysConverged"](), groups=["not-finite-nan-*"]).failed
    assert [r.message for r in failed] == ["columns [3] were reported as converged, but they are not finite"] * 2


@pytest.mark.cuda
@pytest.mark.skipif(
    not os.environ.get("IDL_REF_CUDA"), reason="the CUDA twin runs here in the simulator, or from its PTX"
)
def test_the_cuda_twin_passes():
    """The quick cases but the large ones in the simulator; from PTX, which takes seconds each, some of every kind."""
    simulated = os.environ["IDL_REF_CUDA"] == "sim"
    few = ["contraction-random-0.9-float32", "rank-2-float64", "kink-ties", "not-finite-nan-float32"]
    small = [*(group for group in GROUPS if group != "sizes"), "relations", "protocols"]
    chosen = os.environ.get("IDL_REF_CASES", "").split() or (small if simulated else few)  # groups, or patterns of ids
    backend = adapters.IdlRef("cuda")
    backend.capabilities = {**backend.capabilities, "concurrent": not simulated}  # Numba's simulator has one thread.
    report = check_backend(backend, chosen, fast=simulated)
    assert report.failed == []
    reasons = {r.message.partition("\n")[0] for r in report.skipped}
    assert reasons <= {"iterations is not declared", "concurrent is declared off"}
    assert len(report.passed) > (300 if simulated else 7)
