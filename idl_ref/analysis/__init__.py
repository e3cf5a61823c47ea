"""This package turns what is proved about implicit models into functions, on top of the model."""

from idl_ref.analysis import compose, compress, convert, loops, mondeq, networks, rescaling, robust, sim, wellposedness
from idl_ref.analysis.compose import add, cascade, parallel, stack
from idl_ref.analysis.compress import prune, quantise, truncate
from idl_ref.analysis.convert import from_sklearn, from_torch
from idl_ref.analysis.deviations import deviation
from idl_ref.analysis.loops import feedback
from idl_ref.analysis.mondeq import from_mondeq
from idl_ref.analysis.networks import network, residual, unrolled
from idl_ref.analysis.recurrent import ImplicitRNN
from idl_ref.analysis.rescaling import absorb_diagonal, rescale
from idl_ref.analysis.trajectory import Trajectory
from idl_ref.analysis.wellposedness import Reason, reasons

__all__ = [
    "ImplicitRNN",
    "Reason",
    "Trajectory",
    "absorb_diagonal",
    "add",
    "cascade",
    "compose",
    "compress",
    "convert",
    "deviation",
    "feedback",
    "from_mondeq",
    "from_sklearn",
    "from_torch",
    "loops",
    "mondeq",
    "network",
    "networks",
    "parallel",
    "prune",
    "quantise",
    "reasons",
    "rescale",
    "rescaling",
    "residual",
    "robust",
    "sim",
    "stack",
    "truncate",
    "unrolled",
    "wellposedness",
]
