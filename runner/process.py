"""The process-wide switches: what makes one seed give one result, and a CPU's steps quick."""

import os

import torch

from methods.training.memory import keep_freed_memory


def prepare(device: torch.device, threads: int) -> None:
    """Fixes the thread count, keeps freed memory for the next step, and asks for deterministic kernels
    where a GPU offers a choice.

    Sums over threads round differently: 1 and 2 threads give different last bits, and different
    third decimals after a training.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
