"""The memory of a CPU: kept between steps, and released before it is measured."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from methods.training.cost import Meter
from methods.training.memory import keep_freed_memory

ROOT = Path(__file__).parent.parent
MEBIBYTE = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc, and Linux's resident set")

# Runs the given steps in a fresh process, and prints the MiB held more than at the start. "take"
# allocates 256 MiB and frees them.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from methods.training.memory import release_freed_memory, keep_freed_memory

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

def take():
    blocks = [np.ones(2**20) for _ in range(32)]

start = held()
for step in sys.argv[1:]:
    {"keep": keep_freed_memory, "take": take, "release": release_freed_memory}[step]()
print(held() - start)
"""


def held_after(*steps: str) -> int:
    command = [sys.executable, "-c", PROGRAM, *steps]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def test_freed_memory_is_kept_if_asked_for() -> None:
    assert 240 <= held_after("keep", "take") <= 270


@pytest.mark.parametrize("steps", [["take"], ["keep", "take", "release"]])
def test_released_memory_is_not_held(steps: list[str]) -> None:
    """An upper bound alone: other memory may be released too, so that less is held than at the start."""
    assert held_after(*steps) <= 20


def test_peak_memory_counts_memory_taken_anew_from_what_was_freed() -> None:
    def take(mebibytes: int) -> None:
        _ = [torch.ones(2 * MEBIBYTE) for _ in range(mebibytes // 8)]

    keep_freed_memory()
    take(256)
    with Meter(torch.device("cpu")) as meter:
        take(128)
    assert 0.9 < meter.cost.peak_bytes / (128 * MEBIBYTE) < 1.2
