"""This package turns theorems about implicit models into functions; cascades of models, and robustness."""

from idl_ref.analysis import compose, robust
from idl_ref.analysis.compose import cascade

__all__ = ["cascade", "compose", "robust"]
