"""The interrupt of a sweep: by Ctrl-C, a container, a scheduler, or a terminal that closes."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from runner.say import say

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# The exit code of a program that Ctrl-C ended: 128 and the number of SIGINT.
INTERRUPTED = 130


@contextmanager
def interruptible(end: Callable[[], str]) -> Iterator[None]:
    """On one of these signals in the body, call `end`, print what it says, and exit with 130."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # a second Ctrl-C must not stop the end
        raise KeyboardInterrupt

    handled = [each for each in SIGNALS if signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, interrupt) for each in handled}
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted: {end()}; finished stages are kept, and the same command goes on")
        sys.exit(INTERRUPTED)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
