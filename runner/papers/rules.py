"""Printed tables: their numbers, and the rules of the verdicts on them, from results/published."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from runner.published import FOLDER, read_cells


class PrintedCell(NamedTuple):
    """A printed number: of the model of a role in a line of our table, which is a variant.

    `text` is the number as printed, and `rounding` half of its last digit. It is about `dataset` and
    `model`.
    """

    line: str
    role: str
    metric: str
    text: str
    rounding: float
    dataset: str
    model: str

    @property
    def value(self) -> float:
        """The printed number."""
        return float(self.text)


@dataclass(frozen=True)
class VerdictRule:
    """The rule of all verdicts: the level of the prediction interval, and the fewest runs to differ."""

    level: float
    fewest: int


@dataclass(frozen=True)
class Table:
    """The printed cells of one table, and what its verdicts rest on.

    `apart` says by scale why our runs are not comparable; scales that it lacks are. `instead` and
    `metrics` name, by scale, our lines and our scores that stand for printed ones. `differs` holds the
    reasons of differences: the first whose `line`, `role` and `metric` fit counts. `ranks` is the
    line of the retrained model if only orders and gaps can be compared.
    """

    name: str
    cells: list[PrintedCell]
    apart: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    differs: list[Mapping[str, str]] = field(default_factory=list)
    ranks: str | None = None

    def reason(self, cell: PrintedCell) -> str:
        """Return why our number differs from a printed one; empty if no reason is known."""
        for each in self.differs:
            if all(
                getattr(cell, name) == each[name] for name in ("line", "role", "metric") if name in each
            ):
                return each["why"]
        return ""


def names() -> list[str]:
    """Return the names of all printed tables."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


@cache
def rule() -> VerdictRule:
    """Return the rule of all verdicts."""
    return VerdictRule(**_yaml("rule"))


def table(name: str) -> Table:
    """Return a printed table. Raise UserError if there is none of this name."""
    return Table(name, [_cell(line) for line in read_cells(name)], **_yaml(name))


def _cell(line: Mapping[str, str]) -> PrintedCell:
    digits = len(line["value"].partition(".")[2])
    return PrintedCell(
        line["line"], line["role"], line["metric"], line["value"], 0.5 * 10**-digits,
        line["dataset"], line["model"],
    )  # fmt: skip


def _yaml(name: str) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
