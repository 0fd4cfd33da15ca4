"""Numbers that a paper printed, to show beside ours."""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import conf
from data.errors import UserError
from runner.results import Result

FOLDER = Path(conf.__file__).parent.parent / "results" / "published"

# The checksums of these files, as sha256sum writes them.
SUMS = "SHA256SUMS"


class Printed(NamedTuple):
    """A printed number, and the names of our data set and model whose rows it stands beside.

    `note` says in what the paper's line differs from ours; it is empty if it does not.
    """

    value: float
    dataset: str
    model: str
    note: str = ""

    def is_of(self, result: Result) -> bool:
        """Return whether the number is of a result's data set and model."""
        return (self.dataset, self.model) == (result.names["dataset"], result.names["model"])


# (line, role, metric) → the printed number, in the order of the file.
Published = Mapping[tuple[str, str, str], Printed]


def read(name: str) -> Published:
    """Return the numbers of `results/published/<name>.csv`. Raise UserError if there is no such file, or
    if it has another checksum than SHA256SUMS says.

    Its columns are `line` (the name of our variant), `role` (as in `Result`), `metric`, and the fields
    of `Printed`. After a change of a file, `sha256sum *.csv > SHA256SUMS` in its folder writes the
    checksums anew.
    """
    return {
        (line["line"], line["role"], line["metric"]): Printed(
            float(line["value"]), line["dataset"], line["model"], line["note"]
        )
        for line in read_cells(name)
    }


def read_cells(name: str) -> list[dict[str, str]]:
    """Return the lines of `results/published/<name>.csv` as printed (see `read`)."""
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        there = sorted(path.stem for path in FOLDER.glob("*.csv"))
        raise UserError(f"table.published={name} is not in {FOLDER}: choose from {', '.join(there)}")
    _check(path)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _check(path: Path) -> None:
    sums = path.with_name(SUMS)
    line = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"
    if not sums.is_file() or line not in sums.read_text().splitlines():
        raise UserError(
            f"{path} differs from its checksum: if you changed it, write the checksums anew with "
            f"(cd {path.parent} && sha256sum *.csv > {SUMS}); if not, it is damaged: git checkout it"
        )


def comparable(published: Published, results: Iterable[Result]) -> Published:
    """Return the printed numbers of which some result has the data set and the model."""
    there = list(results)
    return {key: each for key, each in published.items() if any(map(each.is_of, there))}


def notes(published: Published) -> list[str]:
    """Return one remark per note, with the lines that have it."""
    found: dict[str, dict[str, None]] = {}
    for (line, _, _), each in published.items():
        if each.note:
            found.setdefault(each.note, {})[line] = None
    return [f"the paper's {', '.join(lines)}: {note}" for note, lines in found.items()]
