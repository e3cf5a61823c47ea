"""Planted bugs: the plain backend with one method changed."""
