"""Meanings by name: what a metric or a stored result says about a score."""

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def key_of(name: str, about: Mapping[str, T]) -> str | None:
    """Return the key of a score's meaning, or None. A number in the name may stand there as `<k>`."""
    numbered = re.sub(r"(?<=_)\d+(?=_|$)", "<k>", name)
    return next((key for key in (name, numbered) if key in about), None)


def meaning(name: str, about: Mapping[str, T]) -> T | None:
    """Return the meaning of a score, or None if there is none."""
    key = key_of(name, about)
    return None if key is None else about[key]
