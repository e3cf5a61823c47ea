"""This module makes one model of several ones: which models fit together, and which settings the result has.

It also gives models the operators second @ first and M₁ + M₂.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np

from idl_ref import activations, systems
from idl_ref.activation_names import joint
from idl_ref.functions import ImplicitFunction
from idl_ref.settings import Settings
from idl_ref.systems import System
from idl_ref.weights import Weights


class Model(Protocol):
    """What a composition uses of a model."""

    settings: Settings
    preprocessing: Any
    classes: Any
    columns: Any

    def effective_weights(self) -> Weights: ...

    @classmethod
    def from_parameters(cls, settings: Any, parameters: Any, preprocessing: Any = None) -> Any: ...


M = TypeVar("M", bound=Model)


class Composable:
    """The operators of a model: second @ first is the model of second(first(U)), and M₁ + M₂ that of the sum."""

    def __matmul__(self: M, first: M) -> M:
        if not is_model(first):
            return NotImplemented
        return cascade(self, first)

    def __add__(self: M, other: M) -> M:
        if not is_model(other):
            return NotImplemented
        return total([self, other])


def is_model(value: object) -> bool:
    """Tell whether a value is a model, which has the operators of this module."""
    return isinstance(value, Composable)


def cascade(second: M, first: M) -> M:
    """Return the model of second(first(U)); `idl_ref.analysis.cascade` describes it."""
    same_kind({"second": second, "first": first})
    if second.settings.input_dim != first.settings.output_dim:
        raise ValueError(
            "second.input_dim must be first.output_dim, because second takes the outputs of first; "
            f"got {second.settings.input_dim} and {first.settings.output_dim}: the order is cascade(second, first), "
            "which is second @ first."
        )
    without_preprocessing("second", second, "it takes the outputs of first as they are")
    settings = joined(
        [second, first],
        chained=True,
        no_D=second.settings.no_D or (first.settings.no_D and not second.settings.bias),
    )
    model = assembled(type(second), settings, systems.cascade(*map(system, (second, first))), first.preprocessing)
    model.classes, model.columns = second.classes, first.columns
    return model


def total(models: Sequence[M]) -> M:
    """Return the model of the sum of the outputs; `idl_ref.analysis.add` describes it."""
    names = named(models)
    same_input(names)
    same(names, "number of outputs", [model.settings.output_dim for model in models], "outputs are added")
    labels = {tuple(model.classes.tolist()): model.classes for model in models if model.classes is not None}
    if len(labels) > 1:
        got = " and ".join(map(repr, [list(label)[:3] for label in labels]))
        raise ValueError(
            f"{listed(names)} must have the same classes, because the sum of an output of each is one output; "
            f"got {got} …: order the outputs of all models by the same labels, or set model.classes = None."
        )
    settings = joined(models, no_D=all(model.settings.no_D for model in models))
    model = assembled(type(models[0]), settings, systems.total([*map(system, models)]), models[0].preprocessing)
    model.classes, model.columns = next(iter(labels.values()), None), models[0].columns
    return model


def system(model: Model) -> System:
    """Return the effective matrices of a model in float64, with a column for the bias."""
    return systems.of(model.effective_weights())


def named(models: Sequence[M]) -> dict[str, M]:
    """Return models by the names that messages have for them: the first, the second, …"""
    return {f"model {i}": model for i, model in enumerate(models, 1)}


def listed(names: Any) -> str:
    """Return names as a phrase: "second and first", "model 1, model 2 and model 3"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def check_models(models: dict[str, Any]) -> None:
    """Refuse arguments that are not models, which are given by their names."""
    for name, model in models.items():
        if not is_model(model):
            raise TypeError(f"{name} must be an ImplicitModel; got {type(model).__name__}: pass the models themselves.")


def same(names: Any, what: str, values: Sequence[Any], why: str, way_out: str = "") -> None:
    """Refuse models of which one has another value of `what` than the first one has."""
    if any(value != values[0] for value in values):
        got = listed([f"{value!r}" if isinstance(value, str) else str(value) for value in values])
        raise ValueError(
            f"{listed(names)} must have the same {what}, because {why}; "
            f"got {got}: {way_out or f'make all models with one {what}'}."
        )


def same_kind(models: dict[str, M]) -> None:
    """Refuse models whose dtypes differ."""
    last, *others = models
    calls = f"{last}({others[0]}(U))" if last == "second" else "each of the models"
    way_out = f"call {calls}, or make both models with one dtype" if len(models) == 2 else ""
    same(models, "dtype", [model.settings.dtype.name for model in models.values()], "the result has only one", way_out)


def same_input(models: dict[str, M]) -> None:
    """Refuse models that do not take the same U."""
    same_kind(models)
    each = list(models.values())
    same(models, "number of inputs", [model.settings.input_dim for model in each], "all of them take the same U")
    why = "all of them take the same raw U"
    way_out = "set model.preprocessing = None for all of them, and standardise U yourself"
    same(models, "preprocessing", [model.preprocessing for model in each], why, way_out)
    way_out = "set model.columns = None for all of them, and make the inputs of the table yourself"
    same(models, "columns", [model.columns for model in each], "all of them take the same table", way_out)


def without_preprocessing(name: str, model: Model, why: str) -> None:
    """Refuse a model with preprocessing."""
    if model.preprocessing is not None:
        raise ValueError(
            f"{name} must have no preprocessing, because {why}; "
            f"got {model.preprocessing}: set {name}.preprocessing = None."
        )


def joined(models: Sequence[Model], chained: bool = False, **own: Any) -> Settings:
    """Return the settings of a result with X = (X₁, X₂, …), and with the inputs of the last and outputs of the first.

    Models with different activations make one with an activation per row. In a chain, a model converges after those
    that it depends on, so that the numbers of iterations are added; else the largest one is enough. `own` are other
    settings of the result.
    """
    each = [model.settings for model in models]
    iterations = sum if chained else max

    def agreed(name: str, otherwise: str) -> Any:
        values = {getattr(settings, name) for settings in each}
        return values.pop() if len(values) == 1 else otherwise

    method, activation = agreed("method", "auto"), joint([(s.activation, s.hidden_dim) for s in each])
    fields: dict[str, Any] = {
        "input_dim": each[-1].input_dim,
        "output_dim": each[0].output_dim,
        "hidden_dim": sum(settings.hidden_dim for settings in each),
        "activation": activation,
        "bias": any(settings.bias for settings in each),
        "mitr": iterations(settings.mitr for settings in each),
        "grad_mitr": iterations(settings.grad_mitr for settings in each),
        "tol": min(settings.tol for settings in each),
        "grad_tol": min(settings.grad_tol for settings in each),
        "kappa": _joined_kappa(each),
        "backend": agreed("backend", "auto"),
        "method": "auto" if method == "substitution" else method,
        "on_failure": agreed("on_failure", "warn"),
    }
    return dense(each[0], **fields | own)


def _joined_kappa(each: Sequence[Settings]) -> float:
    """Return the largest κ, in units in which Lip(φ) κ is a contraction factor if models have different Lip(φ)."""
    steepness = [activations.get(settings.activation).lipschitz for settings in each]
    if len(set(steepness)) == 1:
        return max(settings.kappa for settings in each)
    return max(c * settings.kappa for c, settings in zip(steepness, each, strict=True)) / max(steepness)


def dense(settings: Settings, **own: Any) -> Settings:
    """Return settings for effective weights with a dense A, which f=ImplicitFunction leaves as they are.

    For a low-rank A, κ bounds each factor, so that κ² takes its place for A, or √κ where A becomes a product.
    """
    changes: dict[str, Any] = {
        "f": ImplicitFunction,
        "is_low_rank": False,
        "rank": None,
        "straight_through": False,
        "pattern": None,
    } | own
    if changes["is_low_rank"] != settings.is_low_rank:
        changes["kappa"] = settings.kappa**2 if settings.is_low_rank else settings.kappa**0.5
    return replace(settings, **changes)


def assembled(cls: type[M], settings: Settings, system: System, preprocessing: Any = None) -> M:
    """Return a model of class `cls` with the matrices of a system, each rounded once to the dtype.

    Without a bias, and without D, what is left out of the system is 0.
    """
    columns = settings.input_dim + settings.bias
    matrices = {"A": system.A, "B": system.B[:, :columns], "C": system.C}
    if not settings.no_D:
        matrices["D"] = system.D[:, :columns]
    parameters = {name: np.array(W, settings.dtype, order="C") for name, W in matrices.items()}
    return cls.from_parameters(settings, parameters, preprocessing)
