"""Theory as code, on top of the model."""

from idl_ref.analysis import compose
from idl_ref.analysis.compose import cascade

__all__ = ["cascade", "compose"]
