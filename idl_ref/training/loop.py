"""This module has the loop of a training: epochs of steps, and what happens between them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from idl_ref.backends.numpy import Trainer
from idl_ref.backends.numpy.trainer import Step
from idl_ref.choices import AnyLoss
from idl_ref.factors import norm_inf
from idl_ref.model import ImplicitModel
from idl_ref.optim import Optimizer
from idl_ref.solution import NotConvergedError, warn
from idl_ref.training import rates
from idl_ref.training.checkpoint import Checkpoint, Snapshot, described
from idl_ref.training.epoch import Epoch
from idl_ref.training.evaluation import measured
from idl_ref.training.history import History
from idl_ref.training.interrupts import Interrupts
from idl_ref.training.leaves import LeafTrainer
from idl_ref.training.progress import Progress
from idl_ref.training.ranks import ALONE, Ranks, processor
from idl_ref.training.samples import Samples
from idl_ref.wellposed import perron_root

HALVINGS = 10  # A training that diverges goes on with half of the learning rate, at most so many times.
DIVERGED = 2.0  # An epoch has diverged if its loss is so many times that of the start and that of a constant output.
FEW = 16  # So many samples are compared between the ranks of a training.
PROBE = 1024  # The loss of the start is measured with at most so many samples.


class Plan(NamedTuple):
    """What a training is asked to do."""

    loss: AnyLoss
    epochs: int
    batch_size: int
    seed: int
    patience: int | None  # the number of epochs without an improvement after which training stops
    on_epoch: Callable[[History, ImplicitModel], Any] | None
    checkpoint: Any  # the path of the file from which training resumes, or None
    micro_batch: int | None = None  # the number of samples of a leaf; None takes a batch as a whole


class Training:
    """A training that is under way.

    Its state between two steps is: the parameters of the model, the optimizer, `history`, `epoch` with the figures of
    the epoch that is under way, and snapshots of the start of the training, of the start of this epoch, and of the best
    one. A checkpoint holds all of it. The order of the samples in epoch k follows from the seed and k.
    """

    def __init__(
        self,
        model: ImplicitModel,
        samples: Samples,
        validation: Samples | None,
        plan: Plan,
        optimizer: Optimizer,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.samples, self.validation, self.ranks = model, samples, validation, ranks
        self.plan, self.optimizer = plan, optimizer
        self.history, self.epoch = History(), Epoch()
        self.sums: tuple[int | None, int | None] = None, None  # checksums of the samples, if there is a checkpoint
        self.best: Snapshot | None = None
        self.best_value, self.best_epoch = math.inf, 0
        self.halvings, self.here, self.limit, self.stopped = 0, 0, math.inf, False
        self.ended = 0  # the number of epochs that were asked for when on_epoch stopped the training
        self.total_steps = plan.epochs * self.batches_of_an_epoch

    @property
    def batches_of_an_epoch(self) -> int:
        """The number of steps of one epoch."""
        return -(-len(self.samples.U) // self.plan.batch_size)

    @property
    def completed(self) -> int:
        """The number of completed epochs."""
        return len(self.history.seconds)  # the list that an epoch appends to last

    # --- from the start, or from a checkpoint -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin at the first step, with a learning rate that is found if that is "auto"."""
        self.optimizer.start(self.total_steps)
        self._meet()
        self.first = self.good = Snapshot.of(self.model.parameters, self.optimizer)
        self.trainer = self.new_trainer()
        if not callable(self.plan.loss) and self.total_steps:
            self.limit = DIVERGED * max(self._loss_of_the_start(), self._loss_of_a_constant())
        if self.optimizer.learning_rate == "auto" and self.total_steps:
            minibatches = self.samples, self.batches(1)[: rates.STEPS]
            rate = rates.find(self.model.parameters, self.optimizer, self.new_trainer, *minibatches)
            self.optimizer.start(self.total_steps, rate)
            self.trainer = self.new_trainer()
            self.first = self.good = Snapshot.of(self.model.parameters, self.optimizer)
            self.history.events.append(f"the learning rate {rate:.3g} was found by short trial trainings")

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where the checkpoint was written."""
        now, state = checkpoint.snapshots["now"], checkpoint.state
        checkpoint.require(self.model.parameters, self.optimizer)
        for snapshot in checkpoint.snapshots.values():
            snapshot.numbers["total"] = self.total_steps
        now.put_back(self.model.parameters, self.optimizer)
        self.history, self.epoch = checkpoint.history, Epoch(**state["epoch"])
        self.history.interrupted = False
        self.first, self.best = checkpoint.snapshots["first"], checkpoint.snapshots.get("best")
        self.good = checkpoint.snapshots.get("good", now)
        self.best_value, self.limit = (math.inf if (x := state[k]) is None else x for k in ("best_value", "limit"))
        self.best_epoch, self.halvings, self.here = state["best_epoch"], state["halvings"], state["here"]
        self.stopped = state["stopped"] or self.plan.epochs <= state["ended"]
        self.ended = state["ended"] if self.stopped else 0
        self._meet()
        self.trainer = self.new_trainer()

    def save(self, path: Any) -> None:
        """Write a checkpoint of this moment, which is between two steps."""
        self.trainer.update_host()
        snapshots = {"now": Snapshot.of(self.model.parameters, self.optimizer), "first": self.first}
        if self.epoch.batches:
            snapshots["good"] = self.good
        if self.best is not None:
            snapshots["best"] = self.best
        state = {
            "epoch": asdict(self.epoch),
            "best_value": self.best_value if math.isfinite(self.best_value) else None,
            "best_epoch": self.best_epoch,
            "halvings": self.halvings,
            "here": self.here,
            "limit": self.limit if math.isfinite(self.limit) else None,
            "stopped": self.stopped and not self.ended,
            "ended": self.ended,
        }
        Checkpoint(self.fingerprint(), state, snapshots, self.history).write(path)

    def fingerprint(self, sums: bool = True) -> dict[str, Any]:
        """Return what must be the same in the call that resumes a training; `sums` are those of all data."""
        plan, loss = self.plan, self.plan.loss
        return {
            "model": repr(self.model.settings),
            "data": self.sums[0] if sums else None,
            "validation data": self.sums[1] if sums else None,
            "loss": loss if isinstance(loss, str) else getattr(loss, "__qualname__", type(loss).__qualname__),
            "optimizer": described(self.optimizer),
            "batch_size": plan.batch_size,
            "seed": plan.seed,
            "early_stopping": plan.patience,
            **({} if plan.micro_batch is None else {"micro_batch": plan.micro_batch}),
        }

    def new_trainer(self) -> Trainer | LeafTrainer:
        """Return the trainer of the model for the current parameters."""
        self.model.effective_weights()  # This call refuses parameters of a wrong shape or dtype.
        trainer = self.model.trainer(self.model.parameters, self.plan.loss, self.optimizer)
        return trainer if self.plan.micro_batch is None else LeafTrainer(trainer, self.plan.micro_batch, self.ranks)

    def _meet(self) -> None:
        """Give all ranks the parameters of the first one, and refuse ranks that would not train the same model."""
        ranks, plan = self.ranks, self.plan
        if ranks.size == 1:
            return
        some = self.samples.some(np.linspace(0, len(self.samples.U) - 1, FEW).astype(int))
        description = {
            "samples": len(self.samples.U),
            "validation samples": None if self.validation is None else len(self.validation.U),
            "epochs": plan.epochs,
            **self.fingerprint(sums=False),
            "data": some.checksum(),
        }
        for name, value in description.items():
            ranks.compare(name, str(value), "pass the same arguments, model and data on all of them")
        weights: dict[str, np.ndarray] = ranks.once(lambda: dict(self.model.parameters))
        for name, W in weights.items():
            self.model.parameters[name][...] = W
        trainer = self.new_trainer()
        assert isinstance(trainer, LeafTrainer)
        digest = ranks.on_each(lambda: trainer.canary(*self.samples))
        way_out = "train on machines of one kind, with the same versions of NumPy and Numba and one thread for BLAS"
        ranks.compare("bits for the same samples", digest, way_out, f"({processor()})")

    def _loss_of_the_start(self) -> float:
        """Return the loss of the first samples with the current weights, or 0 if it is not finite."""
        first = slice(0, PROBE)
        value = self.ranks.once(lambda: measured(self.model, self.samples.some(first), self.plan.loss, quiet=True).loss)
        return value if math.isfinite(value) else 0.0

    def _loss_of_a_constant(self) -> float:
        """Return the loss of outputs that are all 0."""
        if self.plan.loss == "cross_entropy":
            return math.log(self.model.output_dim)
        T = self.samples.T
        squares = self.samples.by_blocks(self.ranks, lambda block: float(np.square(T[..., block], dtype=float).sum()))
        return sum(squares) / (len(self.samples.U) * self.model.output_dim)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the numbers of the samples of each minibatch of an epoch, which follow from the seed."""
        order = np.random.default_rng([self.plan.seed, epoch]).permutation(len(self.samples.U))
        size = self.plan.batch_size
        return [order[j : j + size] for j in range(0, len(order), size)]

    def run(self, resumed: Checkpoint | None, display: Progress, interrupts: Interrupts) -> None:
        """Start or resume, and take all epochs that are left, or stop earlier, between two steps."""
        try:
            if resumed is None:
                self.start()
            else:
                self.resume(resumed)
                display.start(self.completed, self.completed * self.batches_of_an_epoch + self.epoch.batches)
            while self.completed < self.plan.epochs and not self.stopped:
                if not self._run_epoch(display, interrupts):
                    self.history.interrupted = True
                    break
        except KeyboardInterrupt:  # A second Ctrl-C may come in the middle of a step.
            self.ranks.abort("was interrupted twice, and ends the others, which would wait for it.")
            self.history.interrupted = True
            self.history.keep(self.completed)
            self.good.put_back(self.model.parameters)
        finally:
            if self.best is not None:
                self.best.put_back(self.model.parameters)

    def _run_epoch(self, display: Progress, interrupts: Interrupts) -> bool:
        """Take the steps of one epoch; return whether training goes on, and not if a signal has come."""
        try:
            if not self._take_steps(display, interrupts):
                self._save_checkpoint()
                return False
            self._check_epoch()
        except FloatingPointError as reason:
            self._step_back(str(reason), display)
            return True
        finally:
            self.trainer.update_host()
        self._finish_epoch(display)
        self._save_checkpoint()
        return not interrupts.agreed(self.ranks.agreed)  # A signal may have come to one rank, after the last step.

    def _take_steps(self, display: Progress, interrupts: Interrupts) -> bool:
        """Take the steps that an epoch still lacks; return False if a signal has come."""
        number, (U, T, weights) = self.completed + 1, self.samples
        for batch in self.batches(number)[self.epoch.batches :]:
            if interrupts.agreed(self.ranks.agreed):
                return False
            started = time.perf_counter()
            try:
                step = self.trainer.step(U, T, weights, batch)
            except FloatingPointError as reason:
                raise FloatingPointError(f"epoch {number}, batch {self.epoch.batches + 1}: {reason}") from None
            if step.counts.failed and self.model.on_failure == "raise":
                self._refuse(step)
            self.epoch.add(step.loss, step.counts, len(batch), time.perf_counter() - started)
            display.batch_done(number)
        return True

    def _refuse(self, step: Step) -> None:
        """Raise NotConvergedError for a step in which samples did not converge."""
        worse = step.forward.solution if not step.forward.solution.converged else step.backward.solution
        place = f"epoch {self.completed + 1}, batch {self.epoch.batches + 1}"
        raise NotConvergedError(f"{place}: {step.counts.failed} samples not converged.", worse)

    def _check_epoch(self) -> None:
        """Raise FloatingPointError if the loss of the epoch is too large, or a weight or a moment is not finite."""
        self.trainer.update_host()
        loss, number = self.epoch.loss / max(self.epoch.samples, 1), self.completed + 1
        if not loss <= self.limit:
            raise FloatingPointError(f"epoch {number}: the loss rose to {loss:.3g}, beyond {self.limit:.3g}")
        if Snapshot.of(self.model.parameters, self.optimizer).faults() > self.good.faults():
            raise FloatingPointError(f"epoch {number}: a parameter or a moment of the optimizer became inf or NaN")

    def _step_back(self, reason: str, display: Progress) -> None:
        """Go back to the weights of the start of the epoch, and halve the learning rate.

        If that has happened twice in one epoch, its weights are no good ones, and training starts again. If no step was
        taken since then, a smaller rate would not help. Then, and after too many halvings, FloatingPointError is
        raised, and the model has the weights of the start of the epoch.
        """
        taken, self.epoch = self.epoch.batches, Epoch()
        self.good.put_back(self.model.parameters, self.optimizer)
        again = self.here == 2 and self.completed > 0
        if (taken == 0 and not again) or self.halvings == HALVINGS:
            halved = f" The learning rate was halved {self.halvings} times." if self.halvings else ""
            raise FloatingPointError(f"{reason}.{halved} Lower the learning rate, or look for NaN in the data.")
        rate = self.optimizer.halve()
        if again:
            self._start_again(rate)
        self.halvings, self.here = self.halvings + 1, 0 if again else self.here + 1
        place = "the training" if again else "the epoch"
        self.history.events.append(f"{reason}; training went back to the start of {place} with the rate {rate:.3g}")
        display.say(self.history.events[-1])
        self.good = Snapshot.of(self.model.parameters, self.optimizer)
        self.trainer = self.new_trainer()

    def _start_again(self, rate: float) -> None:
        """Go back to the weights of the start of the training, and forget its epochs."""
        self.first.put_back(self.model.parameters, self.optimizer)
        self.optimizer.start(self.total_steps, rate)
        self.history.keep(0)
        self.best, self.best_value, self.best_epoch = None, math.inf, 0

    def _finish_epoch(self, display: Progress) -> None:
        """Record a completed epoch, and decide whether training goes on."""
        history, number, plan = self.history, self.completed + 1, self.plan
        unconverged, samples, seconds = self.epoch.unconverged, self.epoch.samples, self.epoch.seconds
        if unconverged and self.model.on_failure == "warn" and self.ranks.first:
            warn(
                f"epoch {number}: {unconverged} of {samples} samples not converged, forward or adjoint. "
                'Raise mitr and grad_mitr, or try method="anderson".'
            )
        if self.validation is not None:
            value, accuracy, _ = measured(self.model, self.validation, plan.loss, ranks=self.ranks)
            history.validation_loss.append(value)
            if accuracy is not None:
                history.validation_accuracy.append(accuracy)
        weights = self.model.effective_weights()
        history.norm.append(norm_inf(weights.factors))
        history.perron_root.append(perron_root(weights.A).upper)
        history.learning_rate.append(self.optimizer.rate())
        self.epoch.record(history, plan.loss == "cross_entropy")
        self.epoch, self.good, self.here = Epoch(), Snapshot.of(self.model.parameters, self.optimizer), 0
        display.epoch_done(number, history.latest(), seconds)
        self._judge(number)

    def _judge(self, number: int) -> None:
        """Keep the best weights, and stop where they have not become better for long, or where on_epoch says so."""
        history, plan = self.history, self.plan
        if plan.patience is not None:
            value = history.validation_loss[-1] if self.validation is not None else history.loss[-1]
            if value < self.best_value:
                self.best_value, self.best_epoch, self.best = value, number, self.good
            elif number - self.best_epoch >= plan.patience:
                self.stopped = True
                weights = f"are those of epoch {self.best_epoch}" if self.best else "are the last ones"
                history.events.append(
                    f"epoch {number}: stopped, because the loss has not fallen for {number - self.best_epoch} epochs; "
                    f"the weights {weights}"
                )
        if self.ranks.once(self._is_enough):
            self.stopped, self.ended = True, plan.epochs
            history.events.append(f"epoch {number}: stopped by on_epoch")
        if self.ranks.size > 1:  # What on_epoch has changed on the first rank, all have to change.
            parameters, optimizer = self.model.parameters, self.optimizer
            state = self.ranks.once(lambda: None if plan.on_epoch is None else Snapshot.of(parameters, optimizer))
            if state is not None and not self.ranks.first:
                state.put_back(parameters, optimizer)

    def _is_enough(self) -> bool:
        """Call on_epoch, and return whether it ends the training: whether it returns True, of Python or of NumPy."""
        found = None if self.plan.on_epoch is None else self.plan.on_epoch(self.history, self.model)
        return isinstance(found, (bool, np.bool_)) and bool(found)

    def _save_checkpoint(self) -> None:
        """Write the checkpoint, if there is to be one."""
        self.ranks.once(lambda: None if self.plan.checkpoint is None else self.save(self.plan.checkpoint))
