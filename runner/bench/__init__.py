"""Benchmarks: every figure beside a named baseline that was measured in the same run.

    python -m runner.bench [group …] [--json FILE]

A group is a module of this package with a function `figures`.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measured value beside its baseline's; `ratio` is the value over the baseline's."""

    name: str
    value: float
    unit: str
    baseline: str
    baseline_value: float

    @property
    def ratio(self) -> float:
        return self.value / self.baseline_value


def seconds(*bodies: Callable[[], object], repeats: int = 5) -> list[float]:
    """The median time of the first body, and of every other one the first's times the median of their
    ratios turn by turn: a machine's moods last longer than a turn. A first turn is not counted."""
    times: list[list[float]] = [[] for _ in bodies]
    for _ in range(repeats + 1):
        for body, taken in zip(bodies, times, strict=True):
            start = time.perf_counter()
            body()
            taken.append(time.perf_counter() - start)
    first = times[0][1:]
    usual = statistics.median(first)
    return [
        usual * statistics.median(a / b for a, b in zip(taken[1:], first, strict=True))
        for taken in times
    ]
