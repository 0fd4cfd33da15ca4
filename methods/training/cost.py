"""What a method costs, counted where it gets its data."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import torch

from data.split import Batch, Split
from data.streams import Streams
from methods.training.memory import release_freed_memory


@dataclass
class Cost:
    """`gradient_examples`: rows that went through a forward and a backward pass.
    `forward_examples`: rows that went through a forward pass alone. `seconds`: wall clock, with the
    device waited for. `peak_bytes`: most memory held at once, above what was held at the start."""

    gradient_examples: int = 0
    forward_examples: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0


class Progress(Protocol):
    """Something that shows how many rows are done, of how many."""

    def expect(self, rows: int) -> None: ...
    def advance(self, rows: int) -> None: ...


class Quiet:
    """Shows nothing."""

    def expect(self, rows: int) -> None: ...
    def advance(self, rows: int) -> None: ...


class Meter:
    """Hands out batches, counts them, and ends the supply at the budget.

    `budget` is the most gradient-examples that may be spent; null for no limit. A supply may end in
    the middle of a pass: pair two supplies with `zip`, not with `next`. Used as a context manager it
    takes the time and the peak memory of its body.
    """

    def __init__(
        self, device: torch.device, budget: int | None = None, progress: Progress | None = None
    ) -> None:
        self.device = device
        self.budget = budget
        self.progress = progress or Quiet()
        self.cost = Cost()
        self.cut = False  # whether the budget ended a supply

    def batches(
        self, split: Split, size: int, streams: tuple[torch.Generator, ...], times: int = 1
    ) -> Iterator[Batch]:
        """One shuffled and augmented pass for gradient steps; `streams` are those of `pass_streams`.
        `times`: how many gradients will be taken of each row."""
        order, augment = streams
        return self._counted(split.batches(size, order, augment), times)

    def ordered_batches(self, split: Split, size: int, times: int = 1) -> Iterator[Batch]:
        """One pass in order, without augmentation, for gradients that move no weight; `times` of each
        row."""
        return self._counted(split.batches(size), times)

    def _counted(self, batches: Iterator[Batch], times: int) -> Iterator[Batch]:
        for batch in batches:
            if not self.spend(times * len(batch.rows)):
                return
            yield batch
            self.progress.advance(len(batch.rows))

    def count_forward(self, rows: int) -> None:
        """Counts forward passes over rows that were handed out before: another model's, or another
        look at them."""
        self.cost.forward_examples += rows

    def forward_batches(self, split: Split, size: int) -> Iterator[Batch]:
        """One pass in order, without augmentation, for forward passes alone."""
        for batch in split.batches(size):
            self.cost.forward_examples += len(batch.rows)
            yield batch
            self.progress.advance(len(batch.rows))

    def add(self, *costs: Cost) -> None:
        """Counts what was spent elsewhere as spent here; no peak of memory is known of it."""
        for cost in costs:
            self.cost.gradient_examples += cost.gradient_examples
            self.cost.forward_examples += cost.forward_examples
            self.cost.seconds += cost.seconds

    def spend(self, rows: int) -> bool:
        """Counts a gradient step on so many images, wherever they come from; false, and nothing
        counted, where the budget does not reach so far."""
        spent = self.cost.gradient_examples + rows
        if self.budget is not None and spent > self.budget:
            self.cut = True
            return False
        self.cost.gradient_examples = spent
        return True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What the body takes, time or memory, is no cost."""
        started = self._now()
        with self._memory.paused():
            yield
        self.cost.seconds -= self._now() - started

    def __enter__(self) -> "Meter":
        self._memory = _Memory(self.device)
        self._started = self._now()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cost.seconds += self._now() - self._started
        self.cost.peak_bytes = self._memory.peak()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def pass_streams(streams: Streams) -> tuple[torch.Generator, torch.Generator]:
    """The generators of order and augmentation that the passes of one training share."""
    return streams("order"), streams("augment")


class _Memory:
    """Peak memory above the start: the allocator's on a GPU, the process's resident set elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0  # the peak up to the last pause
        self._restart()
        self.start = self._held()

    def peak(self) -> int:
        return max(self._before, self._held(peak=True) - self.start)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._before = self.peak()
        yield
        self._restart()

    def _restart(self) -> None:
        """A new high-water mark."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            release_freed_memory()  # what was freed before would hide what is taken now
            with suppress(OSError):  # Linux has one
                Path("/proc/self/clear_refs").write_text("5")

    def _held(self, peak: bool = False) -> int:
        if self.device.type == "cuda":
            read = torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated
            return int(read(self.device))
        with suppress(OSError, StopIteration):
            field = "VmHWM:" if peak else "VmRSS:"
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
