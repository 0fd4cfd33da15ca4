"""The cost of a method: rows, seconds and memory, counted where batches are handed out."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch

from data.split import Batch, Split
from data.streams import Streams
from methods.training.checkpoint import State
from methods.training.memory import release_freed_memory


@dataclass
class Cost:
    """The cost of some work.

    `gradient_examples` counts rows that went through a forward and a backward pass, and
    `forward_examples` rows that went through a forward pass alone; a row counts once per pass.
    `seconds` is wall-clock time, including the device's, without the `compile_seconds` in which
    `torch.compile` compiled the model. `peak_bytes` is the largest memory held at once, above the memory
    held at the start.
    """

    gradient_examples: int = 0
    forward_examples: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    compile_seconds: float = 0.0


class Progress(Protocol):
    """A display of the rows done, out of the rows expected.

    `expect` begins a new count of `rows`, of which the first `done` were done in an earlier process.
    """

    def expect(self, rows: int, done: int = 0) -> None: ...
    def advance(self, rows: int) -> None: ...


class Quiet:
    """A `Progress` that displays nothing."""

    def expect(self, rows: int, done: int = 0) -> None: ...
    def advance(self, rows: int) -> None: ...


class Meter:
    """Hand out batches, count their rows, and stop at the budget.

    `budget` is the largest number of gradient examples; None means no limit. The batches may end in
    the middle of a pass; `cut` is true from then on. Therefore read two sources together with `zip`, not
    with `next`. A split with fewer rows than a batch makes one batch; `clamped` is then the rows of the
    smallest such split. As a context manager, the meter also measures the time and the peak memory of
    its body.
    """

    def __init__(
        self, device: torch.device, budget: int | None = None, progress: Progress | None = None
    ) -> None:
        self.device = device
        self.budget = budget
        self.progress = progress or Quiet()
        self.cost = Cost()
        self.cut = False  # true once the budget has ended a pass
        self.clamped: int | None = None

    def batches(
        self,
        split: Split,
        size: int,
        streams: tuple[torch.Generator, ...],
        times: int = 1,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """Yield one shuffled and augmented pass, in batches of `size` rows, for gradient steps.

        `streams` come from `pass_streams`. `times` is the number of gradients taken of each row. The
        first `skip` batches, which were counted before, are left out.
        """
        if len(split) < size:
            self.clamped = min(len(split), self.clamped or size)
        order, augment = streams
        return self._counted(islice(split.batches(size, order, augment), skip, None), times)

    def ordered_batches(self, split: Split, size: int, times: int = 1) -> Iterator[Batch]:
        """Yield one pass in order and without augmentation, for gradients that move no weight.

        `times` is the number of gradients taken of each row.
        """
        return self._counted(split.batches(size), times)

    def endless_batches(
        self, split: Split, size: int, streams: tuple[torch.Generator, ...]
    ) -> Iterator[Batch]:
        """Yield pass after pass of `batches`, until the budget ends them."""
        spent = -1
        while spent < self.cost.gradient_examples:  # stop after a pass without a batch
            spent = self.cost.gradient_examples
            yield from self.batches(split, size, streams)

    def forward_batches(self, split: Split, size: int) -> Iterator[Batch]:
        """Yield one pass in order and without augmentation, for forward passes alone."""
        for batch in split.batches(size):
            self.cost.forward_examples += len(batch.rows)
            yield batch
            self.progress.advance(len(batch.rows))

    def count_forward(self, rows: int) -> None:
        """Count further forward passes over rows already handed out, such as another model's."""
        self.cost.forward_examples += rows

    def add(self, *costs: Cost) -> None:
        """Count the rows and seconds of other costs as spent here; their peak memory is ignored."""
        for cost in costs:
            self.cost.gradient_examples += cost.gradient_examples
            self.cost.forward_examples += cost.forward_examples
            self.cost.seconds += cost.seconds
            self.cost.compile_seconds += cost.compile_seconds

    def spend(self, rows: int) -> bool:
        """Count the gradient examples of one step, and return true.

        If the budget does not cover them, or has ended before, count nothing, set `cut` and return
        false. So no later step with fewer rows spends what is left: phases that take turns would lose
        their balance.
        """
        spent = self.cost.gradient_examples + rows
        if self.cut or (self.budget is not None and spent > self.budget):
            self.cut = True
            return False
        self.cost.gradient_examples = spent
        return True

    def elapsed(self) -> float:
        """Return the seconds since the start of the context, without those of `paused`."""
        return self.cost.seconds + now(self.device) - self._started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time and memory of the body out of the cost."""
        started = now(self.device)
        with self._memory.paused():
            yield
        self.cost.seconds -= now(self.device) - started

    def state_dict(self) -> State:
        """Return the cost so far."""
        seconds, peak = self.elapsed(), self._memory.peak()
        return {**asdict(self.cost), "seconds": seconds, "peak_bytes": peak, "cut": self.cut}

    def load_state_dict(self, state: State) -> None:
        """Go on from an earlier cost, in place of what was spent since the start of the context."""
        cost = dict(state)
        self.cut = cost.pop("cut")
        for name, value in cost.items():
            setattr(self.cost, name, value)
        self._memory.load(self.cost.peak_bytes)
        self._started = now(self.device)

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Count the time of the body as compilation, and leave its memory out of the cost."""
        started = now(self.device)
        with self.paused():
            yield
        self.cost.compile_seconds += now(self.device) - started

    def __enter__(self) -> "Meter":
        self._memory = _Memory(self.device)
        self._started = now(self.device)
        return self

    def __exit__(self, *error: object) -> None:
        self.cost.seconds += now(self.device) - self._started
        self.cost.peak_bytes = self._memory.peak()

    def _counted(self, batches: Iterator[Batch], times: int) -> Iterator[Batch]:
        for batch in batches:
            if not self.spend(times * len(batch.rows)):
                return
            yield batch
            self.progress.advance(len(batch.rows))


def now(device: torch.device) -> float:
    """Return a time in seconds, after all that the device was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # kernels run asynchronously
    return time.perf_counter()


def pass_streams(streams: Streams) -> tuple[torch.Generator, torch.Generator]:
    """Return the generators of row order and of augmentation, which all passes of a training share."""
    return streams("order"), streams("augment")


class _Memory:
    """Peak memory above that at the start: of the allocator on a GPU, of the resident set on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0  # the peak before the last pause, above the start
        self._restart()
        self.start = self._held()

    def peak(self) -> int:
        return max(self._before, self._held(peak=True) - self.start)

    def load(self, peak: int) -> None:
        """Go on from the peak of an earlier process."""
        self._before = peak

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._before = self.peak()
        yield
        self._restart()

    def _restart(self) -> None:
        """Reset the recorded peak to the memory held now."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            # Freed memory may stay resident, and new tensors in it would not raise the peak.
            release_freed_memory()
            with suppress(OSError):  # only Linux has this file
                Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM (man 5 proc)

    def _held(self, peak: bool = False) -> int:
        """Return the bytes held now, or the largest number held since `_restart`."""
        if self.device.type == "cuda":
            read = torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated
            return int(read(self.device))
        with suppress(OSError, StopIteration):
            field = "VmHWM:" if peak else "VmRSS:"
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])
        unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kibibytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
