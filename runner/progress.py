"""Progress bars for what takes longer than a second, where somebody is looking."""

import sys
from types import TracebackType

from tqdm import tqdm


class Bar:
    """Rows done, of rows expected, after a second; nothing at all where stdout is no terminal.

    `delay` 0 shows the label at once: for work that cannot say how far it is.
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
        self._bar.total = rows

    def advance(self, rows: int) -> None:
        self._bar.update(rows)
