"""Architectures: dataclasses of hyperparameters, whose `build` returns a module."""
