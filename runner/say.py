"""Messages for the user while a command works."""

import sys

from tqdm import tqdm


def say(message: str) -> None:
    """Print a message for the user on stderr, apart from the results on stdout.

    It stands on a line of its own, whatever bars are shown.
    """
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()


def without_estimate(number: int, what: str) -> str:
    """Return that the time of so many things, at least one, is not known."""
    return f"1 {what} has no estimate yet" if number == 1 else f"{number} {what}s have no estimate yet"


def duration(seconds: float) -> str:
    """Return a time in words, in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
