"""Check published results: what the store's results hold now of every number in a committed table."""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from data.errors import UserError
from runner.report import Report, rows
from runner.results import Result, Results

# The tables of a name, the one with the most to hold against first: one line per model and seed, or one
# per cell of the table.
TABLES = ("_rows.csv", ".csv")

# Numbers that a clock, or the memory of a machine, gives: no two runs have the same.
MEASURED = re.compile(r"\w*seconds|peak_bytes|speed_up")

# The columns that say what a line is of.
ABOUT = {*rows.ABOUT, "line", "metric"}

# What a line of a table belongs to: a key and a role, or a line's label and a metric.
Place = tuple[str, str]

Numbers = Mapping[Place, Mapping[str, float]]


@dataclass(frozen=True)
class Mismatch:
    """A number that was published, and the one that the results hold now; None if they hold none."""

    line: str
    score: str
    published: float
    now: float | None


@dataclass(frozen=True)
class Checked:
    """The numbers of a table: how many agree digit for digit, the others, and what makes those that are
    missing."""

    table: Path
    results: Path
    agree: int
    differing: list[Mismatch]
    missing: list[Mismatch]
    commands: list[str]

    @property
    def holds(self) -> bool:
        """Whether every number agrees."""
        return not self.differing and not self.missing

    def text(self) -> str:
        """Return the counts, the numbers that differ, the lines that are missing, and the commands."""
        total = self.agree + len(self.differing) + len(self.missing)
        parts = [
            f"{self.table} against {self.results}: of {total} numbers {self.agree} agree digit for "
            f"digit, {len(self.differing)} differ, {len(self.missing)} are missing; times and peak "
            "memory are not compared"
        ]
        if self.differing:
            lines = [
                (each.line, each.score, each.published, each.now, f"{each.now - each.published:+.3g}")
                for each in self.differing
                if each.now is not None
            ]
            heads = ["differs", "score", "published", "now", "difference"]
            parts.append(tabulate(lines, headers=heads, disable_numparse=True))
        if self.missing:
            absent = dict.fromkeys(each.line for each in self.missing)
            parts.append("\n".join(["missing:", *(f"  {line}" for line in absent)]))
            commands = self.commands or ["the file beside the table names none"]
            parts.append("\n".join(["made by:", *(f"  {each}" for each in commands)]))
        return "\n\n".join(parts)


def check(place: Path, root: Path, name: str | None = None) -> Checked:
    """Hold a published table against the results below `paths.root`.

    `place` is the table without its ending, as results/paper004_table1, or one of its files. `name` is
    that of the results, if it is another one. Raise UserError if there is no table.
    """
    stem, table = _table(place)
    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    folder = Results(root / "results")
    called = name or stem.name
    results = folder.named(called) if folder.has(called) else []
    by_key = bool(lines) and "key" in lines[0]
    now = _of_results(results) if by_key else _of_report(results)
    agree, others = 0, []
    for line in lines:
        at = (line["key"], line["role"]) if by_key else (line["line"], line["metric"])
        for score, value in _numbers(line, by_key):
            found = now.get(at, {}).get(score)
            if found == value:
                agree += 1
            else:
                others.append((line, Mismatch(_label(line, by_key), score, value, found)))
    missing = [(line, each) for line, each in others if each.now is None]
    commands = _commands(stem, [line for line, _ in missing]) if missing else []
    differing = [each for _, each in others if each.now is not None]
    shown = folder.root / (name or stem.name)
    return Checked(table, shown, agree, differing, [each for _, each in missing], commands)


def _table(place: Path) -> tuple[Path, Path]:
    """Return the path of a published table without an ending, and the file to hold against."""
    stem = place.parent / re.sub(r"(_rows)?\.(csv|md|tex)$", "", place.name)
    for ending in TABLES:
        if (found := stem.parent / f"{stem.name}{ending}").is_file():
            return stem, found
    tables = sorted(path.stem for path in stem.parent.glob("*.csv")) if stem.parent.is_dir() else []
    cure = (
        f"choose from {', '.join(tables)} in {stem.parent}"
        if tables
        else "name one, as in results/<name>"
    )
    raise UserError(f"{stem} has no table: {cure}")


def _numbers(line: Mapping[str, str], by_key: bool) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a line that can be compared, by the names of their scores or columns."""
    if not by_key and MEASURED.fullmatch(line["metric"]):
        return
    for name, text in line.items():
        if name in ABOUT or MEASURED.fullmatch(name):
            continue
        try:
            value = float(text)
        except ValueError:
            continue
        if not math.isnan(value):  # as the interval of one seed is
            yield name, value


def _of_results(results: Iterable[Result]) -> Numbers:
    """Return the scores and costs of every model by its key and role."""
    return {
        (result.key, role): {**scores, **result.costs.get(role, {})}
        for result in results
        for role, scores in result.scores.items()
    }


def _of_report(results: list[Result]) -> Numbers:
    """Return the numbers of the table that the results give now, by its line and metric."""
    if not results:
        return {}
    lines = csv.DictReader(io.StringIO(Report(results, []).csv()))
    return {(line["line"], line["metric"]): dict(_numbers(line, False)) for line in lines}


def _label(line: Mapping[str, str], by_key: bool) -> str:
    if not by_key:
        return f"{line['line']}, {line['metric']}"
    return f"{line['variant']}, {line['role']}, seed {line['seed']}"


def _commands(stem: Path, missing: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the commands that make missing lines: those of the lines themselves, or else all that the
    text beside the table names."""
    lines = list(missing)
    if "overrides" in lines[0]:
        found = dict.fromkeys(text for line in lines for text in line["overrides"].split("\n"))
        return [f"python -m runner {each}".rstrip() for each in found]
    text = stem.with_name(f"{stem.name}.md")
    if not text.is_file():
        return []
    joined = text.read_text().replace("\\\n", " ")
    return [
        " ".join(line.split()) for line in re.findall(r"^python -m runner .*$", joined, re.MULTILINE)
    ]
