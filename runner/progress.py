"""Progress bars on a terminal, for work that takes longer than a second."""

import sys
from types import TracebackType

from tqdm import tqdm


class Bar:
    """A bar that counts the rows done, and shows nothing if stdout is no terminal.

    It appears after `delay` seconds. Set 0 for work that reports no progress, to show its label at once:
    until rows are reported, it shows its label alone.
    """

    def __init__(self, label: str, delay: float = 1) -> None:
        self.label = label
        self.delay = delay

    def __enter__(self) -> "Bar":
        self._bar = tqdm(
            desc=self.label,
            unit=" rows",
            unit_scale=True,
            delay=self.delay,
            leave=False,
            disable=not sys.stdout.isatty(),
            bar_format="{desc} …",
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def expect(self, rows: int) -> None:
        """Set the number of rows in all."""
        self._bar.bar_format = None
        self._bar.total = rows

    def advance(self, rows: int) -> None:
        """Count rows as done."""
        self._bar.bar_format = None
        self._bar.update(rows)
