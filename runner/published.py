"""Numbers that a paper printed, to show beside ours."""

import csv
import hashlib
from collections.abc import Mapping
from pathlib import Path

import conf
from data.errors import UserError

FOLDER = Path(conf.__file__).parent.parent / "results" / "published"

# The checksums of these files, as sha256sum writes them.
SUMS = "SHA256SUMS"

# (line, role, metric) → the printed number, in the order of the file.
Published = Mapping[tuple[str, str, str], float]


def read(name: str) -> Published:
    """Return the numbers of `results/published/<name>.csv`. Raise UserError if there is no such file, or
    if it has another checksum than SHA256SUMS says.

    Its columns are `line` (the name of our variant), `role` (as in `Result`), `metric` and `value`.
    After a change of a file, `sha256sum *.csv > SHA256SUMS` in its folder writes the checksums anew.
    """
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        there = sorted(path.stem for path in FOLDER.glob("*.csv"))
        raise UserError(f"table.published={name} is not in {FOLDER}: choose from {there}")
    _check(path)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return {(line["line"], line["role"], line["metric"]): float(line["value"]) for line in lines}


def _check(path: Path) -> None:
    sums = path.with_name(SUMS)
    line = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"
    if not sums.is_file() or line not in sums.read_text().splitlines():
        raise UserError(
            f"{path} differs from its checksum: if you changed it, write the checksums anew with "
            f"(cd {path.parent} && sha256sum *.csv > {SUMS}); if not, it is damaged: git checkout it"
        )
