"""The table of a name's results, as text and as files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import UserError
from runner.papers import rows
from runner.published import Published, comparable, read
from runner.report.cells import ABSENT, Estimate, Estimates, gaps, statistics, values
from runner.report.compare import Comparisons, Values, compared, of_cells, retrained, values_of
from runner.report.labels import Description, descriptions, in_order, labels
from runner.report.remarks import (
    are_chosen,
    glossary,
    interval_remarks,
    published_remarks,
    remarks,
    verdict_remarks,
)
from runner.report.text import (
    COSTS,
    LATEX,
    MARKDOWN,
    TERMINAL,
    Style,
    Texts,
    beside,
    cell,
    marked,
    tables,
)
from runner.results import Line, Result, Results
from runner.roles import REFERENCE
from runner.wording import suggestion

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

# Costs that are shown, in addition to the columns, if a method reads a record.
OF_RECORDS = ("record_bytes", "record_seconds", "seconds")


@dataclass(frozen=True)
class Report:
    """The results of one name as a table.

    `columns` are the scores and costs to show, in order; those that no run has are left out. `seeds` is
    the number of seeds that every cell should have; None stands for the most that any has. `published`
    are a paper's numbers, shown beside ours.
    """

    results: list[Result]
    columns: Sequence[str]
    seeds: int | None = None
    published: Published = field(default_factory=dict)

    def terminal(self) -> str:
        """Return scores, gaps and remarks as aligned text."""
        return self._text(TERMINAL)

    def markdown(self) -> str:
        """Return scores, gaps and remarks as Markdown."""
        return self._text(MARKDOWN)

    def latex(self) -> str:
        """Return scores, gaps and remarks as LaTeX for the package booktabs."""
        return self._text(LATEX)

    def csv(self) -> str:
        """Return one line per cell in full: mean, half-width and n of its value and its gap; mean,
        half-width and number of the retrained models, the difference from them, and the verdict."""
        cells = self.cells.join(self._comparison_columns()).reset_index()
        index = zip(cells.pop("setting"), cells.pop("cell"), strict=True)
        cells.insert(0, "line", [self.labels[Line(*line)] for line in index])
        return str(cells.to_csv(index=False))

    @cached_property
    def cells(self) -> "pd.DataFrame":
        """The statistics of every cell (see `statistics`)."""
        return statistics(self.results)

    @cached_property
    def labels(self) -> dict[Line, str]:
        """The label of every line: its name, and the options that distinguish it."""
        return labels(self._descriptions)

    @property
    def names(self) -> dict[Line, str]:
        """The name of every line, whatever its options: its method or variant."""
        return {line: described.name for line, described in self._descriptions.items()}

    def lines(self) -> list[Line]:
        """Return the lines that have cells, in the order of the table."""
        found = {Line(*index) for index in self.cells.droplevel("metric").index}
        return in_order(found, self._descriptions, self.labels)

    @cached_property
    def comparisons(self) -> Comparisons:
        """The comparison with the retrained models by line and score (see `compared`)."""
        return {**compared(self._compared_values), **self._of_cells[0]}

    @cached_property
    def estimates(self) -> Estimates:
        """The estimates by line and score. Those of the retrained models are over all of them."""
        # a measured value of a retrained cell stands before the one that its definition gives
        return {**self._of_cells[1], **values(self.cells), **retrained(self._compared_values)}

    @cached_property
    def _compared_values(self) -> dict[tuple[Line, str], Values]:
        return values_of(self.results)

    @cached_property
    def _of_cells(self) -> tuple[Comparisons, Estimates]:
        return of_cells(self.results)

    def _comparison_columns(self) -> "pd.DataFrame":
        import pandas as pd

        columns = ["null_mean", "null_half_width", "references"]
        columns += ["difference", "difference_half_width", "verdict"]
        rows = [
            (*each.retrained, each.difference.mean, each.difference.half_width(0.95), each.verdict)
            for each in self.comparisons.values()
        ]
        index = pd.MultiIndex.from_tuples(
            [(*line, name) for line, name in self.comparisons], names=["setting", "cell", "metric"]
        )
        return pd.DataFrame(rows, columns=columns, index=index)

    @cached_property
    def _descriptions(self) -> dict[Line, Description]:
        return descriptions(self.results)

    def _text(self, style: Style) -> str:
        cells = self.cells
        whole = {name for result in self.results for name in result.cell_scores}
        by_seed = cells[~cells.index.isin(whole, level="metric")]
        most = int(by_seed["n"].max()) if len(by_seed) else 0
        metrics = set(cells.index.get_level_values("metric"))
        with_gap = set(cells.index.get_level_values("metric")[cells["gap"].notna()]) - COSTS
        with_gap |= {name for _, name in self.comparisons}
        lines = {line: self.labels[line] for line in self.lines()}
        others = {line: label for line, label in lines.items() if line.cell != REFERENCE.name}
        columns = self._columns(metrics)
        compared = [column for column in columns if column in with_gap]
        expected = self.seeds or most
        parts = tables(style, "", lines, columns, self._cell_texts(expected))
        parts += tables(style, "gap to retrain", others, compared, self._gap_texts(expected))
        published = comparable(self.published, self.results)
        if published:
            parts.append(beside(style, self.results, values(cells), published))
        told = remarks(self.results, self.labels, most, self._absent(metrics))
        told += interval_remarks(self.estimates, set(lines), set(columns) - whole)
        told += verdict_remarks(self.comparisons, set(others), compared)
        told += glossary(self.results, columns)
        told += published_remarks(self.published, published)
        below = style.end.join(style.comment + text for text in told)
        return "\n\n".join([*parts, below] if below else parts) + "\n"

    def _cell_texts(self, expected: int) -> Texts:
        """Return a function that writes the value of a line in a column."""

        def text(line: Line, column: str) -> str:
            estimate = self.estimates.get((line, column), ABSENT)
            # the number of retrained models stands below the table, and differs from that of the seeds
            n = None if line.cell == REFERENCE.name else expected
            return cell(estimate, "", n, exact=column in COSTS)

        return text

    def _gap_texts(self, expected: int) -> Texts:
        """Return a function that writes the gap of a line in a column, and its verdict."""
        paired = gaps(self.cells)

        def text(line: Line, column: str) -> str:
            found = self.comparisons.get((line, column))
            estimate = paired.get((line, column), ABSENT)
            if found is not None and (found.paired or estimate.n == 0):
                difference = found.difference
                width = difference.half_width(0.95) if difference.n > 1 else math.nan
                estimate = Estimate(difference.mean, width, difference.n)
            gap = cell(estimate, "+", expected)
            if found is None or found.verdict is None:
                return gap
            return f"{gap} {marked(found.verdict, found.needed)}"

        return text

    def _columns(self, metrics: set[str]) -> list[str]:
        """Return the columns that some run has, and those of records if any method reads one."""
        recorded = OF_RECORDS if "record_bytes" in metrics else ()
        return [name for name in dict.fromkeys([*self.columns, *recorded]) if name in metrics]

    def _absent(self, metrics: set[str]) -> set[str]:
        """Return the chosen columns that no run has; none if all runs failed, which is told anyway."""
        absent = set(self.columns) - metrics
        return absent if absent and metrics and are_chosen(self.columns) else set()

    def rows(self) -> str:
        """Return one line for each model of each run, with its columns and the printed scores."""
        printed = [metric for _, _, metric in self.published]
        return rows.text(rows.of_results(self.results), [*self.columns, *OF_RECORDS, *printed])

    def write(self, folder: Path, name: str) -> None:
        """Write the files `name`.md, .csv, .tex and `name`_rows.csv to a folder, made if absent."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {".md": self.markdown(), ".csv": self.csv(), ".tex": self.latex()}
        for ending, text in {**texts, "_rows.csv": self.rows()}.items():
            (folder / f"{name}{ending}").write_text(text)


def show(cfg: "DictConfig", name: str) -> None:
    """Print the table of a name's results, and write its files.

    Raise UserError if the name has no results, none of the columns, or `table.published` no file.
    """
    root = Path(cfg.paths.root)
    published = {} if cfg.table.published is None else read(cfg.table.published)
    results = Results(root / "results").named(name)
    report = Report(results, list(cfg.table.columns), cfg.table.seeds, published)
    found = sorted(set(report.cells.index.get_level_values("metric")))
    if found and not set(report.columns) & set(found):
        wrong = ", ".join(f"{column}{suggestion(column, found)}" for column in report.columns)
        raise UserError(
            f"table.columns: no run of {name} has {wrong or 'no column'}: choose from {', '.join(found)}"
        )
    print(f"\n{name}\n\n{report.terminal()}")
    report.write(root / "tables", name)
    print(f"written to {root / 'tables' / name}.md, .csv, .tex and _rows.csv")
