"""The tables of Markdown pages, and the numbers that their cells are held to."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from runner.report import rows

# A cell's number, and its interval if it has one.
NUMBER = re.compile(r"([+-]?[\d,]*\.?\d+)(?: ± ([\d,]*\.?\d+))?")


@dataclass(frozen=True)
class Table:
    """A table of a page: the heading above it, its columns, and its lines as their cells."""

    heading: str
    columns: list[str]
    lines: list[list[str]]


def tables(page: Path) -> Iterator[Table]:
    """Yield the tables of a page."""
    heading, found = "", list[list[str]]()
    for text in [*page.read_text().splitlines(), ""]:
        if text.startswith("|"):
            found.append([cell.strip() for cell in text.strip("|").split("|")])
            continue
        if found:
            yield Table(heading, found[0], found[2:])
            found = []
        if text.startswith("#"):
            heading = text.lstrip("# ")


def markdown(lines: Iterable[Iterable[str]]) -> str:
    """Return the lines of a table, its heads and the line below them included, as Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rounds_to(value: float | str, text: str) -> bool:
    """Return whether a number as it is written is this value, to the digits written; an empty value has
    none."""
    digits = len(text.partition(".")[2])
    return value != "" and abs(float(text.replace(",", "")) - float(value)) <= 0.5 * 10**-digits + 1e-9


def by_line(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Return the lines of a table's CSV, by label and metric."""
    found = defaultdict[str, dict[str, dict[str, str]]](dict)
    with path.open() as file:
        for each in csv.DictReader(file):
            found[each["line"]][each["metric"]] = each
    return dict(found)


def by_seed(path: Path) -> Mapping[tuple[str, str], Mapping[str, list[float]]]:
    """Return the values of all seeds in a file of rows, by variant and role."""
    found = defaultdict[tuple[str, str], dict[str, list[float]]](lambda: defaultdict(list))
    for row in rows.read(path):
        for name, value in row.scores.items():
            found[row.variant, row.role][name].append(value)
    return found


def means(path: Path) -> Mapping[tuple[str, str], Mapping[str, float]]:
    """Return the means over seeds of a file of rows, by variant and role."""
    return {
        at: {name: fmean(each) for name, each in scores.items()} for at, scores in by_seed(path).items()
    }
