"""Messages for the user while a command works."""

import sys


def say(message: str) -> None:
    """Print a message for the user on stderr, apart from the results on stdout."""
    print(message, file=sys.stderr, flush=True)
