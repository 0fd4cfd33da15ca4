"""Messages for the user while a command works."""

import sys

from tqdm import tqdm


def say(message: str) -> None:
    """Print a message for the user on stderr, apart from the results on stdout.

    It stands on a line of its own, whatever bars are shown.
    """
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()
