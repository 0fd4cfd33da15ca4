"""results/metrics.md holds the numbers and the verdicts of the files beside it."""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

RESULTS = Path(__file__).parent.parent / "results"

# The heads of the sections, as they begin, and the files of their tables.
SECTIONS = {
    "A class: digit 3 of MNIST": "metrics_mnist_class",
    "Random rows: 500 of 5,000 of MNIST": "metrics_mnist_random",
    "A part of a class: the rockets": "metrics_cifar20_part",
    "Random rows: 100 of 1,000 of CIFAR-10": "metrics_cifar10_random",
    "A class: class 3 of CIFAR-10": "metrics_cifar10_class",
    "U-LiRA with 16 shadow models": "metrics_privacy",
}

# The verdicts of a file as tables abbreviate them.
SHORT = {"under-forgets": "under", "over-forgets": "over", "unclear": "?", "": ""}

Rows = Mapping[tuple[str, str], Mapping[str, str]]

# The name of a table, the label of a line, the head of a column, and the text of the cell.
Cell = tuple[str, str, str, str]


def rows_of(name: str) -> Rows:
    """Return the rows of a file by their line and the head of their metric."""
    with (RESULTS / f"{name}.csv").open(newline="") as file:
        return {(row["line"], row["metric"].replace("_", " ")): row for row in csv.DictReader(file)}


def cells_of(section: str) -> Iterator[Cell]:
    """Yield the cells of the tables of a section whose heads are those of a file."""
    page = (RESULTS / "metrics.md").read_text()
    text = next(part for part in page.split("\n## ") if part.startswith(section))
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        heads, _, *lines = [
            [each.strip() for each in line.strip("|\n").split("|")] for line in block.splitlines()
        ]
        if heads[0] or "train forget accuracy" in heads:  # those of † have words of their own
            for label, *cells in lines:
                yield from (
                    (heads[0], label, head, cell) for head, cell in zip(heads[1:], cells, strict=True)
                )


def expected(rows: Rows, table: str, label: str, head: str) -> str:
    """Return the text of a cell by a file, without the number of seeds behind it."""
    row = rows[label, head]
    verdict = SHORT.get(row["verdict"], row["verdict"])
    if table == "verdicts":
        return verdict
    if label == "retrain" and not row["half_width"]:  # of one seed: the mean over all models counts
        named = (each for (_, metric), each in rows.items() if metric == head)
        row = next(each for each in named if each["null_half_width"])
        return _number(row["null_mean"], row["null_half_width"], "")
    if not table:
        return _number(row["value"], row["half_width"], "")
    # a score of a cell has no gap, and one that compares with the seed's retrained model is its own gap
    if not row["gap"] or math.isclose(float(row["gap"]), float(row["value"])):
        half = row["difference_half_width"] if row["half_width"] else ""
        return f"{_number(row['difference'], half, '+')} {verdict}"
    return f"{_number(row['gap'], row['gap_half_width'], '+')} {verdict}"


def _number(value: str, half: str, sign: str) -> str:
    return f"{float(value):{sign}.3f}" + (f" ± {float(half):.3f}" if half else "")


@pytest.mark.parametrize("section", SECTIONS)
def test_the_tables_of_the_page_hold_what_its_files_say(section: str) -> None:
    rows, cells = rows_of(SECTIONS[section]), list(cells_of(section))
    shown = {cell: re.sub(r" \(n=\d+\)", "", cell[3]) for cell in cells if cell[3] not in ("", "—")}
    assert len(shown) > 50
    wrong = {cell: found for cell, text in shown.items() if (found := expected(rows, *cell[:3])) != text}
    assert not wrong
