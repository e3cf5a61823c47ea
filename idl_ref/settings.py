"""The settings of a model: every constructor argument, checked, frozen, and writable as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

import numpy as np

from idl_ref import activations, checks, wellposed
from idl_ref.backends import CHOICES, twin
from idl_ref.functions import FUNCTIONS, ImplicitFunction, ImplicitFunctionInf
from idl_ref.io import FileFormatError, Layout
from idl_ref.preprocessing import Standardise
from idl_ref.solution import METHODS, ON_FAILURE, SolveOptions
from idl_ref.weights import Options, Parametrisation, Weights

if TYPE_CHECKING:
    from idl_ref.backends.numpy import Layer

__all__ = ["Settings"]

INITIAL_NORM = 0.75  # of A, L and Rᵀ, in units of kappa: inside the ball of `f`

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """The arguments of `ImplicitModel`, in its order; see there.

    To change one, replace the whole: ``model.settings = dataclasses.replace(model.settings, tol=1e-9)``.
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
    activation: str = "relu"
    dtype: Any = "float32"
    backend: str = "auto"
    method: str = "auto"
    on_failure: str = "warn"
    straight_through: bool = False

    def __post_init__(self) -> None:
        for name in ("input_dim", "output_dim", "hidden_dim", "mitr", "grad_mitr"):
            self._set(name, checks.integer(name, getattr(self, name), 1))
        for name in ("tol", "grad_tol"):
            self._set(name, checks.number(name, getattr(self, name), 0))
        for name in ("no_D", "bias", "is_low_rank"):
            self._set(name, checks.flag(name, getattr(self, name)))
        self._set("dtype", checks.model_dtype(self.dtype))
        checks.choice("backend", self.backend, CHOICES)
        checks.choice("method", self.method, METHODS)
        checks.choice("on_failure", self.on_failure, ON_FAILURE)
        self._set("rank", self._checked_rank())
        self._set("kappa", self._checked_kappa())
        self._check_f()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple:
        """A copy and a pickle are made of the arguments alone, and checked again."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def _checked_rank(self) -> int | None:
        if not self.is_low_rank:
            if self.rank is not None:
                raise ValueError(f"rank is used with is_low_rank=True only; got rank={self.rank!r}: set is_low_rank.")
            return None
        if self.rank is None:
            raise ValueError("rank is needed with is_low_rank=True; got None: choose 1 ≤ rank ≤ hidden_dim.")
        return checks.integer("rank", self.rank, 1, self.hidden_dim, why="It is at most hidden_dim.")

    def _checked_kappa(self) -> float:
        lipschitz = activations.get(self.activation).lipschitz
        # Low rank: ‖A‖∞ ≤ ‖L‖∞ ‖Rᵀ‖∞ ≤ κ².
        limit = lipschitz**-0.5 if self.is_low_rank else 1 / lipschitz
        return checks.number("kappa", self.kappa, 0, limit, why="The model is well posed for ‖A‖∞ < 1/Lip(φ).")

    def _check_f(self) -> None:
        f = self.f
        if not (isinstance(f, type) and issubclass(f, ImplicitFunction)):
            raise TypeError(f"f must be a subclass of idl_ref.ImplicitFunction; got {f!r}: pass the class itself.")
        if self.is_low_rank and not f.low_rank:
            raise ValueError(
                f"f={f.__name__} needs a dense A, because the triangle of L Rᵀ is no product of factors; "
                "got is_low_rank=True: use ImplicitFunctionInf or ImplicitFunctionRows."
            )
        if self.is_low_rank and self.straight_through:
            raise ValueError("straight_through is for a dense A; got is_low_rank=True: torchidl is exact there.")
        self.parametrisation  # noqa: B018 (`f` refuses what does not fit it)

    @cached_property
    def parametrisation(self) -> Parametrisation:
        """How raw parameters become effective weights: `f` with its radius, and the bias."""
        return Parametrisation(self.f(self.kappa, self.straight_through), self.bias)

    @cached_property
    def options(self) -> Options:
        """How the forward and the adjoint equation are solved."""
        return Options(
            SolveOptions(self.tol, self.mitr, self.method, on_failure=self.on_failure),
            SolveOptions(self.grad_tol, self.grad_mitr, self.method, on_failure=self.on_failure),
        )

    def layer(self, weights: Weights) -> Layer:
        """The weights, prepared by the twin that `backend` stands for."""
        return twin(self.backend).Layer(weights, activations.get(self.activation), self.options)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter."""
        n, q, p = self.hidden_dim, self.output_dim, self.input_dim + self.bias
        A = {"A": (n, n)} if self.rank is None else {"L": (n, self.rank), "R": (n, self.rank)}
        return {**A, "B": (n, p), "C": (q, n), **({} if self.no_D else {"D": (q, p)})}

    def initial_parameters(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Normal weights: B, C and D with variance 1/fan-in; A, L and Rᵀ scaled to the ∞-norm 3κ/4."""
        result = {}
        for name, (rows, columns) in self.shapes().items():
            W = rng.standard_normal((rows, columns))
            if name in "ALR":
                W *= INITIAL_NORM * self.kappa / wellposed.norm_inf(W.T if name == "R" else W)
            else:
                W *= columns**-0.5
            result[name] = W.astype(self.dtype)
        return result

    def plain(self) -> dict[str, Any]:
        """The settings as JSON values; `f` by its name."""
        if FUNCTIONS.get(self.f.name) is not self.f:
            raise ValueError(f"a file can name only the four ImplicitFunction classes; got f={self.f.__name__}.")
        return {**asdict(self), "f": self.f.name, "dtype": self.dtype.name}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Settings:
        """The settings that `plain` wrote; ValueError or TypeError for anything else."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            raise ValueError(f"settings must be {sorted(names)}; got {sorted(values)[:9]}.")
        return cls(**{**values, "f": FUNCTIONS[checks.choice("f", values["f"], FUNCTIONS)]})


class Setting(Generic[T]):
    """One field of `owner.settings` as an attribute of its owner: readable, typed, and refused where it is assigned."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, model: None, owner: type) -> Setting[T]: ...

    @overload
    def __get__(self, model: Any, owner: type) -> T: ...

    def __get__(self, model: Any, owner: type) -> Setting[T] | T:
        return self if model is None else getattr(model.settings, self.name)

    def __set__(self, model: Any, value: NoReturn) -> NoReturn:  # typed so that type checkers refuse any value, too
        raise AttributeError(
            f"{self.name} is a frozen setting: use model.settings = dataclasses.replace(model.settings, {self.name}=…)."
        )


def layout(header: dict[str, Any]) -> tuple[Layout, np.dtype]:
    """What the arrays of a file must look like, from its header."""
    try:
        settings = Settings.from_plain(header["settings"])
        if header["preprocessing"] is not None:
            Standardise(**header["preprocessing"])
    except (KeyError, TypeError, ValueError) as reason:
        raise FileFormatError(f"its settings are not those of a model: {reason}") from None
    return settings.shapes(), settings.dtype
