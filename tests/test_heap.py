"""The memory of a CPU: kept between steps, given back before it is measured."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from methods.training.cost import Meter
from methods.training.memory import keep_freed_memory

ROOT = Path(__file__).parent.parent
MEBIBYTE = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap, and Linux's resident set")

# Does as it is told in a fresh process, and prints how many MiB are held then; what is taken is freed.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from methods.training.memory import release_freed_memory, keep_freed_memory

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

def take():
    blocks = [np.ones(2**20) for _ in range(32)]  # 256 MiB

start = held()
for step in sys.argv[1:]:
    {"keep": keep_freed_memory, "take": take, "give": release_freed_memory}[step]()
print(held() - start)
"""


@pytest.mark.parametrize(
    ("steps", "least", "most"),
    [(["take"], 0, 20), (["keep", "take"], 240, 270), (["keep", "take", "give"], 0, 20)],
)
def test_freed_memory_is_kept_until_it_is_given_back(steps: list[str], least: int, most: int) -> None:
    command = [sys.executable, "-c", PROGRAM, *steps]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert least <= int(done.stdout) <= most


def test_peak_memory_is_counted_though_freed_memory_is_kept() -> None:
    def take(mebibytes: int) -> None:
        _ = [torch.ones(2 * MEBIBYTE) for _ in range(mebibytes // 8)]

    keep_freed_memory()
    take(256)
    with Meter(torch.device("cpu")) as meter:
        take(128)
    assert 0.9 < meter.cost.peak_bytes / (128 * MEBIBYTE) < 1.2
