"""This package turns theorems about implicit models into functions; so far, that models are closed under cascade."""

from idl_ref.analysis import compose
from idl_ref.analysis.compose import cascade

__all__ = ["cascade", "compose"]
