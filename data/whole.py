"""Whole numbers: the arrays of a source, as tensors of bytes and labels."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

# numpy's kinds of types that are numbers: booleans, integers and floats.
NUMBERS = "biuf"


def whole(given: np.ndarray, wanted: type[np.integer[Any]]) -> Tensor:
    """Return the values as a tensor of a type of whole numbers.

    Raise ValueError, with their type and span, if the type does not hold each of them.
    """
    if given.size and not _holds(wanted, given):
        span = str(given.dtype)
        if given.dtype.kind in NUMBERS:
            span += f" from {given.min().item():g} to {given.max().item():g}"
        raise ValueError(span)
    # a copy: torch takes no negative strides, no foreign order of bytes and no read-only memory
    return torch.from_numpy(given.astype(wanted, order="C"))


def _holds(wanted: type[np.integer[Any]], given: np.ndarray) -> bool:
    """Return whether a type of whole numbers holds each of the given values."""
    if given.dtype.kind not in NUMBERS:
        return False
    bounds = np.iinfo(wanted)
    if not bounds.min <= given.min().item() <= given.max().item() <= bounds.max:
        return False
    return given.dtype.kind != "f" or bool((given == np.rint(given)).all())
