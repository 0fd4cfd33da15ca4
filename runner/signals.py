"""The end of a process by a signal: of Ctrl-C, a container, a scheduler, or a terminal that closes.

Within a training the signal waits for the end of the step, so that the training's state can be written.
Anywhere else it acts at once. To act is to call the handler that stood there before, such as submitit's,
which puts a job back into its queue; where there was none, the process ends with one sentence.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)

# Handlers that end the process, and have no work of their own.
PLAIN = (signal.SIG_DFL, signal.default_int_handler)


class Ended(SystemExit):
    """A signal ends the process. The exit code is 128 plus the signal's number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __reduce__(self) -> tuple[type["Ended"], tuple[int]]:
        return Ended, (self.number,)  # a worker process sends it to the one that began it

    def __str__(self) -> str:
        return (
            f"ended by {signal.Signals(self.number).name}: finished stages and the state of a training "
            "are kept, and the same command goes on from there"
        )


class Ending:
    """Handles the signals during `handling`, which has no effect within itself or in another thread."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._waiting: list[tuple[int, FrameType | None]] = []
        self._waits = 0

    @property
    def asked(self) -> bool:
        """Return whether a signal waits for `act`."""
        return bool(self._waiting)

    def act(self) -> None:
        """Do what the waiting signals ask for, in turn, until a handler raises."""
        waiting, self._waiting = self._waiting, []
        for number, frame in waiting:
            before = self._before[number]
            if before in PLAIN:
                raise Ended(number)
            before(number, frame)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let signals wait for `act` during the body, and act on those that still wait after it."""
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits:
                self.act()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Act on signals at once during the body, which lies within a body of `waiting`."""
        waits, self._waits = self._waits, 0
        try:
            self.act()
            yield
        finally:
            self._waits = waits

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Handle the signals during the body."""
        if self._before or threading.current_thread() is not threading.main_thread():
            yield
            return
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # what is ignored stays ignored
                self._before[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            for handled, handler in self._before.items():
                signal.signal(handled, handler)
            self._before, self._waiting, self._waits = {}, [], 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._waiting.append((number, frame))
        if not self._waits:
            self.act()


# Signals belong to the process, so there is one.
ENDING = Ending()
