"""The settings of a model are its constructor arguments, checked and immutable; a model file stores them as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

import numpy as np

from idl_ref import activation_names, activations, checks, wellposed
from idl_ref.activation_names import AnyActivation
from idl_ref.activations import Activation
from idl_ref.backends import Twin, resolve, twin
from idl_ref.choices import BACKENDS, METHODS, ON_FAILURE, ActivationName, Backend, Method, OnFailure, TwinName
from idl_ref.functions import (
    FUNCTIONS,
    FUNCTIONS_OF_ROWS,
    ImplicitFunction,
    ImplicitFunctionInf,
    without_overrides,
)
from idl_ref.solution import SolveOptions
from idl_ref.sparse import Pattern
from idl_ref.weights import Options, Parametrisation, Weights

if TYPE_CHECKING:
    from idl_ref.backends.numpy import Layer

__all__ = ["Settings"]

FILE_ITERATIONS = 100_000  # The largest mitr and grad_mitr that a file may ask for.
# The settings that say how equations are solved, and nothing about the model. `load` may replace those of a file.
SOLVING = ("mitr", "grad_mitr", "tol", "grad_tol", "backend", "method", "on_failure")
INITIAL_NORM = 0.75  # The initial ∞-norm of A, or of L and Rᵀ, in units of kappa; it lies inside the ball of `f`.

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """The settings of a model, which have the names, order and meaning of the arguments of `ImplicitModel`.

    Settings are immutable. To change a model, assign new settings:
    ``model.settings = dataclasses.replace(model.settings, tol=1e-9)``.
    """

    input_dim: int
    output_dim: int
    hidden_dim: int
    f: type[ImplicitFunction] = ImplicitFunctionInf
    no_D: bool = False
    bias: bool = False
    mitr: int = 300
    grad_mitr: int = 300
    tol: float = 3e-6
    grad_tol: float = 3e-6
    kappa: float = 0.99
    is_low_rank: bool = False
    rank: int | None = None
    activation: AnyActivation = "relu"
    dtype: Any = "float32"  # a Dtype for the constructor, and a numpy.dtype afterwards
    backend: Backend = "auto"
    method: Method = "auto"
    on_failure: OnFailure = "warn"
    straight_through: bool = False
    pattern: Pattern | None = None  # where a sparse A has entries; a model is made sparse by analysis.prune

    def __post_init__(self) -> None:
        for name in ("input_dim", "output_dim", "hidden_dim", "mitr", "grad_mitr"):
            self._set(name, checks.integer(name, getattr(self, name), 1))
        for name in ("tol", "grad_tol"):
            self._set(name, checks.number(name, getattr(self, name), 0))
        for name in ("no_D", "bias", "is_low_rank"):
            self._set(name, checks.flag(name, getattr(self, name)))
        self._set("dtype", checks.model_dtype(self.dtype))
        self._set("activation", activation_names.by_name(self.activation, self.hidden_dim))
        checks.choice("backend", self.backend, BACKENDS)
        activation_names.backend_for(activations.get(self.activation), self.backend)
        checks.choice("method", self.method, METHODS)
        checks.choice("on_failure", self.on_failure, ON_FAILURE)
        self._set("rank", self._checked_rank())
        self._set("kappa", self._checked_kappa())
        self._check_f()

    def _set(self, name: str, value: Any) -> None:
        """Set a field of this frozen dataclass to its checked value."""
        object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple:
        """Copy and unpickle by calling the constructor, which checks the arguments again."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def _checked_rank(self) -> int | None:
        """Return the rank of a low-rank A, or None for a dense A."""
        if not self.is_low_rank:
            if self.rank is not None:
                raise ValueError(f"rank is used with is_low_rank=True only; got rank={self.rank!r}: set is_low_rank.")
            return None
        if self.rank is None:
            raise ValueError("rank is needed with is_low_rank=True; got None: choose 1 ≤ rank ≤ hidden_dim.")
        return checks.integer("rank", self.rank, 1, self.hidden_dim, why="The rank of A is at most hidden_dim.")

    def _checked_kappa(self) -> float:
        """Return kappa, which must make the model well posed."""
        lipschitz = activations.get(self.activation).lipschitz
        # For a low-rank A, ‖A‖∞ ≤ ‖L‖∞ ‖Rᵀ‖∞ ≤ κ², so that κ² must be below 1/Lip(φ).
        limit = lipschitz**-0.5 if self.is_low_rank else 1 / lipschitz
        return checks.number("kappa", self.kappa, 0, limit, why="The model is well posed for ‖A‖∞ < 1/Lip(φ).")

    def _check_f(self) -> None:
        """Refuse an `f` that is no subclass of ImplicitFunction, or does not fit the other settings."""
        f = self.f
        if not (isinstance(f, type) and issubclass(f, ImplicitFunction)):
            raise TypeError(f"f must be a subclass of idl_ref.ImplicitFunction; got {f!r}: pass the class itself.")
        known = {*ImplicitFunction.__mro__, *FUNCTIONS.values()}
        without_overrides(f, known.__contains__)
        if self.is_low_rank and not f.low_rank:
            raise ValueError(
                f"f={f.__name__} needs a dense A, because what it makes of L Rᵀ is not a product of such factors; "
                "got is_low_rank=True: use ImplicitFunctionInf, ImplicitFunctionRows or ImplicitFunctionPerron."
            )
        if self.is_low_rank and self.straight_through:
            raise ValueError(
                "straight_through is for a dense A; got is_low_rank=True: leave straight_through out, because "
                "torchidl's gradients are exact for L and R."
            )
        if self.is_low_rank and self.method in ("blocks", "substitution"):
            raise ValueError(f'method "{self.method}" needs a dense A; got is_low_rank=True: use method="auto".')
        if self.pattern is not None:
            self._check_pattern()
        function = self.parametrisation.function  # This constructs `f`, which refuses arguments that do not fit it.
        own = [name for name, value in vars(function).items() if callable(value)]
        without_overrides(f, known.__contains__, own=own)

    def _check_pattern(self) -> None:
        """Refuse what a model with a sparse A cannot have."""
        if not isinstance(self.pattern, Pattern) or self.pattern.n != self.hidden_dim:
            raise ValueError(f"pattern must be a Pattern of {self.hidden_dim} rows; got {self.pattern!r}: use prune.")
        if self.is_low_rank:
            raise ValueError("a sparse A has no factors L and R; got is_low_rank=True: leave one of them out.")
        if self.f not in FUNCTIONS_OF_ROWS:
            raise ValueError(
                f"f={self.f.__name__} needs a dense A, because it does not map each row on its own; got a sparse A: "
                "use ImplicitFunctionInf, ImplicitFunctionRows or ImplicitFunction."
            )
        if self.backend == "cuda":
            raise ValueError(
                'backend "cuda" needs a dense A; got a sparse one: use backend="numba" or "numpy", or a dense copy, '
                "analysis.prune(model, 1)."
            )
        if self.method == "blocks":
            raise ValueError('method "blocks" needs a dense A; got a sparse one: use method="auto".')

    @cached_property
    def parametrisation(self) -> Parametrisation:
        """The map from raw parameters to effective weights, which consists of `f` with its κ, and the bias."""
        return Parametrisation(self.f(self.kappa, self.straight_through), self.bias, self.pattern)

    @cached_property
    def options(self) -> Options:
        """The options for the forward equation and for the adjoint equation."""
        return Options(
            SolveOptions(self.tol, self.mitr, self.method, on_failure=self.on_failure),
            SolveOptions(self.grad_tol, self.grad_mitr, self.method, on_failure=self.on_failure),
        )

    def layer(self, weights: Weights) -> Layer:
        """Return a layer with the given weights, of the twin that `backend` stands for."""
        return self.twin().Layer(weights, activations.get(self.activation), self.options)

    def resolved_backend(self) -> TwinName:
        """Return the backend that computes, which is never "auto"; it is numpy for an activation of a user's."""
        return resolve(activation_names.backend_for(activations.get(self.activation), self.backend))

    def twin(self) -> Twin:
        """Return the twin that computes."""
        return twin(activation_names.backend_for(activations.get(self.activation), self.backend))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter by name."""
        n, q, p = self.hidden_dim, self.output_dim, self.input_dim + self.bias
        A: dict[str, tuple[int, ...]] = {"A": (n, n)} if self.pattern is None else {"A": (self.pattern.entries,)}
        if self.rank is not None:
            A = {"L": (n, self.rank), "R": (n, self.rank)}
        return {**A, "B": (n, p), "C": (q, n), **({} if self.no_D else {"D": (q, p)})}

    def initial_parameters(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw normal weights: B, C and D with variance 1/fan-in; A, or L and Rᵀ, scaled to the ∞-norm 3κ/4."""
        result = {}
        for name, shape in self.shapes().items():
            W = rng.standard_normal(shape)
            if name in "ALR":
                rows = W.T if name == "R" else W if self.pattern is None else self.pattern.padded(W)
                W *= INITIAL_NORM * self.kappa / (wellposed.norm_inf(rows) or 1.0)  # A sparse A may have no entry.
            else:
                W *= shape[1] ** -0.5
            result[name] = W.astype(self.dtype)
        return result

    def plain(self) -> dict[str, Any]:
        """Return the settings as values that JSON can hold; the class `f` becomes its name."""
        if FUNCTIONS.get(self.f.name) is not self.f:
            raise ValueError(
                f"a file can name only the ImplicitFunction classes of idl_ref; got f={self.f.__name__}: "
                "use one of these classes to save the model."
            )
        way_out = (
            "store the parameters by numpy.savez(path, **model.parameters), and restore the model by "
            "ImplicitModel.from_parameters(settings, dict(numpy.load(path))) with the same Settings"
        )
        activation = activation_names.plain(self.activation, "a saved model", way_out)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"f": self.f.name, "dtype": self.dtype.name, "activation": activation}
        del values["pattern"]  # The file holds it as arrays, if there is one.
        return values if self.pattern is None else values | {"entries": self.pattern.entries}

    @classmethod
    def from_plain(
        cls, values: Mapping[str, Any], own: Mapping[str, Any] | None = None, pattern: Pattern | None = None
    ) -> Settings:
        """Return the settings that `plain` wrote, and raise ValueError or TypeError for any other value.

        The entries of a sparse A are not looked at; its `pattern` is given. The backend in `values` tells which one the
        model was made with. The settings ask for "auto", because the model must also work on machines that do not have
        that backend. `own` are settings that replace those in `values`.
        """
        own = own or {}
        names = {field.name for field in fields(cls)} - {"pattern"}
        if not isinstance(values, Mapping) or set(values) - {"entries"} != names:
            raise ValueError(f"settings must have the names {sorted(names)}; got {sorted(values)[:9]}.")
        values = {name: values[name] for name in names}
        checks.choice("backend", values["backend"], BACKENDS)
        for name in [name for name in ("mitr", "grad_mitr") if name not in own]:
            why = f"A file may not ask for more iterations: idl_ref.load(path, {name}=…) sets a number of your own."
            checks.integer(name, values[name], 1, FILE_ITERATIONS, why)
        f = FUNCTIONS[checks.choice("f", values["f"], FUNCTIONS)]
        activation = activation_names.from_plain(values["activation"], values["hidden_dim"])
        return cls(**{**values, "f": f, "activation": activation, "backend": "auto", "pattern": pattern, **own})


class Setting(Generic[T]):
    """A read-only attribute of a model that returns the field of the same name of `model.settings`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, model: None, owner: type) -> Setting[T]: ...

    @overload
    def __get__(self, model: Any, owner: type) -> T: ...

    def __get__(self, model: Any, owner: type) -> Setting[T] | T:
        return self if model is None else getattr(model.settings, self.name)

    def __set__(self, model: Any, value: NoReturn) -> NoReturn:  # With NoReturn, type checkers refuse every value too.
        raise AttributeError(
            f"{self.name} is a frozen setting: use model.settings = dataclasses.replace(model.settings, {self.name}=…)."
        )


class Configured:
    """The base of a model, whose settings are also read-only attributes: model.kappa is model.settings.kappa."""

    settings: Settings
    input_dim: Setting[int] = Setting()
    output_dim: Setting[int] = Setting()
    hidden_dim: Setting[int] = Setting()
    f: Setting[type[ImplicitFunction]] = Setting()
    no_D: Setting[bool] = Setting()
    bias: Setting[bool] = Setting()
    mitr: Setting[int] = Setting()
    grad_mitr: Setting[int] = Setting()
    tol: Setting[float] = Setting()
    grad_tol: Setting[float] = Setting()
    kappa: Setting[float] = Setting()
    is_low_rank: Setting[bool] = Setting()
    rank: Setting[int | None] = Setting()
    activation: Setting[ActivationName | Activation] = Setting()
    dtype: Setting[np.dtype] = Setting()
    backend: Setting[Backend] = Setting()
    method: Setting[Method] = Setting()
    on_failure: Setting[OnFailure] = Setting()
    straight_through: Setting[bool] = Setting()
    pattern: Setting[Pattern | None] = Setting()
