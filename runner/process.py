"""Process-wide settings, by which a seed always gives the same result and a CPU trains faster."""

import os

import torch

from methods.training.memory import keep_freed_memory


def prepare(device: torch.device, threads: int) -> None:
    """Set the number of threads, keep freed memory for reuse, and choose deterministic GPU kernels.

    The number of threads is fixed because it decides the order of sums, and so their rounding: 1 and 2
    threads differ in the last bits of a step, and in the third decimals after a training.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    if device.type == "cuda":
        # cuBLAS is deterministic only with a workspace of fixed size
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # else every new tensor is filled with NaN first, by a kernel of its own
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.allow_tf32 = False  # TF32 rounds fp32 inputs to 10 bits
