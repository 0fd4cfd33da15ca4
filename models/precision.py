"""The arithmetic of a model: float32, or bfloat16 in the operations that autocast converts."""

from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from typing import Any

import torch
from torch import Tensor


class Precision(Enum):
    """`fp32`, or `bf16` for bfloat16 autocast with float32 weights."""

    fp32 = "fp32"
    bf16 = "bf16"


def autocast(bf16: bool, device: torch.device) -> AbstractContextManager[Any]:
    """Return a context of bfloat16 autocast on the device if `bf16` is true, or of plain float32."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


def is_emulated(precision: Precision, device: torch.device) -> bool:
    """Return true if `precision` is bfloat16 and the processor has no instructions for it.

    Without AVX-512 PyTorch converts every operand, and a step takes many times as long as in float32.
    """
    slow = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return slow and precision is Precision.bf16


def widened(logits: Tensor) -> Tensor:
    """Return bfloat16 logits as float32, for a loss with more digits, and wider ones as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
