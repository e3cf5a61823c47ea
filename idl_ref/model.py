"""The implicit model: X = φ(A X + B U), Ŷ = C X + D U, with samples as rows at this one boundary."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from idl_ref import checks, io
from idl_ref.functions import ImplicitFunction, ImplicitFunctionInf
from idl_ref.predictor import Predictor
from idl_ref.preprocessing import Standardise
from idl_ref.settings import Setting, Settings, layout
from idl_ref.solution import Solution, report
from idl_ref.weights import ForwardPass, Gradients, Kept, Weights, by_name

if TYPE_CHECKING:
    from idl_ref.backends.numpy import Layer

__all__ = ["ImplicitModel", "load"]


class ImplicitModel:
    """An implicit model, X = φ(A X + B U), Ŷ = C X + D U.

    Parameters
    ----------
    input_dim, output_dim, hidden_dim : int
        p, q and n.
    f : subclass of ImplicitFunction
        What keeps A well posed: ImplicitFunctionInf (default), …Rows, …Triu, or ImplicitFunction for nothing.
    no_D : bool
        Leave out D.
    bias : bool
        Append a constant feature 1 to U: the last column of B and of D holds the bias.
    mitr, grad_mitr : int
        Largest number of iterations, forward and adjoint.
    tol, grad_tol : float
        Largest change of an entry in the last step, forward and adjoint.
    kappa : float
        Radius of the ball that `f` keeps A in; 0 ≤ κ·Lip(φ) < 1.
    is_low_rank : bool
        A = L Rᵀ with L, R (n, rank); the product is never formed.
    rank : int, optional
        1 ≤ rank ≤ n; needed with is_low_rank.
    activation : str
        φ: relu, leaky_relu, tanh, sigmoid, softplus, elu, hardtanh, softsign or identity.
    dtype : {"float32", "float64"}
    seed : int, optional
        For the initial weights; None draws them differently each time.
    backend : {"auto", "numpy", "numba", "cuda"}
    method : {"auto", "picard", "anderson", "newton", "substitution"}
    on_failure : {"warn", "raise", "ignore"}
        When a sample does not converge.
    straight_through : bool
        Differentiate through `f` as torchidl does for a dense A; see ImplicitFunction.

    Attributes
    ----------
    parameters : dict
        Name -> live array: A (n, n), or L and R (n, rank); B (n, p); C (q, n); D (q, p) unless no_D. With bias, B and D
        have one more column.
    dtype : numpy.dtype
    preprocessing : Standardise or None
        What was done to the raw data before training; kept in files, applied by `idl-ref predict`, not by the model.

    Notes
    -----
    Initial weights are normal: B, C and D with variance 1/fan-in, so that X and Ŷ have the size of U whatever the
    widths; A, L and Rᵀ scaled to the ∞-norm 3κ/4, inside the ball of `f`.
    Cost of an iteration, forward or adjoint: 2 n² m flops, low rank 4 n r m.

    Examples
    --------
    >>> import numpy as np
    >>> model = ImplicitModel(4, 3, 20, seed=0)
    >>> U = np.ones((5, 4))
    >>> model(U).shape
    (5, 3)
    >>> loss, gradients = model.loss_and_gradients(U, np.array([0, 1, 2, 0, 1]))
    >>> sorted(gradients)
    ['A', 'B', 'C', 'D', 'U']
    """

    # Every setting reads as an attribute: model.kappa is model.settings.kappa.
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
    activation: Setting[str] = Setting()
    dtype: Setting[np.dtype] = Setting()
    backend: Setting[str] = Setting()
    method: Setting[str] = Setting()
    on_failure: Setting[str] = Setting()
    straight_through: Setting[bool] = Setting()

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        hidden_dim: int,
        f: type[ImplicitFunction] = ImplicitFunctionInf,
        no_D: bool = False,
        bias: bool = False,
        mitr: int = 300,
        grad_mitr: int = 300,
        tol: float = 3e-6,
        grad_tol: float = 3e-6,
        kappa: float = 0.99,
        is_low_rank: bool = False,
        rank: int | None = None,
        *,
        activation: str = "relu",
        dtype: Any = "float32",
        seed: int | None = None,
        backend: str = "auto",
        method: str = "auto",
        on_failure: str = "warn",
        straight_through: bool = False,
    ) -> None:
        self.settings: Settings = Settings(
            input_dim, output_dim, hidden_dim, f, no_D, bias, mitr, grad_mitr, tol, grad_tol, kappa, is_low_rank, rank,
            activation, dtype, backend, method, on_failure, straight_through,
        )  # fmt: skip
        if seed is not None:
            checks.integer("seed", seed, 0)
        self.parameters: dict[str, np.ndarray] = self.settings.initial_parameters(np.random.default_rng(seed))
        self.preprocessing: Standardise | None = None
        self._kept: Kept[Layer] = Kept()

    @classmethod
    def from_parameters(cls, settings: Settings, parameters: dict[str, np.ndarray]) -> ImplicitModel:
        """A model of these very arrays; nothing is drawn or copied."""
        model = cls.__new__(cls)
        model.settings, model.parameters, model.preprocessing, model._kept = settings, parameters, None, Kept()
        return model

    def __repr__(self) -> str:
        rank = f", rank={self.rank}" if self.is_low_rank else ""
        return (
            f"ImplicitModel({self.input_dim}, {self.output_dim}, {self.hidden_dim}, f={self.f.__name__}, "
            f'kappa={self.kappa:g}{rank}, activation="{self.activation}", dtype="{self.dtype}")'
        )

    # --- from U to Ŷ --------------------------------------------------------------------------------------------------

    def __call__(self, U: Any, X0: Any = None) -> np.ndarray:
        """The same as `forward`."""
        return self.forward(U, X0)

    def forward(self, U: Any, X0: Any = None) -> np.ndarray:
        """Ŷ (m, q) for U (m, p), samples as rows: solve X = φ(A X + B U), then Ŷ = C X + D U.

        Parameters
        ----------
        U : (m, p) array
        X0 : (m, n) array, optional
            Where the solver starts; 0 if not given.

        Raises
        ------
        ValueError, TypeError
            A wrong shape or dtype.
        NotConvergedError
            With on_failure="raise", when a sample did not converge; "warn" gives a ConvergenceWarning.
        """
        return self._reported(self.layer(), U, X0).Y.T

    def equilibrium(self, U: Any, X0: Any = None) -> Solution:
        """The hidden states, with status, iterations and error bound per sample; X in the paper's columns, (n, m).

        Examples
        --------
        >>> import numpy as np
        >>> solution = ImplicitModel(4, 3, 20, seed=0).equilibrium(np.ones((5, 4)))
        >>> solution.X.shape, solution.converged
        ((20, 5), True)
        """
        return self._reported(self.layer(), U, X0).solution

    def forward_pass(self, U: Any, X0: Any = None) -> ForwardPass:
        """Every intermediate of the forward direction, in the paper's columns; failures are in the status alone."""
        return self.layer().forward(*self._columns(U, X0))

    def _columns(self, U: Any, X0: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """U (m, p) and X0 (m, n), checked, in the paper's columns."""
        s = self.settings
        U = checks.samples("U", U, "p", s.input_dim, s.dtype)
        if X0 is not None:
            X0 = checks.samples("X0", X0, "n", s.hidden_dim, s.dtype, rows=len(U)).T
        return U.T, X0

    def _reported(self, layer: Layer, U: Any, X0: Any = None) -> ForwardPass:
        """The forward pass; `on_failure` says whether a sample that did not converge warns or raises."""
        forward = layer.forward(*self._columns(U, X0))
        report(forward.solution, forward.weights.factors, self.settings.options.forward, "forward", "mitr")
        return forward

    def layer(self) -> Layer:
        """The effective weights, prepared by a twin; kept until a setting or a parameter changes."""
        return self._kept.get(self.settings, self.parameters, lambda: self.settings.layer(self.effective_weights()))

    def freeze(self, raw: bool = False) -> Predictor:
        """The model as it is now, for serving: immutable, thread-safe, one sample in microseconds.

        Parameters
        ----------
        raw : bool
            Take samples as they were before `preprocessing`, and apply it. Whatever compiles, compiles here.
        """
        return Predictor(self.settings, self.effective_weights(), self.preprocessing, raw)

    # --- gradients ----------------------------------------------------------------------------------------------------

    def vjp(self, U: Any, X0: Any = None) -> tuple[np.ndarray, Callable[[Any], Gradients]]:
        """Ŷ (m, q), and the function that takes G_Y = ∂ℓ/∂Ŷ (m, q) to the gradients of every parameter and of U.

        Returns
        -------
        Y : (m, q) array
        pullback : callable
            G_Y -> dict with "A", or "L" and "R"; "B"; "C"; "D" unless no_D; "U" (m, p). Exact through `f`, and for the
            parameters as they were in this call, whatever becomes of them later.

        Examples
        --------
        >>> import numpy as np
        >>> model = ImplicitModel(2, 1, 3, no_D=True, seed=0)
        >>> Y, pullback = model.vjp(np.ones((4, 2)))
        >>> {name: G.shape for name, G in pullback(np.ones((4, 1))).items()}
        {'A': (3, 3), 'B': (3, 2), 'C': (1, 3), 'U': (4, 2)}
        """
        then = ImplicitModel.from_parameters(self.settings, deepcopy(self.parameters))
        layer = then.layer()
        forward = then._reported(layer, U, X0)

        def pullback(G_Y: Any) -> Gradients:
            G_Y = checks.samples("G_Y", G_Y, "q", then.output_dim, then.dtype, rows=forward.Y.shape[1])
            return then._gradients(layer, forward, G_Y.T)

        return forward.Y.T, pullback

    def loss_and_gradients(self, U: Any, targets: Any, loss: str = "cross_entropy") -> tuple[float, Gradients]:
        """ℓ(Ŷ, targets) and its gradients, as `vjp` gives them.

        Parameters
        ----------
        U : (m, p) array
        targets : (m,) whole numbers for "cross_entropy", (m, q) array for "mse"
        loss : {"cross_entropy", "mse"}
            Means over samples, and for "mse" over outputs too.
        """
        from idl_ref import losses  # like torchidl below: not for a model that is loaded to predict

        s, layer = self.settings, self.layer()
        forward = self._reported(layer, U)
        T = losses.check_targets(loss, targets, forward.Y.shape[1], s.output_dim, s.dtype)
        value, G_Y = losses.LOSSES[loss](forward.Y, T)
        return float(value), self._gradients(layer, forward, G_Y)

    def _gradients(self, layer: Layer, forward: ForwardPass, G_Y: np.ndarray) -> Gradients:
        """The gradients of every parameter and of U, with the layer of the forward pass.   G_Y (q, m)"""
        backward = layer.backward(forward, G_Y, inputs=True)
        report(backward.solution, forward.weights.factors, self.settings.options.adjoint, "adjoint", "grad_mitr")
        raw = self.settings.parametrisation.pullback(self.parameters, backward)
        return raw if backward.U is None else raw | {"U": backward.U.T}

    # --- weights ------------------------------------------------------------------------------------------------------

    def effective(self) -> dict[str, np.ndarray]:
        """What the equation uses: the parameters with A, or L and R, after `f`."""
        return self.parameters | by_name(self.effective_weights().factors)

    def effective_weights(self) -> Weights:
        """The same as `effective`, with A as factors; refuses parameters of a wrong shape or dtype."""
        P, shapes = self.parameters, self.settings.shapes()
        if P.keys() - shapes.keys():
            raise ValueError(f"parameters must be {', '.join(shapes)}; got also {', '.join(P.keys() - shapes.keys())}.")
        for name, shape in shapes.items():
            W = P.get(name)
            if not isinstance(W, np.ndarray) or W.shape != shape or W.dtype != self.dtype:
                got = f"{W.shape} {W.dtype}" if isinstance(W, np.ndarray) else "none" if W is None else repr(W)
                raise ValueError(f"parameter {name} must be {shape} {self.dtype}; got {got}: assign with [...] =")
        return self.settings.parametrisation.weights(P)

    def project(self) -> None:
        """Write back into A, or L and R, what `f` keeps there: the row projection for ImplicitFunctionRows.

        `fit` does so after every step; a training loop of one's own should, too.
        """
        self.settings.parametrisation.project(self.parameters)

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, settings and preprocessing to a .npz or .safetensors file: no pickle, all or nothing."""
        self.effective_weights()  # refuses parameters that a file could not give back
        preprocessing = None if self.preprocessing is None else self.preprocessing.settings()
        io.write(path, {"settings": self.settings.plain(), "preprocessing": preprocessing}, self.parameters)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ImplicitModel:
        """The model that `save` wrote.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        FileFormatError
            A ValueError: the file is damaged, foreign, or inconsistent. Nothing in it is ever executed.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     ImplicitModel(4, 3, 20, seed=0).save(f"{folder}/model.npz")
        ...     load(f"{folder}/model.npz")
        ImplicitModel(4, 3, 20, f=ImplicitFunctionInf, kappa=0.99, activation="relu", dtype="float32")
        """
        header, arrays = io.read(path, layout)
        model = cls.from_parameters(Settings.from_plain(header["settings"]), arrays)
        if header["preprocessing"] is not None:
            model.preprocessing = Standardise(**header["preprocessing"])
        return model

    @classmethod
    def from_torchidl(cls, state_dict: Mapping[str, Any], **settings: Any) -> ImplicitModel:
        """The model whose raw weights torchidl keeps in `state_dict`: same outputs, gradients exact.

        Parameters
        ----------
        state_dict : mapping
            `torch_model.state_dict()`, or the same names with arrays.
        **settings
            What a state_dict does not hold: f, bias, kappa, mitr, … as in torchidl's constructor, and this class's own.
            Sizes, rank and no_D are read off the weights; so is dtype, unless it is given.

        Notes
        -----
        The weights stay raw and `f` goes on mapping them. torchidl differentiates a dense A as if ‖A‖∞ never exceeded
        κ; pass straight_through=True to train on with its gradients. It scales L and R whatever `f` is: for
        f=ImplicitFunction the scaled factors are taken over.

        Examples
        --------
        >>> import numpy as np
        >>> state = {"A": np.eye(3), "B": np.ones((3, 2)), "C": np.ones((1, 3)), "D": np.zeros((1, 2))}
        >>> ImplicitModel.from_torchidl(state).kappa
        0.99
        """
        from idl_ref import torchidl

        arguments, raw = torchidl.arguments(state_dict, settings)
        model = cls(**arguments)
        for name, shape in model.settings.shapes().items():
            checks.shape(name, raw[name], shape, "as the other weights have it")
            model.parameters[name][...] = raw[name]
        return model


load = ImplicitModel.load
