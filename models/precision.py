"""The arithmetic of a model: float32, or bfloat16 where autocast allows it."""

from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import Any

import torch


class Precision(Enum):
    """`fp32`, or `bf16` for bfloat16 autocast with float32 weights."""

    fp32 = "fp32"
    bf16 = "bf16"


def autocast(bf16: bool, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed bfloat16 where asked for, plain float32 otherwise."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
