"""Architectures: dataclasses whose fields are their hyperparameters and whose `build` makes a module."""
