"""This package turns what is proved about implicit models into functions: cascades, and recurrent networks."""

from idl_ref.analysis import compose
from idl_ref.analysis.compose import cascade
from idl_ref.analysis.recurrent import ImplicitRNN
from idl_ref.analysis.trajectory import Trajectory

__all__ = ["ImplicitRNN", "Trajectory", "cascade", "compose"]
