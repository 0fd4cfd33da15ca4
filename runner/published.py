"""What a paper printed, to stand beside our numbers."""

import csv
from collections.abc import Mapping
from pathlib import Path

import conf
from data.errors import UserError

FOLDER = Path(conf.__file__).parent.parent / "results" / "published"

# (line, role, metric) → the printed number, in the order of the file.
Published = Mapping[tuple[str, str, str], float]


def read(name: str) -> Published:
    """The numbers of `results/published/<name>.csv`: columns line, role (as in `Row`), metric, value.
    Raises UserError where there is no such file."""
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        there = sorted(path.stem for path in FOLDER.glob("*.csv"))
        raise UserError(f"table.published={name} is not in {FOLDER}; there are: {there}")
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return {(line["line"], line["role"], line["metric"]): float(line["value"]) for line in lines}
