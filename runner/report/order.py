"""The order of a table's lines: the original, the retrained models, then methods by their closeness to
retraining."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import inf
from statistics import mean
from typing import Any

from data.meanings import ROWS
from runner.report.labels import Description
from runner.results import Line
from runner.roles import ORIGINAL

ACCURACIES = {f"{part}_accuracy" for part in ROWS}


def ranking_columns(columns: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the scores that closeness is measured by: the accuracies among a table's columns, or all
    accuracies on a part of the data that any line has, if the table shows none."""
    shown = [column for column in columns if column in ACCURACIES and column in known]
    return shown or sorted(ACCURACIES & set(known))


def closeness(
    lines: Iterable[Line], columns: Sequence[str], gap: Callable[[Line, str], float]
) -> dict[Line, float]:
    """Return each line's mean of |score − retrained models' score| over the columns that it has.

    `gap` gives the difference, NaN if there is none. A line without any has no entry.
    """
    found = {}
    for line in lines:
        gaps = [abs(each) for column in columns if (each := gap(line, column)) == each]
        if gaps:
            found[line] = mean(gaps)
    return found


def in_order(
    lines: Iterable[Line],
    described: Mapping[Line, Description],
    named: Mapping[Line, str],
    gaps: Mapping[Line, float],
) -> list[Line]:
    """Sort lines by setting, then by the place of their role, then by their closeness, then by label.

    Settings are sorted by the labels of their originals. Numbers in labels are sorted by size. Lines
    without a gap are last of their place.
    """

    def place(line: Line) -> Any:
        original = Line(line.setting, ORIGINAL.name)
        own = described[line].role.place, round(gaps.get(line, inf), 9), _by_size(named[line])
        return _by_size(named[original]), line.setting, *own

    return sorted(lines, key=place)


def _by_size(label: str) -> list[str | float]:
    """Split a label into words and numbers in turn, as a key for sorting."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return [float(part) if number % 2 else part for number, part in enumerate(parts)]
