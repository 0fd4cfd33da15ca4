"""A report as a page of text: the table of scores, the table of gaps, published numbers, and remarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from runner.published import Published, comparable
from runner.report.cells import ABSENT, values
from runner.report.compare import censored
from runner.report.glossary import glossary
from runner.report.remarks import (
    are_chosen,
    censored_remarks,
    interval_remarks,
    published_remarks,
    remarks,
    verdict_remarks,
)
from runner.report.text import COSTS, Style, Texts, beside, cell, folded, marked, pieces
from runner.report.words import Names, option, spaced
from runner.results import Line
from runner.roles import REFERENCE

if TYPE_CHECKING:
    from runner.report.table import Report

# Costs that are shown, in addition to the columns, if a method reads a record.
OF_RECORDS = ("record_bytes", "record_seconds", "seconds")


class Shown(NamedTuple):
    """A table in one or several pieces, none if it has no columns, and the columns that did not fit."""

    text: list[str]
    left_out: Sequence[str]


@dataclass(frozen=True)
class Page:
    """A report in one text format. `whole` is true if it has verdicts in whole words."""

    whole: ClassVar[bool] = False

    report: "Report"
    style: Style

    def text(self) -> str:
        """Return the tables and, below them, the remarks."""
        report, style = self.report, self.style
        lines = report.lines()
        others = [line for line in lines if line.cell != REFERENCE.name]
        compared = self._compared
        corner = f"gap to {self._names.retrained}"
        shown = self._table("", lines, self._columns, self._cell)
        gap = self._table(corner, others, compared, self._gap)
        parts = [*shown.text, *gap.text]
        published = comparable(report.published, report.results)
        if published:
            heads, body = self._beside(published)
            parts.append(style.table(heads, body, "Our numbers, and the paper's in brackets."))
        told = self._remarks(others, compared, shown.left_out, gap.left_out)
        kept = [column for column in self._columns if column not in shown.left_out]
        told += glossary(report.about, self._heads(kept))
        below = style.end.join(style.comment + text for text in told)
        return "\n\n".join([*parts, below] if below else parts) + "\n"

    def _beside(self, published: Published) -> tuple[list[str], list[list[str]]]:
        """Return the heads and the body of the table of our numbers and the paper's."""
        report = self.report
        return beside(
            self.style, report.results, values(report.cells), published, report.title, self._expected
        )

    def _remarks(
        self, others: list[Line], compared: list[str], scores: Sequence[str], gaps: Sequence[str]
    ) -> list[str]:
        """Return the remarks but the glossary; `others` are the lines without the retrained models,
        `scores` and `gaps` the columns that were left out of the two tables."""
        report = self.report
        absent = set(report.columns) - report.known
        if not (absent and report.known and are_chosen(report.columns)):
            absent = set()  # a run may lack default columns, and all if it failed, which is told anyway
        names = self._names
        told = remarks(report.results, names, report.most, absent)
        told += self._on_order(others) + self._on_width(scores, gaps)
        kept = [column for column in self._columns if column not in scores]
        of_seeds = set(kept) - report.cell_scores
        told += interval_remarks(
            report.estimates, set(report.lines()), of_seeds, names.retrained, report.by_seed
        )
        told += censored_remarks(censored(report.results), names, kept)
        told += verdict_remarks(report.comparisons, set(others), compared, self.whole)
        shown = comparable(report.published, report.results)
        return told + published_remarks(report.published, shown, names)

    def _on_order(self, others: list[Line]) -> list[str]:
        """Return the remark on the order of the lines, if it says something."""
        report, ranking = self.report, self.report.ranking
        methods = [line for line in others if line.shared_role is None]
        gaps = [report.gap(line, column).mean for line in methods for column in ranking]
        if len(methods) < 2 or not any(map(isfinite, gaps)):
            return []
        names = ", ".join(self._heads(ranking).values())
        return [f"methods stand by their mean absolute gap to retraining, the closest first, in {names}"]

    def _on_width(self, scores: Sequence[str], gaps: Sequence[str]) -> list[str]:
        """Return the remark on columns that were left out."""
        found = [
            f"{names} of {table}"
            for table, names in (("the scores", ", ".join(scores)), ("the gaps", ", ".join(gaps)))
            if names
        ]
        if not found:
            return []
        return [
            f"left out to fit a terminal of {self.style.width} characters: {' and '.join(found)}; the "
            "table's files have them, and so has a wider terminal; table.columns=[…] chooses others"
        ]

    def _table(self, corner: str, lines: list[Line], columns: list[str], texts: Texts) -> Shown:
        """Return the table of `columns` for `lines`; `corner` heads the column of their labels."""
        if not columns:
            return Shown([], [])
        style = self.style
        heads = [corner, *(style.heading(column, self.report.title(column)) for column in columns)]
        body = [
            [folded(style, self._names.lines[line]), *(texts(line, column) for column in columns)]
            for line in lines
        ]
        caption = f"{(corner or 'scores').capitalize()} of {spaced(self.report.results[0].name)}."
        found = pieces(style, list(zip(heads, *body, strict=True)))
        tables = [
            style.table(
                [heads[i] for i in piece], [[texts[i] for i in piece] for texts in body], caption
            )
            for piece in found
        ]
        return Shown(tables, columns[found[-1][-1] :])

    def _cell(self, line: Line, column: str) -> str:
        """Return the value of a line in a column."""
        report = self.report
        estimate = report.estimates.get((line, column), ABSENT)
        # the number of retrained models stands below the table, and differs from that of the seeds
        n = None if line.cell == REFERENCE.name else self._expected
        count = column in report.counts
        return cell(estimate, "", n, exact=count or column in COSTS, count=count)

    def _gap(self, line: Line, column: str) -> str:
        """Return the gap of a line in a column, and its verdict."""
        report = self.report
        found = report.comparisons.get((line, column))
        gap = cell(report.gap(line, column), "+", self._expected, count=column in report.counts)
        if found is None or found.verdict is None:
            return gap
        return f"{gap} {marked(found.verdict, found.needed)}"

    @cached_property
    def _columns(self) -> list[str]:
        """The columns that some run has, and those of records if any method reads one."""
        recorded = OF_RECORDS if "record_bytes" in self.report.known else ()
        return [n for n in dict.fromkeys([*self.report.columns, *recorded]) if n in self.report.known]

    @property
    def _compared(self) -> list[str]:
        """The columns that have gaps to the retrained models."""
        cells = self.report.cells
        with_gap = set(cells.index.get_level_values("metric")[cells["gap"].notna()]) - COSTS
        with_gap |= {name for _, name in self.report.comparisons}
        return [column for column in self._columns if column in with_gap]

    @property
    def _expected(self) -> int:
        return self.report.seeds or self.report.most

    @property
    def _names(self) -> Names:
        """The names below the table, which are those in it."""
        if self.style.words:
            return Names(self.report.titles, REFERENCE.words, self.report.title, option)
        return Names(self.report.labels, REFERENCE.label, str, lambda group, name: name)

    def _heads(self, columns: Sequence[str]) -> dict[str, str]:
        """Return the names of columns as text below the table."""
        return {column: self._names.score(column) for column in columns}
