"""Numbers that a paper printed, to show beside ours."""

import csv
from collections.abc import Mapping
from pathlib import Path

import conf
from data.errors import UserError

FOLDER = Path(conf.__file__).parent.parent / "results" / "published"

# (line, role, metric) → the printed number, in the order of the file.
Published = Mapping[tuple[str, str, str], float]


def read(name: str) -> Published:
    """Return the numbers of `results/published/<name>.csv`. Raise UserError if there is no such file.

    Its columns are `line` (the name of our variant), `role` (as in `Result`), `metric` and `value`.
    """
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        there = sorted(path.stem for path in FOLDER.glob("*.csv"))
        raise UserError(f"table.published={name} is not in {FOLDER}: choose from {there}")
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return {(line["line"], line["role"], line["metric"]): float(line["value"]) for line in lines}
