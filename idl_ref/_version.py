"""The version of the package, in one place: the build reads it here, and what the package writes names it."""

__version__ = "0.1.0"
