"""This package turns theorems about implicit models into functions: they are closed under cascade, and learn states."""

from idl_ref.analysis import compose, sim
from idl_ref.analysis.compose import cascade

__all__ = ["cascade", "compose", "sim"]
