"""Command-line arguments under former names, which work for one release."""

import re
import sys
from collections.abc import Sequence

# The former name of an option group, and its name now.
RENAMED = {"line": "variant"}


def renamed(arguments: Sequence[str]) -> list[str]:
    """Return the arguments under their present names, and name each replacement on stderr."""
    return [_renamed(argument) for argument in arguments]


def _renamed(argument: str) -> str:
    found = re.fullmatch(r"([+~]*)(\w+)(=.*)?", argument, re.DOTALL)
    if found is None or found[2] not in RENAMED:
        return argument
    former, now = found[2], RENAMED[found[2]]
    replaced = f"{found[1]}{now}{found[3] or ''}"
    print(
        f"{former}= is now {now}=: write {replaced}; {former}= will be gone in the next release",
        file=sys.stderr,
        flush=True,
    )
    return replaced
