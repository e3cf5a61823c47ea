"""This module takes training steps whose batch is cut into leaves of a few samples, by one process or by several.

A loss is a mean over m samples. For a leaf of k samples, forward and backward pass give the gradients of (k/m) ℓ, and
the gradients of the batch are the sum over its leaves, in the order of `tree`. The pullback through `f`, and the step
of the optimizer, follow once, after the sum. A batch that is one leaf is a usual step, with the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from idl_ref.backends.numpy import Trainer
from idl_ref.backends.numpy.trainer import Counts, Step
from idl_ref.sparse import Sparse
from idl_ref.training import tree
from idl_ref.training.ranks import Ranks
from idl_ref.training.rows import Some, some_of
from idl_ref.weights import BackwardPass, ForwardPass

PROBE = 64  # So many samples, at most, show whether all ranks compute the same bits.


class Sum(NamedTuple):
    """The part of a step that comes from some leaves: the loss, the gradients of the effective weights, and counts."""

    loss: float
    gradients: tuple[np.ndarray, ...]
    counts: Counts

    def plus(self, other: Sum) -> Sum:
        """Return the part of both."""
        one, two = self.counts, other.counts
        counts = Counts(
            one.right + two.right,
            one.failed + two.failed,
            one.forward_sum + two.forward_sum,
            max(one.forward_most, two.forward_most),
            one.adjoint_sum + two.adjoint_sum,
            max(one.adjoint_most, two.adjoint_most),
        )
        gradients = tuple(G + H for G, H in zip(self.gradients, other.gradients, strict=True))
        return Sum(self.loss + other.loss, gradients, counts)


class Passes:
    """The forward and the backward pass of one leaf: of the first one in which a sample failed, else of the last."""

    def __init__(self) -> None:
        self.pair: tuple[ForwardPass, BackwardPass] | None = None

    def keep(self, forward: ForwardPass, backward: BackwardPass) -> None:
        """Keep the passes of one more leaf, unless a sample of an earlier one has failed."""
        if self.pair is None or (self.pair[0].solution.converged and self.pair[1].solution.converged):
            self.pair = forward, backward


class LeafTrainer:
    """Takes the steps of a trainer, leaf by leaf.

    Parameters
    ----------
    trainer : Trainer
        The trainer of one model on the CPU; on all ranks, with the same parameters.
    micro_batch : int
        The number of samples of a leaf; the last one may have fewer.
    ranks : Ranks
        The processes that share the leaves of a step.
    """

    def __init__(self, trainer: Trainer, micro_batch: int, ranks: Ranks) -> None:
        self.trainer, self.micro_batch, self.ranks = trainer, micro_batch, ranks

    def step(self, U: Some, T: Some, weights: Any, chosen: np.ndarray) -> Step:
        """Take one step with the samples that are `chosen`, of which this rank reads those of its own leaves only.

        The arguments, the errors and the result are those of `Trainer.step`; the passes are those of one leaf.
        """
        leaves = -(-len(chosen) // self.micro_batch)
        if leaves <= 1 and self.ranks.size == 1:
            if isinstance(U, np.ndarray) and isinstance(T, np.ndarray):
                return self.trainer.step(U, T, weights, chosen)
            return self.trainer.step(*some_of(U, T, weights, chosen))
        layer, kept = self.trainer.layer(), Passes()

        def own() -> dict[tree.Node, Sum]:
            """Compute the largest sums that need the leaves of this rank only."""
            first, last = tree.share(leaves, self.ranks.rank, self.ranks.size)
            known = {}
            for k in range(first, last):
                some = chosen[k * self.micro_batch : (k + 1) * self.micro_batch]
                part = self._leaf(layer, some_of(U, T, weights, some), len(some) / len(chosen))
                known[k, k + 1] = part[0]
                kept.keep(*part[1:])
            if kept.pair is None:  # There are more ranks than leaves; a loss of the user's may not know no samples.
                kept.keep(*self._leaf(layer, some_of(U, T, weights, chosen[:1]), 1.0)[1:])
            return {node: tree.total(node, known, Sum.plus) for node in tree.whole_nodes(leaves, (first, last))}

        whole = self.ranks.total(leaves, self.ranks.on_each(own), Sum.plus)
        if not np.isfinite(whole.loss):
            raise FloatingPointError(f"the loss is {whole.loss}")
        assert kept.pair is not None
        forward, backward = kept.pair
        with np.errstate(over="ignore", invalid="ignore"):  # An optimizer that fails on one rank fails on all.
            self.ranks.on_each(lambda: self.trainer.descend(_backward(backward, whole.gradients)))
        return Step(whole.loss, forward, backward, whole.counts)

    def update_host(self) -> None:
        """Do what the trainer does before the parameters are read."""
        self.trainer.update_host()

    def canary(self, U: Some, T: Some, weights: Any) -> str:
        """Return a digest of the outputs and of all gradients for the first samples, as this process computes them."""
        some = np.arange(min(len(U), self.micro_batch, PROBE))
        part, forward, _ = self._leaf(self.trainer.layer(), some_of(U, T, weights, some), 1.0)
        state = hashlib.sha256(np.ascontiguousarray(forward.Y).tobytes())
        for G in part.gradients:
            state.update(np.ascontiguousarray(G).tobytes())
        return state.hexdigest()[:16]

    def _leaf(self, layer: Any, samples: Sequence[Any], share: float) -> tuple[Sum, ForwardPass, BackwardPass]:
        """Return what a leaf contributes, which is its `share` of the batch, and its two passes."""
        U, T, weights = samples
        with np.errstate(over="ignore", invalid="ignore"):  # A step that diverges is an error, and not a warning.
            forward = layer.forward(U.T)
            value, G_Y = self.trainer.loss(forward.Y, T, weights)
            backward = layer.backward(forward, G_Y if share == 1 else G_Y * G_Y.dtype.type(share))
        counts = Counts.of(forward, backward.solution, T if self.trainer.classifies else None)
        return Sum(float(value) * share, _gradients(backward), counts), forward, backward


def _gradients(backward: BackwardPass) -> tuple[np.ndarray, ...]:
    """Return the gradients of all effective weights as arrays, for a sparse A those of its entries."""
    factors = [F.data if isinstance(F, Sparse) else F for F in backward.factors]
    return (*factors, backward.B, backward.C, *(() if backward.D is None else (backward.D,)))


def _backward(like: BackwardPass, gradients: Sequence[np.ndarray]) -> BackwardPass:
    """Return a backward pass with other gradients."""
    count = len(like.factors)
    pairs = zip(like.factors, gradients[:count], strict=True)
    factors = tuple([F.with_data(G) if isinstance(F, Sparse) else G for F, G in pairs])
    B, C, *D = gradients[count:]
    return like._replace(factors=factors, B=B, C=C, D=D[0] if D else None)
