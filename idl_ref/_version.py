"""This file holds the version of the package. The build reads it, and files that the package writes contain it."""

__version__ = "0.1.0"
