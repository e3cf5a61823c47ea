"""This module trains a model on minibatches, with validation, a history, checkpoints and a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from idl_ref import blas, checks, files, optim
from idl_ref.choices import AnyLoss
from idl_ref.model import ImplicitModel
from idl_ref.optim import Optimizer
from idl_ref.training.checkpoint import Checkpoint
from idl_ref.training.evaluation import evaluate
from idl_ref.training.history import History
from idl_ref.training.interrupts import Interrupts, Terminated
from idl_ref.training.loop import Plan, Training
from idl_ref.training.progress import Progress
from idl_ref.training.ranks import Ranks
from idl_ref.training.samples import training_samples, validation_samples

__all__ = ["History", "evaluate", "fit"]

# A product of fewer flops takes less than about a millisecond on one core, and gains little from a second one.
SMALL_PRODUCT = 1e8


def fit(
    model: ImplicitModel,
    U: Any,
    targets: Any,
    *,
    loss: AnyLoss = "cross_entropy",
    optimizer: Optimizer | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    validation: tuple[Any, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
    sample_weight: Any = None,
    class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
    early_stopping: int | None = None,
    on_epoch: Callable[[History, ImplicitModel], Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    micro_batch: int | None = None,
    comm: Any = None,
) -> History:
    """Train `model` in place by stochastic gradient descent.

    Each step solves the forward and the adjoint equation of one minibatch, and then updates the parameters.

    Parameters
    ----------
    model : ImplicitModel
        The model, whose parameters are changed.
    U : (m, p) array
        Inputs, one sample per row. With a preprocessing, they are raw samples, and may have shape (m, …).
    targets : (m,) labels for "cross_entropy", (m, q) array for "mse"
        The labels or the desired outputs; for a loss of your own, real numbers with m rows.
    loss : {"cross_entropy", "mse"} or callable
        The loss that is minimised. A function of your own takes Y (q, m) and the targets T with samples as the last
        axis, and returns the mean loss over the samples and its gradient G_Y (q, m).
    optimizer : Optimizer, optional
        SGD, Adam, or an optimizer of your own. If it is not given, it is SGD("auto"), whose learning rate is found by
        short trial trainings. Its moments and step count are reset.
    epochs, batch_size : int
        Number of epochs, and number of samples per step. Each epoch uses every sample once, in a new random order.
    validation : (U, targets), optional
        Data on which loss and accuracy are computed after every epoch.
    seed : int
        Seed of the order of the samples. The same seed on the same machine gives the same weights, bit for bit.
    progress : bool
        Show progress on standard error: a progress bar if tqdm is installed, else one line per epoch.
    sample_weight : (m,) array, optional
        Weights w ≥ 0 of the samples. They are scaled to the mean 1, and the loss of a minibatch is Σ w ℓ over its
        samples, divided by their number.
    class_weight : dict or "balanced", optional
        Weights of the classes, by which those of their samples are multiplied: a dict from classes to numbers, where a
        class that is missing has the weight 1; or W/(K W_c), where W is the weight of all samples, W_c that of class c,
        and K the number of classes.
    early_stopping : int, optional
        Stop after so many epochs in which the validation loss, or the training loss if there is no validation, did not
        become smaller than ever before. The model then gets the weights of the best epoch; it does so, too, if
        training ends earlier.
    on_epoch : callable, optional
        A function of the history and the model, which is called after every epoch. Training stops if it returns True.
    checkpoint : str or path, optional
        An .npz file that is written after every epoch, and when training is interrupted. If it is there, training
        resumes from it: the same call continues where the last one was interrupted, and a call with more epochs goes
        on after the last one. The weights are then the same, bit for bit, as without an interruption.
    micro_batch : int, optional
        Cut each batch into leaves of so many samples, whose gradients are added up in an order that depends on their
        number alone. The loss must be a mean over samples. A batch of one leaf gives the bits of a usual step.
        Inputs, targets and weights in arrays or memory maps are then read when a step needs them, and need not fit into
        memory.
    comm : MPI communicator, optional
        Share the leaves of each step between the processes of mpi4py's communicator, which all make this call with the
        same arguments, and begin with the weights of the first one. The weights are the same, bit for bit, on any
        number of processes. Only the first one shows progress, calls `on_epoch`, and reads and writes the checkpoint.

    Returns
    -------
    History
        The record of the completed epochs. After Ctrl-C, too, the history is returned, and the model keeps the weights
        of that moment. Ctrl-C waits for the end of a step; a second one does not, and gives the weights of the start of
        the epoch.

    Raises
    ------
    ValueError, TypeError
        Arrays of a wrong shape or dtype, no samples, inputs or targets that are not finite, an unknown loss, a number
        outside its range, no optimizer, or a checkpoint of another training.
    FloatingPointError
        The loss or a gradient is not finite in the first step of an epoch, or training diverged for the eleventh time.
        The message names the epoch and the batch, and the model keeps the weights of the start of this epoch.
    NotConvergedError
        A sample did not converge, and the model has on_failure="raise".
    OSError
        The checkpoint cannot be written. This is found before the first epoch.
    RuntimeError
        Another process of `comm` has failed; the message says which one, and why.
    SystemExit
        SIGTERM arrived while there is a checkpoint, which was then written. The exit status is 143.

    Warns
    -----
    ConvergenceWarning
        Samples did not converge, and the model has on_failure="warn"; there is one warning per epoch.

    Notes
    -----
    A training diverges if a loss or a gradient is not finite, or if the mean loss of an epoch exceeds twice the loss of
    the start and twice that of outputs 0. It then goes back to the weights of the start of the epoch, or to those of
    the start of the training if that has not helped twice, and halves the learning rate. It does so up to ten times,
    and `History.events` says so. With schedule="cosine", the learning rate depends on `epochs`, so that only a call
    with the same number of epochs gives the same weights after an interruption.
    Cost of an epoch: (forward and adjoint iterations per sample) · 2 n² m flops for a dense A, or · 4 n r m for a
    low-rank A, and at most about 6 (n² + n p + n q + p q) m flops for the products with weights and for the gradients.
    Source: El Ghaoui et al., Implicit Deep Learning, SIAM J. Math. Data Sci. 3 (2021), section on training.

    Examples
    --------
    >>> from idl_ref import datasets
    >>> x, y = datasets.two_moons(200)
    >>> model = ImplicitModel(2, 2, 20, bias=True, seed=0)
    >>> history = fit(model, x, y, epochs=30, progress=False)
    >>> history.accuracy[-1] > 0.9
    True
    """
    ranks = Ranks(comm)

    def prepared() -> Training:
        """Check all arguments."""
        by_rows = micro_batch is not None  # A step with leaves reads the rows of its leaves only.
        samples = training_samples(model, U, targets, loss, sample_weight, class_weight, by_rows)
        plan = _plan(loss, epochs, batch_size, seed, early_stopping, on_epoch, checkpoint)
        tests = validation_samples(model, validation, loss, by_rows)
        if early_stopping is not None and tests is not None and not len(tests.U):
            raise ValueError(
                "validation must hold at least one sample for early_stopping; got none: leave one of them out."
            )
        plan = plan._replace(micro_batch=_checked_leaves(model, micro_batch, comm))
        return Training(model, samples, tests, plan, optim.checked(optimizer), ranks)

    training = ranks.on_each(prepared)
    kept, tests = checkpoint is not None and ranks.first, training.validation
    training.samples, sum_of_samples = training.samples.look(ranks, kept)
    training.sums = sum_of_samples, None if tests is None else tests.look(ranks, kept)[1]
    resumed = ranks.once(lambda: _resumed(training, checkpoint))
    small = micro_batch is not None or _has_small_products(model, batch_size)
    with (
        blas.one_thread(model.settings.resolved_backend()) if ranks.size > 1 else blas.OneThread(small),
        Progress(checks.flag("progress", progress) and ranks.first, epochs, training.batches_of_an_epoch) as display,
        Interrupts(ranks.once(lambda: checkpoint is not None)) as interrupts,
    ):
        training.run(resumed, display, interrupts)
    if interrupts.terminated:
        raise Terminated
    if interrupts.caught is not None:  # Ctrl-C may also come after the last step.
        training.history.interrupted = True
    return training.history


def _plan(loss: Any, epochs: int, batch_size: int, seed: int, patience: Any, on_epoch: Any, checkpoint: Any) -> Plan:
    """Check what a training is asked to do."""
    checks.integer("epochs", epochs, 0)
    checks.integer("batch_size", batch_size, 1)
    checks.integer("seed", seed, 0)
    if patience is not None:
        checks.integer("early_stopping", patience, 1)
    if on_epoch is not None and not callable(on_epoch):
        raise TypeError(f"on_epoch must be a function of (history, model); got {checks.shown(on_epoch)}.")
    if checkpoint is not None and not os.fspath(checkpoint).endswith(".npz"):
        raise ValueError(f"checkpoint must end in .npz; got {checks.shown(os.fspath(checkpoint))}: rename it.")
    return Plan(loss, epochs, batch_size, seed, patience, on_epoch, checkpoint)


def _checked_leaves(model: Any, micro_batch: int | None, comm: Any) -> int | None:
    """Check what tells how a batch is cut and shared."""
    if micro_batch is None:
        if comm is not None:
            raise ValueError(
                "micro_batch is needed with comm, because processes share the leaves of a batch; got None: pass the "
                "number of samples of a leaf, such as 32, and a batch_size of several times that."
            )
        return None
    if not isinstance(model, ImplicitModel):
        raise ValueError(f"micro_batch and comm are for an ImplicitModel; got {type(model).__name__}: leave them out.")
    if model.settings.resolved_backend() == "cuda":
        raise ValueError(
            'micro_batch and comm need backend="numba" or "numpy"; got "cuda", whose steps are taken on one device: '
            "leave them out, or choose another backend."
        )
    return checks.integer("micro_batch", micro_batch, 1)


def _resumed(training: Training, checkpoint: Any) -> Checkpoint | None:
    """Return the checkpoint from which a training resumes, after checking that it belongs to it; None if it begins."""
    if checkpoint is None:
        return None
    files.probe(checkpoint)
    if not Path(checkpoint).exists():
        return None
    found = Checkpoint.read(checkpoint)
    found.check(checkpoint, training.fingerprint())
    return found


def _has_small_products(model: ImplicitModel, batch_size: int) -> bool:
    """Tell whether BLAS computes the products of a step, and one core is enough for them."""
    flops = 2 * batch_size * max(W.size for W in model.parameters.values())
    return model.settings.resolved_backend() == "numpy" and flops <= SMALL_PRODUCT
