"""One JSON row per run, and the tidy frame of many."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from data.errors import UserError

if TYPE_CHECKING:  # a report needs no torch, and pandas only when it renders
    import pandas as pd

    from metrics.predictions import Matrix

# The models of a row that are not its own, as they are called in tables.
SHARED = {"original": "original", "reference": "retrain"}


@dataclass
class Row:
    """What one run found. `scores`, `costs`, `weights` (checksums) and `provenance` are by role:
    original, unlearned, repaired, reference; `names` are those of the chosen options; `setting` names
    the comparison and `cells`, by role, the run's own lines in it, whatever the seed; `status` is done
    or diverged."""

    name: str
    key: str
    seed: int | None
    names: Mapping[str, str]
    setting: str
    cells: Mapping[str, str]
    parameters: Mapping[str, Any]
    overrides: list[str]
    artefacts: list[tuple[str, str]]
    weights: Mapping[str, str]
    provenance: Mapping[str, Mapping[str, Any]]
    status: str
    error: str | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """The folder of all rows: `root/<name>/<key>.json`, and matrices in `root/<name>/matrices`."""

    root: Path

    def require_writable(self) -> None:
        """Raises UserError where rows could not be written, before they are computed."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise UserError(
                f"cannot write to {self.root} ({error.strerror}): choose a folder with paths.root=…"
            ) from error

    def write(self, row: Row, matrices: "Mapping[str, Mapping[str, Matrix]]") -> None:
        """Puts the row in place of an earlier one of the same key, all or nothing. Matrices (by role
        and name) go to a file of their own, so that a thousand rows stay quick to read.

        A row that says the same and less (without the reference, or without the training rows) leaves
        one that says more as it is; so does one of a run that diverged, in whatever else it made."""
        path = self.root / row.name / f"{row.key}.json"
        if path.exists():
            earlier = _read(path)
            same = earlier.weights.get("unlearned") == row.weights.get("unlearned")
            less = row.status != "done" or (same and _said(row) < _said(earlier))
            if earlier.status == "done" and less:
                return
        if any(matrices.values()):
            _write(self._matrices(row), matrices, indent=None)
        _write(path, asdict(row), indent=1)

    def rows(self, name: str) -> list[Row]:
        """The rows of a name, by seed. Raises UserError where there are none."""
        found = [_read(path) for path in (self.root / name).glob("*.json")]
        if not found:
            there = sorted(path.name for path in self.root.glob("*/"))
            raise UserError(f"no results are named {name} in {self.root}; there are: {there}")
        return sorted(found, key=lambda row: (row.seed or 0, row.key))

    def matrices(self, row: Row) -> "dict[str, dict[str, Matrix]]":
        """The matrices of a row, by role and name; none where they were not kept."""
        path = self._matrices(row)
        if not path.exists():
            return {}
        with _naming(path):
            found: dict[str, dict[str, Matrix]] = json.loads(path.read_text())
        return found

    def _matrices(self, row: Row) -> Path:
        return self.root / row.name / "matrices" / f"{row.key}.json"


def models(rows: list[Row]) -> Iterator[tuple[str, str, Row, str]]:
    """Every model that was scored, as the line of the table that it belongs to (setting and cell), and
    its row and role; those that many rows share come once for each."""
    for row in rows:
        again = shared_role(row)
        for role in row.scores:
            if not (role == "unlearned" and again):
                yield row.setting, row.cells.get(role, role), row, role


def tidy(rows: list[Row]) -> "pd.DataFrame":
    """One line per model and number: `setting`, `cell`, `method`, `seed`, `metric`, `value`, and `gap`,
    the value less the reference's of the same run, where both have the number.

    The originals and references that many runs share appear once per setting and seed.
    """
    import pandas as pd

    lines = []
    for setting, cell, row, role in models(rows):
        reference = row.scores.get("reference", {})
        where = (setting, cell, SHARED.get(role, row.names["method"]), row.seed)
        for name, value in (*row.scores[role].items(), *row.costs[role].items()):
            gap = value - reference[name] if name in reference else None
            lines.append((*where, name, value, gap))
    columns = ["setting", "cell", "method", "seed", "metric", "value", "gap"]
    frame = pd.DataFrame(lines, columns=columns)
    return frame.drop_duplicates(["setting", "cell", "seed", "metric"], ignore_index=True)


def _said(row: Row) -> set[tuple[str, str]]:
    """Which numbers of which models a row holds."""
    return {(role, name) for role, scores in row.scores.items() for name in scores}


def shared_role(row: Row) -> str | None:
    """The role of which the run's own model is the same over again, as method=original's is; or None."""
    for role, method in SHARED.items():
        same = role in row.weights and row.weights[role] == row.weights.get("unlearned")
        if same and row.names["method"] == method:
            return role
    return None


def _read(path: Path) -> Row:
    """Raises UserError where the file holds no row."""
    with _naming(path):
        return Row(**json.loads(path.read_text()))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run again") from error


def _write(path: Path, value: Any, indent: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}-{uuid4().hex}.tmp")
    try:
        scratch.write_text(json.dumps(value, indent=indent))
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
