"""The table of a name's results, as text and as files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from runner.published import Published, read
from runner.report.cells import gaps, statistics, values
from runner.report.labels import Description, descriptions, in_order, labels
from runner.report.remarks import are_chosen, remarks
from runner.report.text import COSTS, LATEX, MARKDOWN, TERMINAL, Style, beside, table
from runner.results import Line, Result, Results
from runner.roles import REFERENCE

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
        """Return one line per cell: mean, half-width and n of its value and its gap, in full."""
        cells = self.cells.reset_index()
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
    def _descriptions(self) -> dict[Line, Description]:
        return descriptions(self.results)

    def _text(self, style: Style) -> str:
        cells = self.cells
        most = int(cells["n"].max()) if len(cells) else 0
        metrics = set(cells.index.get_level_values("metric"))
        with_gap = set(cells.index.get_level_values("metric")[cells["gap"].notna()]) - COSTS
        lines = {line: self.labels[line] for line in self.lines()}
        others = {line: label for line, label in lines.items() if line.cell != REFERENCE.name}
        columns = self._columns(metrics)
        compared = [column for column in columns if column in with_gap]
        expected = self.seeds or most
        parts = [table(style, "", lines, columns, values(cells), expected)]
        if compared:
            parts.append(table(style, "gap to retrain", others, compared, gaps(cells), expected, "+"))
        if self.published:
            parts.append(beside(style, self.results, values(cells), self.published))
        told = remarks(self.results, self.labels, most, self._absent(metrics))
        return "\n\n".join([*parts, *(style.comment + text for text in told)]) + "\n"

    def _columns(self, metrics: set[str]) -> list[str]:
        """Return the columns that some run has, and those of records if any method reads one."""
        recorded = OF_RECORDS if "record_bytes" in metrics else ()
        return [name for name in dict.fromkeys([*self.columns, *recorded]) if name in metrics]

    def _absent(self, metrics: set[str]) -> set[str]:
        """Return the chosen columns that no run has; none if all runs failed, which is told anyway."""
        absent = set(self.columns) - metrics
        return absent if absent and metrics and are_chosen(self.columns) else set()

    def write(self, folder: Path, name: str) -> None:
        """Write the files `name`.md, .csv and .tex to a folder, creating it if absent."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"md": self.markdown(), "csv": self.csv(), "tex": self.latex()}
        for suffix, text in texts.items():
            (folder / f"{name}.{suffix}").write_text(text)


def show(cfg: "DictConfig", name: str) -> None:
    """Print the table of a name's results, and write its files.

    Raise UserError if the name has no results, or `table.published` no file.
    """
    root = Path(cfg.paths.root)
    published = {} if cfg.table.published is None else read(cfg.table.published)
    results = Results(root / "results").named(name)
    report = Report(results, list(cfg.table.columns), cfg.table.seeds, published)
    print(f"\n{name}\n\n{report.terminal()}")
    report.write(root / "tables", name)
