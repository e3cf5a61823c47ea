"""The implicit model X = φ(A X + B U), Ŷ = C X + D U takes and returns samples as rows; lower modules have columns."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from idl_ref import activation_names, activations, checks, classes, io
from idl_ref.activation_names import AnyActivation
from idl_ref.backends.numpy import Layer
from idl_ref.choices import AnyLoss, Backend, Dtype, Method, OnFailure
from idl_ref.composition import Composable
from idl_ref.functions import ImplicitFunction, ImplicitFunctionInf
from idl_ref.interface import Interface, certified, checked, described, layout_with, restore, stored_settings
from idl_ref.predictor import Predictor
from idl_ref.preprocessing import Standardise
from idl_ref.settings import Settings
from idl_ref.solution import Solution, report
from idl_ref.weights import ForwardPass, Gradients, Kept, Weights, by_name

__all__ = ["ImplicitModel", "load"]


@checks.renamed(max_iter="mitr, and grad_mitr for the adjoint equation", maxiter="mitr")
class ImplicitModel(Interface, Composable):
    """An implicit model: its hidden states X solve X = φ(A X + B U), and its outputs are Ŷ = C X + D U.

    Parameters
    ----------
    input_dim, output_dim, hidden_dim : int
        The number of inputs p, of outputs q, and of hidden units n.
    f : subclass of ImplicitFunction
        The constraint on A: ImplicitFunctionInf (the default), …Rows, …Perron, …Monotone or …Triu keep the model well
        posed, and ImplicitFunction leaves A as it is.
    no_D : bool
        Make a model without D, so that Ŷ = C X.
    bias : bool
        Append a constant feature 1 to U. The last column of B and of D then holds the bias.
    mitr, grad_mitr : int
        Largest number of iterations, forward and adjoint.
    tol, grad_tol : float
        Tolerance for the largest change of an entry in the last iteration, forward and adjoint; see SolveOptions.
    kappa : float
        Radius κ of the ball in which `f` keeps A, with 0 ≤ κ·Lip(φ) < 1; for low rank, 0 ≤ κ²·Lip(φ) < 1.
    is_low_rank : bool
        Use A = L Rᵀ with L and R of shape (n, rank). The product is never formed.
    rank : int, optional
        The rank of A, 1 ≤ rank ≤ n, which must be given if and only if is_low_rank is true.
    activation : str, Activation, or a list of n of them, one per hidden unit
        The name of φ: relu, leaky_relu, tanh, sigmoid, softplus, elu, hardtanh, softsign or identity; or an Activation.
    dtype : {"float32", "float64"}
        The dtype of parameters and results, to which inputs are converted.
    seed : int, optional
        Seed of the initial weights. With None, the weights differ each time.
    backend : {"auto", "numpy", "numba", "cuda"}
        The implementation that computes; see `available_backends`.
    method : {"auto", "picard", "anderson", "newton", "substitution", "blocks"}
        The method that solves both equations; see SolveOptions.
    on_failure : {"warn", "raise", "ignore"}
        What happens if a sample does not converge.
    straight_through : bool
        Differentiate through `f` as torchidl does for a dense A; see ImplicitFunction.

    Attributes
    ----------
    parameters : dict
        The raw parameters by name; changes of these arrays change the model. They are A (n, n), or L and R (n, rank);
        B (n, p); C (q, n); and D (q, p) unless no_D. With bias, B and D have one more column.
    preprocessing : Standardise or None
        The first layer u = (U − mean)/scale. Every method and every export applies it to its inputs U, which are raw.
    classes : (q,) array or None
        The labels that the outputs stand for, which targets for cross_entropy then hold; None for 0 … q − 1.
    columns : Columns or None
        The columns of a table, by which `columns.matrix` makes U of its rows.

    Raises
    ------
    ValueError, TypeError
        Settings that are outside their range or do not fit together.

    Notes
    -----
    Initial weights are normally distributed. B, C and D have variance 1/fan-in, so that X and Ŷ have the magnitude of U
    for all sizes. A, or L and Rᵀ, is scaled to the ∞-norm 3κ/4, which is inside the ball of `f`.
    Cost of an iteration, forward or adjoint: 2 n² m flops for a dense A, 4 n r m flops for rank r.
    Source: El Ghaoui et al., Implicit Deep Learning, SIAM J. Math. Data Sci. 3 (2021).

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
        activation: AnyActivation = "relu",
        dtype: Dtype = "float32",
        seed: int | None = None,
        backend: Backend = "auto",
        method: Method = "auto",
        on_failure: OnFailure = "warn",
        straight_through: bool = False,
    ) -> None:
        self.settings: Settings = Settings(
            input_dim, output_dim, hidden_dim, f, no_D, bias, mitr, grad_mitr, tol, grad_tol, kappa, is_low_rank, rank,
            activation, dtype, backend, method, on_failure, straight_through,
        )  # fmt: skip
        if seed is not None:
            checks.integer("seed", seed, 0)
        self.parameters: dict[str, np.ndarray] = self.settings.initial_parameters(np.random.default_rng(seed))
        self._kept: Kept[Layer] = Kept()

    @classmethod
    def from_parameters(
        cls, settings: Settings, parameters: dict[str, np.ndarray], preprocessing: Standardise | None = None
    ) -> ImplicitModel:
        """Return a model whose parameters are the given arrays themselves, not copies."""
        model = cls.__new__(cls)
        model.settings, model.parameters, model._kept = settings, parameters, Kept()
        model.preprocessing = preprocessing
        return model

    def __repr__(self) -> str:
        rank = f", rank={self.rank}" if self.rank else f", {self.pattern.entries} entries" if self.pattern else ""
        return (
            f"ImplicitModel({self.input_dim}, {self.output_dim}, {self.hidden_dim}, f={self.f.__name__}, "
            f'kappa={self.kappa:g}{rank}, activation={activation_names.shown(self.activation)}, dtype="{self.dtype}")'
        )

    # --- from U to Ŷ --------------------------------------------------------------------------------------------------

    def __call__(self, U: Any, X0: Any = None) -> np.ndarray:
        """Return the outputs Ŷ, as `forward` does."""
        return self.forward(U, X0)

    def forward(self, U: Any, X0: Any = None) -> np.ndarray:
        """Return the outputs Ŷ (m, q): solve X = φ(A X + B U), then compute Ŷ = C X + D U.

        Parameters
        ----------
        U : (m, p) array
            Inputs, one sample per row. With a preprocessing, they are raw samples, and may have shape (m, …).
        X0 : (m, n) array, optional
            Hidden states at which the solver starts, one sample per row; 0 if not given.

        Raises
        ------
        ValueError, TypeError
            A wrong shape or dtype.
        NotConvergedError
            A sample did not converge, and on_failure is "raise"; with "warn", there is one ConvergenceWarning per call.
        """
        return self._reported(self.layer(), U, X0).Y.T

    def equilibrium(self, U: Any, X0: Any = None) -> Solution:
        """Solve X = φ(A X + B U), and return X (n, m), whose columns are samples, with their statuses and error bounds.

        The arguments and exceptions are those of `forward`. The error bounds are in the ∞-norm of a column, and include
        the rounding of B U and of the preprocessing.

        Examples
        --------
        >>> import numpy as np
        >>> solution = ImplicitModel(4, 3, 20, seed=0).equilibrium(np.ones((5, 4)))
        >>> solution.X.shape, solution.converged
        ((20, 5), True)
        """
        forward, activation = self._reported(self.layer(), U, X0), activations.get(self.activation)
        return certified(forward, activation, self._preprocessing is not None)

    def forward_pass(self, U: Any, X0: Any = None) -> ForwardPass:
        """Return U, Z = B U, the solution X and the outputs Y = C X + D U, with samples as columns.

        The arguments are those of `forward`, and U is returned as it is after the preprocessing. Only the status of the
        solution tells that a sample did not converge.
        """
        return self.layer().forward(*self._columns(U, X0))

    def _columns(self, U: Any, X0: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Check U (m, p) and X0 (m, n), and return the preprocessed U and X0, with samples as columns."""
        s, p, first = self.settings, self.settings.input_dim, self._preprocessing
        U = checks.samples("U", U, "p", p, s.dtype) if first is None else first.inputs("U", U, p, s.dtype)
        if X0 is not None:
            X0 = checks.samples("X0", X0, "n", s.hidden_dim, s.dtype, rows=len(U)).T
        return U.T, X0

    def _reported(self, layer: Layer, U: Any, X0: Any = None) -> ForwardPass:
        """Return the forward pass, after a warning or an exception if a sample did not converge."""
        forward = layer.forward(*self._columns(U, X0))
        report(forward.solution, forward.weights.factors, self.settings.options.forward, "forward", "mitr")
        return forward

    def layer(self) -> Layer:
        """Return the layer for the effective weights, which is cached until a setting or a parameter changes."""
        return self._kept.get(self.settings, self.parameters, lambda: self.settings.layer(self.effective_weights()))

    def freeze(self) -> Predictor:
        """Return an immutable, thread-safe copy of the model for serving, after the backend has compiled for it.

        ValueError is raised for weights that are not finite, and for backend="cuda".
        """
        return Predictor(self.settings, self.effective_weights(), self.preprocessing, self.classes, self.columns)

    # --- gradients ----------------------------------------------------------------------------------------------------

    def vjp(self, U: Any, X0: Any = None) -> tuple[np.ndarray, Callable[[Any], Gradients]]:
        """Return Ŷ (m, q), and a function that takes G_Y = ∂ℓ/∂Ŷ (m, q) to the gradients of all parameters and of U.

        The adjoint equation V = S ∘ (Aᵀ V + Cᵀ G_Y) with S = φ′(A X + B U) gives ∂A = V Xᵀ, ∂B = V Uᵀ, ∂C = G_Y Xᵀ,
        ∂D = G_Y Uᵀ and ∂U = Bᵀ V + Dᵀ G_Y, where samples are columns. With a preprocessing, ∂U is divided by its scale.
        Arguments and exceptions are those of `forward`.

        Returns
        -------
        Y : (m, q) array
            The outputs, one sample per row.
        pullback : callable
            It takes G_Y and returns a dict with the gradients of A, or of L and R; of B and C; of D unless no_D; and of
            U (m, p). They include the derivative of `f`, and belong to the parameters at the time of the call of `vjp`.

        Examples
        --------
        >>> import numpy as np
        >>> model = ImplicitModel(2, 1, 3, no_D=True, seed=0)
        >>> Y, pullback = model.vjp(np.ones((4, 2)))
        >>> {name: G.shape for name, G in pullback(np.ones((4, 1))).items()}
        {'A': (3, 3), 'B': (3, 2), 'C': (1, 3), 'U': (4, 2)}
        """
        then = ImplicitModel.from_parameters(self.settings, deepcopy(self.parameters), self.preprocessing)
        layer = then.layer()
        forward = then._reported(layer, U, X0)

        def pullback(G_Y: Any) -> Gradients:
            G_Y = checks.samples("G_Y", G_Y, "q", then.output_dim, then.dtype, rows=forward.Y.shape[1])
            return then._gradients(layer, forward, G_Y.T)

        return forward.Y.T, pullback

    def loss_and_gradients(self, U: Any, targets: Any, loss: AnyLoss = "cross_entropy") -> tuple[float, Gradients]:
        """Return the loss ℓ(Ŷ, targets) and a dict of its gradients, as the pullback of `vjp` returns them.

        Parameters
        ----------
        U : (m, p) array
            Inputs, one sample per row.
        targets : (m,) whole numbers for "cross_entropy", (m, q) array for "mse"
            The labels or the desired outputs.
        loss : {"cross_entropy", "mse"} or callable
            Both are means over samples, and "mse" over outputs too. A loss of your own is as for `fit`.

        Raises
        ------
        ValueError, TypeError, NotConvergedError
            As `forward`; also for targets of a wrong shape or dtype, and for an unknown loss.
        """
        from idl_ref import losses  # Imported here because a model that is loaded for prediction does not need it.

        s, layer = self.settings, self.layer()
        forward = self._reported(layer, U)
        if self._classes is not None:
            targets = classes.encoded(loss, targets, self._classes)
        T = losses.check_targets(loss, targets, forward.Y.shape[1], s.output_dim, s.dtype)
        value, G_Y = losses.get(loss, layer.losses)(forward.Y, T)
        return float(value), self._gradients(layer, forward, G_Y)

    def _gradients(self, layer: Layer, forward: ForwardPass, G_Y: np.ndarray) -> Gradients:
        """Return the gradients of all parameters and of U, for the layer that computed `forward`.   G_Y (q, m)"""
        backward = layer.backward(forward, G_Y, inputs=True)
        report(backward.solution, forward.weights.factors, self.settings.options.adjoint, "adjoint", "grad_mitr")
        raw = self.settings.parametrisation.pullback(self.parameters, backward)
        if backward.U is not None:
            first = self._preprocessing
            raw["U"] = backward.U.T if first is None else first.pullback(backward.U.T)
        return raw

    # --- weights ------------------------------------------------------------------------------------------------------

    def effective(self) -> dict[str, np.ndarray]:
        """Return the effective parameters, which the equations use: `f` maps A, or L and R, and no others."""
        return self.parameters | by_name(self.effective_weights().factors)

    def effective_weights(self) -> Weights:
        """Return the effective parameters with A as factors; raise ValueError for a wrong shape or dtype."""
        return self.settings.parametrisation.weights(checked(self.settings, self.parameters))

    def project(self) -> None:
        """Project the raw A, or L and R, in place if `f` is ImplicitFunctionRows; otherwise do nothing.

        `fit` calls this method after every step, and your own training loop should do so too.
        """
        self.settings.parametrisation.project(self.parameters)

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, settings and preprocessing to a file, without pickle; an error leaves no partial file.

        Parameters
        ----------
        path : str or path
            The name of the file, which must end in .npz or .safetensors.

        Raises
        ------
        ValueError
            Another ending, parameters that are not finite or have a wrong shape, or an f or activation of your own.
        """
        self.effective_weights()  # This call refuses parameters that `load` could not restore.
        io.write(path, *described(self, self.parameters))

    @classmethod
    def load(cls, path: str | os.PathLike[str], **own: Any) -> ImplicitModel:
        """Return the model that `save` wrote to a file. Nothing in the file is executed.

        Parameters
        ----------
        path : str or path
            The name of the file.
        **own
            What replaces settings of the file: mitr, grad_mitr, tol, grad_tol, method, on_failure, backend="auto".

        Raises
        ------
        FileFormatError
            The file is damaged, inconsistent, or not a model file, or asks for more than 100,000 iterations.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     ImplicitModel(4, 3, 20, seed=0).save(f"{folder}/model.npz")
        ...     load(f"{folder}/model.npz")
        ImplicitModel(4, 3, 20, f=ImplicitFunctionInf, kappa=0.99, activation="relu", dtype="float32")
        """
        header, arrays = io.read(path, layout_with(own))
        settings = stored_settings(path, header, arrays, own)
        model = cls.from_parameters(settings, {name: arrays[name] for name in settings.shapes()})
        restore(path, model, header, arrays)
        return model

    @classmethod
    def from_torchidl(cls, state_dict: Mapping[str, Any], **settings: Any) -> ImplicitModel:
        """Return a model with the raw weights of a torchidl model, which has the same outputs and exact gradients.

        Parameters
        ----------
        state_dict : mapping
            `torch_model.state_dict()`, or a mapping from the same names to arrays.
        **settings
            Constructor arguments that a state_dict does not hold, such as f, bias, kappa and mitr. The weights
            determine sizes, rank and no_D, and also dtype, unless it is given.

        Notes
        -----
        The weights remain raw, and `f` maps them as in torchidl. For a dense A, torchidl differentiates as if ‖A‖∞
        never exceeded κ; pass straight_through=True to continue training with such gradients. torchidl scales L and R
        for every `f`; for f=ImplicitFunction, the scaled factors become the parameters.

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
