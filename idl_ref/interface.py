"""This module has what surrounds the equations of a model: preprocessing, classes, checks of parameters, and files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from idl_ref import activations, checks, classes, monotone
from idl_ref import preprocessing as first
from idl_ref.activations import Activation
from idl_ref.backends import entrywise
from idl_ref.backends.equation import Equation
from idl_ref.certificate import SAFETY, OutputBound, column_max
from idl_ref.checks import printable
from idl_ref.io import Describe, FileFormatError, Layout
from idl_ref.npz import MESSAGE_LIMIT
from idl_ref.preprocessing import Standardise
from idl_ref.settings import SOLVING, Configured, Settings
from idl_ref.solution import Solution
from idl_ref.sparse import Pattern, index_dtype
from idl_ref.weights import ForwardPass, Parameters

if TYPE_CHECKING:
    from idl_ref.backends.numpy import Trainer
    from idl_ref.choices import AnyLoss
    from idl_ref.columns import Columns

MOST_CLASSES = 1 << 19  # The largest length of the classes in a header, half of what the header may have.
CONSTANTS = ("mean", "scale")  # A file holds the preprocessing as two arrays of these names.
PATTERN = ("A_indices", "A_indptr")  # A file holds where a sparse A has entries as two arrays of these names.
SHAPES = {"one for all": (1,), "one per feature": None}  # The form of these arrays; None stands for (p,).


def attached_columns(value: Any, p: int) -> Columns:
    """Return what may become the columns of a model with p inputs, and refuse the rest.

    The module is imported here, because most models that are loaded for prediction have no columns.
    """
    from idl_ref.columns import attached

    return attached(value, p)  # type: ignore[return-value]


class Interface(Configured):
    """The base of a model: its settings, the preprocessing of its raw inputs, and the classes of its outputs."""

    # The values of the class stand for models that never had others.
    _preprocessing: Standardise | None = None
    _classes: np.ndarray | None = None
    _table: Columns | None = None

    @property
    def preprocessing(self) -> Standardise | None:
        """The first layer u = (U − mean) / scale, which is applied to the inputs of every method; None for no layer.

        Assign a Standardise, or None. ValueError or TypeError is raised for one that does not fit the model.
        """
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, value: Standardise | None) -> None:
        self._preprocessing = first.attached(value, self.settings.input_dim, self.settings.dtype)

    @property
    def classes(self) -> np.ndarray | None:
        """The label of each output (q,), which are whole numbers, truth values or names; None for 0 … q − 1.

        With classes, targets for cross_entropy are such labels. Assign an array or a list, or None.
        """
        return self._classes

    @classes.setter
    def classes(self, value: Any) -> None:
        self._classes = None if value is None else classes.checked("classes", value, self.settings.output_dim)

    @property
    def columns(self) -> Columns | None:
        """The columns of the table that the inputs come from, which `columns.matrix` makes of its rows; None for none.

        Assign Columns, or None. A model that has columns and no classes predicts numbers.
        """
        return self._table

    @columns.setter
    def columns(self, value: Columns | None) -> None:
        self._table = None if value is None else attached_columns(value, self.settings.input_dim)

    def checked_inputs(self, name: str, U: Any) -> np.ndarray:
        """Return the inputs U (m, p) of a training after checks, in the dtype of the model and preprocessed."""
        return first.inputs(name, U, self.settings.input_dim, self.settings.dtype, self._preprocessing)

    def trainer(self, parameters: Parameters, loss: AnyLoss, optimizer: Any) -> Trainer:
        """Return the trainer of the backend, which takes the steps of `fit` and updates the `parameters`."""
        s, phi = self.settings, activations.get(self.settings.activation)
        return s.twin().Trainer(parameters, s.parametrisation, phi, s.options, loss, optimizer)


def checked(settings: Settings, parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the parameters of a model, and refuse missing or additional ones, wrong shapes and wrong dtypes."""
    shapes, dtype = settings.shapes(), settings.dtype
    if extra := parameters.keys() - shapes.keys():
        raise ValueError(f"parameters must be {', '.join(shapes)}; got also {', '.join(extra)}: delete the latter.")
    for name, shape in shapes.items():
        W = parameters.get(name)
        if not isinstance(W, np.ndarray) or W.shape != shape or W.dtype != dtype:
            got = f"{W.shape} {W.dtype}" if isinstance(W, np.ndarray) else "none" if W is None else repr(W)
            way_out = f"set its entries, model.parameters[{name!r}][...] = …"
            raise ValueError(f"parameter {name} must be {shape} {dtype}; got {got}: {way_out}")
    return parameters


def certified(forward: ForwardPass, activation: Activation, preprocessed: bool) -> Solution:
    """Return the solution with bounds that include the rounding of Z = B U, and of U itself if it is preprocessed."""
    bound = OutputBound.of(*forward.weights[:4], activation, preprocessed)
    with np.errstate(invalid="ignore", over="ignore"):
        error = forward.solution.error_bound + bound.of_input(column_max(forward.U).astype(np.float64))
    solution = replace(forward.solution, error_bound=np.where(np.isfinite(error), error, np.inf))
    equation = Equation(forward.weights.factors, activation, None, forward.Z)
    return entrywise.capped(solution, equation, solution.X)


def by_monotonicity(forward: ForwardPass, activation: Activation, preprocessed: bool) -> np.ndarray:
    """Return bounds of ‖x* − x̂‖∞ for the columns of a model whose norms give none; inf where it is not monotone.   (m,)

    The bounds of `entrywise` count Z as exact. If z differs from B u by ζ in every entry, the solution differs by at
    most c √n ζ/m in the 2-norm: the differences f and ζ fulfil f² ≤ c f (A f + ζ), so that m ‖f‖² ≤ c ⟨f, ζ⟩.
    """
    weights, U, Z, solution, _ = forward
    m = monotone.margin(weights.factors, activation.lipschitz) if entrywise.listed(activation) else -np.inf
    if not m > 0:
        return np.full(Z.shape[1], np.inf)
    bound = OutputBound.of(*weights[:4], activation, preprocessed)
    zeta = bound.gamma_z * bound.B * column_max(U).astype(np.float64) + bound.underflow
    with np.errstate(invalid="ignore", over="ignore"):
        error = entrywise.enclose(Equation(weights.factors, activation, None, Z), solution.X).max(axis=0, initial=0.0)
        return SAFETY * (error + activation.lipschitz * np.sqrt(len(Z)) * zeta / m)


def described(model: Interface, parameters: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what a file holds: the header, and the arrays of the parameters and of the preprocessing."""
    header: dict[str, Any] = {"settings": model.settings.plain(), "preprocessing": None}
    header["classes"] = classes.plain(model.classes)
    if (size := len(json.dumps(header["classes"]))) > MOST_CLASSES:
        raise ValueError(
            f"classes must have at most {MOST_CLASSES} characters in a file; got {size}: use shorter names."
        )
    if model.columns is not None:
        header["columns"] = model.columns.to_header()
    pattern, arrays = model.settings.pattern, parameters
    if pattern is not None:
        arrays = parameters | dict(zip(PATTERN, (pattern.indices, pattern.indptr), strict=True))
    if (pre := model.preprocessing) is None:
        return header, arrays
    header["preprocessing"] = "one per feature" if pre.mean.ndim else "one for all"
    return header, arrays | {"mean": pre.mean.reshape(-1), "scale": pre.scale.reshape(-1)}


def stored_settings(
    path: Any, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], own: Mapping[str, Any]
) -> Settings:
    """Return the settings of the file at `path`; `own` are settings that replace those in the file."""
    pattern = None
    if "entries" in header["settings"]:
        try:
            indices, indptr = (arrays[name] for name in PATTERN)
            pattern = Pattern(indices, indptr, header["settings"]["hidden_dim"])
        except ValueError as reason:
            raise FileFormatError(f"{path}: the pattern of A is none: {reason}") from None
    return Settings.from_plain(header["settings"], own, pattern)


def restore(path: Any, model: Interface, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Give a model the preprocessing, classes and columns of the file at `path` that it is loaded from."""
    kind = header["preprocessing"]
    if isinstance(kind, str):
        mean, scale = (arrays[name].reshape(() if SHAPES[kind] else -1) for name in CONSTANTS)
        kind = {"mean": mean, "scale": scale}
    what = "the preprocessing or the classes do"
    try:
        model.preprocessing = None if kind is None else Standardise(**kind)
        model.classes = classes.restored(header.get("classes"), model.settings.output_dim)
        what = "the columns do"
        if (kept := header.get("columns")) is not None:
            from idl_ref.columns import Columns

            model.columns = Columns.from_header(kept)
    except (TypeError, ValueError) as reason:
        text = f"{path}: {what} not fit the model: {reason}"
        raise FileFormatError(printable(text)[:MESSAGE_LIMIT]) from None


def layout_with(own: Mapping[str, Any]) -> Describe:
    """Return the function `layout` for settings that the caller of `load` gives in the place of those in the file.

    These settings are checked at once.
    """
    check_solving(own)
    return lambda header: layout(header, own)


def check_solving(own: Mapping[str, Any]) -> None:
    """Refuse settings that `load` does not replace, and those outside their range."""
    if others := own.keys() - SOLVING:
        raise TypeError(f"load takes the settings {', '.join(SOLVING)}; got {', '.join(sorted(others))}: leave it out.")
    Settings(1, 1, 1, **own)


def layout(header: dict[str, Any], own: Mapping[str, Any]) -> tuple[Layout, dict[str, np.dtype]]:
    """Return the shapes and the dtypes that the arrays of a file must have according to its header.

    `own` are settings that replace those in the header. A header of version 1 holds mean and scale themselves, as
    numbers.
    """
    try:
        settings, kind = Settings.from_plain(header["settings"], own), header["preprocessing"]
        shapes = settings.shapes()
        dtypes = dict.fromkeys(shapes, settings.dtype)
        if "entries" in header["settings"]:
            n = settings.hidden_dim
            entries = checks.integer("entries", header["settings"]["entries"], 0, n * n)
            shapes |= {"A": (entries,), **dict(zip(PATTERN, ((entries,), (n + 1,)), strict=True))}
            dtypes |= dict.fromkeys(PATTERN, index_dtype(n, entries))
        if header["version"] == 1:
            if kind is not None and Standardise(**kind).mean.ndim:
                raise ValueError("mean and scale must be numbers.")
        elif kind is not None:
            shape = SHAPES[kind] or (settings.input_dim,)
            shapes |= dict.fromkeys(CONSTANTS, shape)
            dtypes |= dict.fromkeys(CONSTANTS, np.dtype(np.float64))
    except (KeyError, TypeError, ValueError) as reason:
        raise FileFormatError(f"the settings in the file are not those of a model: {reason}") from None
    return shapes, dtypes
