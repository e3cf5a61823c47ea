"""These tests check weights, named parameters, and the cache for layers."""

import copy
import pickle

import numpy as np
import pytest

from idl_ref import SolveOptions, activations
from idl_ref.backends.numpy import Layer
from idl_ref.functions import ImplicitFunctionInf, ImplicitFunctionRows
from idl_ref.weights import Kept, Options, Parametrisation, Weights, as_factors, by_name


def test_the_constant_feature_is_appended_where_there_is_a_bias():
    U = np.arange(6, dtype=np.float32).reshape(2, 3)  # The columns are three samples with two features.
    weights = Weights((np.ones((1, 1), np.float32),), np.ones((1, 2), np.float32), np.ones((1, 1), np.float32))
    layer = Layer(weights, activations.get("relu"), Options(SolveOptions(), SolveOptions()))
    assert layer.inputs(U) is U
    layer = Layer(weights._replace(bias=True), layer.activation, layer.options)
    np.testing.assert_array_equal(layer.inputs(U), [[0, 1, 2], [3, 4, 5], [1, 1, 1]])
    assert layer.inputs(U).dtype == np.float32
    assert layer.inputs(U[:, :0]).shape == (3, 0)


def test_an_equation_alone_has_no_inputs_and_no_outputs():
    weights = Weights.of((np.eye(3, dtype=np.float32),))
    assert weights.B.size == weights.C.size == 0
    assert weights.D is None


@pytest.mark.parametrize("names", ["A", "LR"])
def test_names_and_factors_are_two_ways_of_saying_the_same(names):
    parameters = {name: np.arange(6.0).reshape(3, 2) for name in names}
    back = by_name(as_factors(parameters))
    assert back.keys() == parameters.keys()
    for name, W in parameters.items():
        np.testing.assert_array_equal(back[name], W)


def test_a_parametrisation_projects_in_place_where_its_function_does():
    A = np.array([[3.0, 1.0], [0.0, 0.25]])
    before = {"A": A.copy()}
    Parametrisation(ImplicitFunctionInf(0.5)).project(before)
    np.testing.assert_array_equal(before["A"], A)
    Parametrisation(ImplicitFunctionRows(0.5)).project(before)
    assert np.abs(before["A"]).sum(axis=1).max() <= 0.5


class TestKept:
    made = 0

    def make(self):
        self.made += 1
        return self.made

    def test_it_makes_a_value_once(self):
        kept, settings, parameters = Kept(), object(), {"A": np.eye(2), "B": np.ones((2, 1))}
        assert [kept.get(settings, parameters, self.make) for _ in range(3)] == [1, 1, 1]

    @pytest.mark.parametrize("name", ["A", "B"])
    def test_it_makes_a_new_one_for_another_array(self, name):
        kept, settings, parameters = Kept(), object(), {"A": np.eye(2), "B": np.ones((2, 1))}
        kept.get(settings, parameters, self.make)
        parameters[name] = parameters[name].copy()
        assert kept.get(settings, parameters, self.make) == 2

    def test_it_notices_a_change_of_A_in_place_and_leaves_B_to_its_owner(self):
        kept, settings, parameters = Kept(), object(), {"A": np.eye(2), "B": np.ones((2, 1))}
        kept.get(settings, parameters, self.make)
        parameters["B"][0] = 7
        assert kept.get(settings, parameters, self.make) == 1
        parameters["A"][0, 0] = 7
        assert kept.get(settings, parameters, self.make) == 2

    def test_a_nan_is_never_taken_for_unchanged(self):
        kept, settings, parameters = Kept(), object(), {"A": np.full((2, 2), np.nan)}
        assert [kept.get(settings, parameters, self.make) for _ in range(2)] == [1, 2]

    def test_copies_and_pickles_are_empty(self):
        kept, parameters = Kept(), {"A": np.eye(2)}
        kept.get(None, parameters, self.make)
        for other in (copy.copy(kept), copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
            assert other.get(None, parameters, self.make) > 1
