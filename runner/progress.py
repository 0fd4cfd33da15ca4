"""Progress of work that counts rows: a bar on a terminal, and lines in a log."""

import sys
import time
from typing import Never

from tqdm import tqdm

from methods.training.cost import Progress
from runner.say import duration, say

# The seconds between two lines of a log.
PAUSE = 60.0


class Bar:
    """A bar that counts the rows done, or a line every minute if stdout is no terminal.

    The bar appears after `delay` seconds. Set 0 for work that reports no progress, to show its label at
    once: until rows are reported, it shows its label alone.
    """

    def __init__(self, label: str, delay: float = 1) -> None:
        self.label = label
        self.delay = delay

    def __enter__(self) -> Progress:
        self._bar = tqdm(
            desc=self.label,
            unit=" rows",
            unit_scale=True,
            delay=self.delay,
            leave=False,
            disable=not sys.stdout.isatty(),
            bar_format="{desc} …",
        )
        return RowLines(self.label) if self._bar.disable else _Counted(self._bar)

    def __exit__(self, *error: object) -> None:
        self._bar.close()


class _Counted:
    """The rows of a bar."""

    def __init__(self, bar: "tqdm[Never]") -> None:
        self.bar = bar

    def expect(self, rows: int, done: int = 0) -> None:
        self.bar.bar_format = None
        self.bar.reset(rows)
        self.bar.initial = self.bar.n = done  # the rate is that of the rows after them

    def advance(self, rows: int) -> None:
        self.bar.bar_format = None
        self.bar.update(rows)


class RowLines:
    """Says how many rows are done, every minute."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.said = time.monotonic()
        self.expect(0)

    def expect(self, rows: int, done: int = 0) -> None:
        self.begun, self.rows, self.first, self.done = time.monotonic(), rows, done, done

    def advance(self, rows: int) -> None:
        self.done += rows
        now = time.monotonic()
        if now - self.said >= PAUSE:
            self.said = now
            say(f"{self.label}: {self._share(now - self.begun)}")

    def _share(self, elapsed: float) -> str:
        if self.done > self.rows:  # of work that does not know beforehand how many rows it takes
            return f"{self.done:,} rows"
        left = elapsed * (self.rows - self.done) / (self.done - self.first)
        return f"{self.done / self.rows:.0%} of {self.rows:,} rows, about {duration(left)} left"
