"""This module has the implicit RNN, a recurrent network whose cell is an implicit model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from idl_ref import activation_names, checks, losses
from idl_ref.analysis import recurrent_files
from idl_ref.analysis.through_time import (
    ForwardThroughTime,
    LayerThroughTime,
    ParametrisationThroughTime,
    TrainerThroughTime,
    report,
)
from idl_ref.analysis.time_steps import Unrolled
from idl_ref.analysis.trajectory import Trajectory
from idl_ref.choices import AnyLoss
from idl_ref.model import ImplicitModel
from idl_ref.settings import Settings
from idl_ref.weights import Gradients, Parameters

if TYPE_CHECKING:
    from idl_ref.gradcheck import GradientReport
    from idl_ref.training.history import History

__all__ = ["ImplicitRNN"]


class ImplicitRNN(Unrolled):
    """A recurrent network whose cell is an implicit model, and whose last hidden state gives the outputs.

    In every time step t = 1 … T, the cell solves its equilibrium equation, and then returns the next hidden state::

        x_t = φ(A x_t + B v_t)      h_t = C x_t + D v_t      v_t = (u_t, h_{t−1})      Ŷ = W h_T + w

    Parameters
    ----------
    input_dim, output_dim : int
        The number of inputs p of a time step, and of outputs q of a sequence.
    implicit_hidden_dim : int
        The number n of entries of the state x_t, which the cell solves for.
    hidden_dim : int
        The number h of entries of the hidden state h_t, which is handed on from one time step to the next.
    seed : int, optional
        Seed of the initial weights. With None, the weights differ each time.
    **settings
        The other arguments of `ImplicitModel`, which belong to the cell: f, no_D, bias, mitr, grad_mitr, tol, grad_tol,
        kappa, is_low_rank, rank, activation, dtype, backend, method, on_failure, straight_through.

    Attributes
    ----------
    cell : ImplicitModel
        The model with p + h inputs, n hidden units and h outputs. It has no preprocessing.
    W, w : (q, h) and (q,) arrays
        The weights of the readout.

    Raises
    ------
    ValueError, TypeError
        Settings that are outside their range or do not fit together.

    Notes
    -----
    Initial weights are those of `ImplicitModel`, except that C and D are divided by √2. Then h_t, a sum of two terms
    that have the magnitude of its arguments, neither grows nor vanishes quickly. W has the variance 1/h, and w is 0.
    Cost of a time step: that of the cell for m samples. Memory of a training step: T (2 n + p + 2 h) m numbers.
    Source: the class of the same name in torchidl 0.0.4, with the same first four arguments.

    Examples
    --------
    >>> import numpy as np
    >>> rnn = ImplicitRNN(2, 1, 20, 8, bias=True, seed=0)
    >>> rnn
    ImplicitRNN(2, 1, 20, 8, f=ImplicitFunctionInf, kappa=0.99, bias=True, activation="relu", dtype="float32")
    >>> U = np.ones((5, 7, 2))  # 5 sequences of 7 time steps
    >>> rnn(U).shape
    (5, 1)
    >>> loss, gradients = rnn.loss_and_gradients(U, np.zeros((5, 1)), "mse")
    >>> {name: G.shape for name, G in gradients.items() if name in ("A", "U", "H0")}
    {'A': (20, 20), 'U': (5, 7, 2), 'H0': (5, 8)}
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        implicit_hidden_dim: int,
        hidden_dim: int,
        *,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        p = checks.integer("input_dim", input_dim, 1)
        q = checks.integer("output_dim", output_dim, 1)
        n = checks.integer("implicit_hidden_dim", implicit_hidden_dim, 1)
        h = checks.integer("hidden_dim", hidden_dim, 1)
        self.cell: ImplicitModel = ImplicitModel(p + h, h, n, seed=seed, **settings)
        for name in self.cell.parameters.keys() & {"C", "D"}:
            self.cell.parameters[name] *= 0.5**0.5
        rng = np.random.default_rng(None if seed is None else [seed, 1])
        self.W: np.ndarray = (rng.standard_normal((q, h)) * h**-0.5).astype(self.dtype)
        self.w: np.ndarray = np.zeros(q, self.dtype)

    @classmethod
    def from_parameters(cls, settings: Settings, parameters: Mapping[str, np.ndarray]) -> ImplicitRNN:
        """Return an RNN with the settings of its cell, whose parameters are the given arrays themselves, not copies."""
        rnn = cls.__new__(cls)
        cell = dict(parameters)
        rnn.W, rnn.w = cell.pop("W"), cell.pop("w")
        rnn.cell = ImplicitModel.from_parameters(settings, cell)
        return rnn

    def __repr__(self) -> str:
        s = self.settings
        rank = f", rank={s.rank}" if s.is_low_rank else ""
        flags = "".join(f", {name}=True" for name in ("no_D", "bias") if getattr(s, name))
        return (
            f"ImplicitRNN({self.input_dim}, {self.output_dim}, {self.implicit_hidden_dim}, {self.hidden_dim}, "
            f"f={s.f.__name__}, kappa={s.kappa:g}{rank}{flags}, "
            f'activation={activation_names.shown(s.activation)}, dtype="{s.dtype}")'
        )

    # --- outputs and gradients ----------------------------------------------------------------------------------------

    def __call__(self, U: Any, H0: Any = None) -> np.ndarray:
        """Return the outputs Ŷ, as `forward` does."""
        return self.forward(U, H0)

    def forward(self, U: Any, H0: Any = None) -> np.ndarray:
        """Return the outputs Ŷ (m, q) = W h_T + w of sequences.

        Parameters
        ----------
        U : (m, T, p) array
            Inputs: m sequences of T time steps.
        H0 : (m, h) array, optional
            The hidden states h₀ before the first time step; 0 if not given.

        Raises
        ------
        ValueError, TypeError
            A wrong shape or dtype.
        NotConvergedError
            A sample did not converge in a time step, and on_failure is "raise"; with "warn", there is one
            ConvergenceWarning per call.
        """
        return self._reported(self.layer(), U, H0).Y.T

    def trajectory(self, U: Any, H0: Any = None) -> Trajectory:
        """Return the states of all time steps with a status and an error bound for each; see Trajectory.

        The arguments and exceptions are those of `forward`.

        Examples
        --------
        >>> import numpy as np
        >>> found = ImplicitRNN(2, 1, 20, 8, seed=0).trajectory(np.ones((5, 7, 2)))
        >>> found.X.shape, found.H.shape, found.status.shape, found.converged
        ((5, 7, 20), (5, 7, 8), (5, 7), True)
        """
        return Trajectory.of(self._reported(self.layer(), U, H0), self.settings)

    def layer(self) -> LayerThroughTime:
        """Return the layer for the effective weights; that of the cell is cached until a parameter of it changes."""
        self.effective_weights()  # This call refuses parameters of a wrong shape or dtype.
        return LayerThroughTime(self.cell.layer(), self.W, self.w)

    def vjp(self, U: Any, H0: Any = None) -> tuple[np.ndarray, Callable[[Any], Gradients]]:
        """Return Ŷ (m, q), and a function that takes G_Y = ∂ℓ/∂Ŷ (m, q) to the gradients of all parameters and inputs.

        They are a dict with the names of `parameters`, U (m, T, p) and H0 (m, h). The gradients belong to the
        parameters at the time of the call of `vjp`. Arguments and exceptions are those of `forward`.

        Examples
        --------
        >>> import numpy as np
        >>> Y, pullback = ImplicitRNN(2, 1, 20, 8, seed=0).vjp(np.ones((5, 7, 2)))
        >>> list(pullback(np.ones((5, 1))))
        ['A', 'B', 'C', 'D', 'W', 'w', 'U', 'H0']
        """
        then = ImplicitRNN.from_parameters(self.settings, deepcopy(dict(self.parameters)))
        layer = then.layer()
        forward = then._reported(layer, U, H0)

        def pullback(G_Y: Any) -> Gradients:
            G_Y = checks.samples("G_Y", G_Y, "q", then.output_dim, then.dtype, rows=forward.Y.shape[1])
            return then._gradients(layer, forward, G_Y.T)

        return forward.Y.T, pullback

    def loss_and_gradients(
        self, U: Any, targets: Any, loss: AnyLoss = "cross_entropy", H0: Any = None
    ) -> tuple[float, Gradients]:
        """Return the loss ℓ(Ŷ, targets) and a dict of its gradients, as the pullback of `vjp` returns them.

        Parameters
        ----------
        U : (m, T, p) array
            Inputs: m sequences of T time steps.
        targets : (m,) whole numbers for "cross_entropy", (m, q) array for "mse"
            The label or the desired outputs of each sequence.
        loss : {"cross_entropy", "mse"} or callable
            As for `ImplicitModel.loss_and_gradients`.
        H0 : (m, h) array, optional
            The hidden states h₀; 0 if not given.
        """
        layer = self.layer()
        forward = self._reported(layer, U, H0)
        T = losses.check_targets(loss, targets, forward.Y.shape[1], self.output_dim, self.dtype)
        value, G_Y = losses.get(loss)(forward.Y, T)
        return float(value), self._gradients(layer, forward, G_Y)

    def _reported(self, layer: LayerThroughTime, U: Any, H0: Any) -> ForwardThroughTime:
        """Return the forward pass, after a warning or an exception if a sample did not converge in a time step."""
        U = self.checked_inputs("U", U)
        if H0 is not None:
            H0 = checks.samples("H0", H0, "h", self.hidden_dim, self.dtype, rows=len(U)).T
        forward = layer.forward(U.T, H0)
        solutions = (step.solution for step in forward.steps)  # which are asked for after a failure alone
        report(forward.solution, solutions, forward.weights, self.settings.options.forward, "forward", "mitr")
        return forward

    def _gradients(self, layer: LayerThroughTime, forward: ForwardThroughTime, G_Y: np.ndarray) -> Gradients:
        """Return the gradients of all parameters, U and H0, for the layer that computed `forward`.   G_Y (q, m)"""
        backward, s = layer.backward(forward, G_Y), self.settings
        report(backward.solution, backward.steps, forward.weights, s.options.adjoint, "adjoint", "grad_mitr")
        pullback = ParametrisationThroughTime(s.parametrisation.function, s.bias).pullback
        return pullback(self.parameters, backward) | {"U": backward.U.T, "H0": backward.H0.T}

    # --- training and checks ------------------------------------------------------------------------------------------

    def trainer(self, parameters: Parameters, loss: AnyLoss, optimizer: Any) -> TrainerThroughTime:
        """Return what takes the steps of `fit`, and updates the `parameters`."""
        return TrainerThroughTime(parameters, self.settings, loss, optimizer)

    def fit(self, U: Any, targets: Any, **options: Any) -> History:
        """Train the RNN in place by stochastic gradient descent on minibatches of sequences.

        Parameters
        ----------
        U : (m, T, p) array
            Inputs: m sequences of T time steps.
        targets : (m,) whole numbers for "cross_entropy", (m, q) array for "mse"
            The label or the desired outputs of each sequence.
        **options
            The options of `idl_ref.fit`: loss, optimizer, epochs, batch_size, validation, seed, progress,
            sample_weight, class_weight, early_stopping, on_epoch and checkpoint, with the same defaults.

        Returns
        -------
        History
            The record of the completed epochs. Iterations are those of all time steps of a sample together.

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> U = rng.standard_normal((200, 5, 1))
        >>> rnn = ImplicitRNN(1, 1, 10, 4, seed=0)
        >>> history = rnn.fit(U, U.mean(axis=1), loss="mse", epochs=30, progress=False)
        >>> history.loss[-1] < 0.1 * history.loss[0]
        True
        """
        from idl_ref import train

        # `fit` asks for nothing but attributes that an implicit RNN has too; its annotation names the usual model.
        return train.fit(cast("ImplicitModel", self), U, targets, **options)

    def check_gradients(
        self,
        U: Any,
        targets: Any,
        *,
        loss: AnyLoss = "cross_entropy",
        H0: Any = None,
        entries: int = 64,
        seed: int = 0,
    ) -> GradientReport:
        """Compare every gradient, of the parameters, U and h₀, with the complex step and with central differences.

        The arguments and the report are those of `idl_ref.check_gradients`; U has shape (m, T, p), and H0 (m, h).

        Examples
        --------
        >>> import numpy as np
        >>> rnn, rng = ImplicitRNN(2, 2, 5, 3, bias=True, seed=0), np.random.default_rng(0)
        >>> report = rnn.check_gradients(rng.standard_normal((4, 3, 2)), np.array([0, 1, 1, 0]))
        >>> report.passed, [row.name for row in report.rows]
        (True, ['A', 'B', 'C', 'D', 'W', 'w', 'U', 'H0'])
        """
        from idl_ref.analysis import recurrent_check

        return recurrent_check.check_gradients(self, U, targets, loss, H0, entries, seed)

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters and settings to an .npz or .safetensors file, as `ImplicitModel.save` does."""
        self.effective_weights()  # This call refuses parameters that `load` could not restore.
        recurrent_files.write(path, self.settings, self.parameters)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **own: Any) -> ImplicitRNN:
        """Return the RNN that `save` wrote to a file. Nothing in the file is executed.

        The arguments and exceptions are those of `ImplicitModel.load`.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     ImplicitRNN(2, 1, 20, 8, seed=0).save(f"{folder}/rnn.npz")
        ...     ImplicitRNN.load(f"{folder}/rnn.npz")
        ImplicitRNN(2, 1, 20, 8, f=ImplicitFunctionInf, kappa=0.99, activation="relu", dtype="float32")
        """
        return cls.from_parameters(*recurrent_files.read(path, own))

    @classmethod
    def from_torchidl(cls, state_dict: Mapping[str, Any], **settings: Any) -> ImplicitRNN:
        """Return an RNN with the raw weights of torchidl's ImplicitRNN, which has the same outputs and exact gradients.

        Parameters
        ----------
        state_dict : mapping
            `torch_model.state_dict()`, or a mapping from the same names to arrays.
        **settings
            Arguments of `ImplicitModel` that a state_dict does not hold, such as f, bias, kappa and mitr.

        Examples
        --------
        >>> import numpy as np
        >>> cell = {"A": np.eye(3), "B": np.ones((3, 4)), "C": np.ones((2, 3)), "D": np.zeros((2, 4))}
        >>> state = {f"recurrent.layer.{name}": W for name, W in cell.items()}
        >>> state |= {"linear.weight": np.ones((1, 2)), "linear.bias": np.zeros(1)}
        >>> ImplicitRNN.from_torchidl(state).input_dim
        2
        """
        return cls.from_parameters(*recurrent_files.from_torchidl(state_dict, settings))
