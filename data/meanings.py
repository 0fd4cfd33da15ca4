"""Meanings by name: what a metric or a stored result says about a score."""

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

# Part of the data: the words for its rows.
ROWS = {
    "train_forget": "forgotten training rows",
    "train_retain": "retained training rows",
    "test_forget": "forgotten test rows",
    "test_retain": "retained test rows",
    "train": "training rows",
    "test": "test rows",
}

# The ending of a flag's name: the budget of a training ended before the score was known.
CENSORED = "_censored"


def on_rows(title: str, part: str) -> str:
    """Return the title of a score on a part of the data, as in "accuracy on test rows"."""
    return f"{title} on {ROWS[part]}"


def key_of(name: str, about: Mapping[str, T]) -> str | None:
    """Return the key of a score's meaning, or None. A number in the name may stand there as `<k>`."""
    numbered = re.sub(r"(?<=_)\d+(?=_|$)", "<k>", name)
    return next((key for key in (name, numbered) if key in about), None)


def meaning(name: str, about: Mapping[str, T]) -> T | None:
    """Return the meaning of a score, or None if there is none."""
    key = key_of(name, about)
    return None if key is None else about[key]
