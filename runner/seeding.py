"""The process-wide switches that make one seed give one result."""

import os

import torch


def prepare(device: torch.device, threads: int) -> None:
    """Fixes the thread count, and asks for deterministic kernels where a GPU offers a choice.

    Sums over threads round differently: 1 and 2 threads give different last bits, and different
    third decimals after a training.
    """
    torch.set_num_threads(threads)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
