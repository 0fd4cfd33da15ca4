"""The table of a name's results, as text and as files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from conf import Format
from data.bounds import check_bounds
from data.disk import replacing
from data.errors import UserError
from data.meanings import meaning
from runner.naming import folder_of
from runner.published import Published, read
from runner.report import rows, words
from runner.report.cells import ABSENT, Estimate, Estimates, counts, gaps, statistics, values
from runner.report.compare import (
    Comparisons,
    Key,
    LineScore,
    compared,
    of_cells,
    of_means,
    retrained,
    values_of,
)
from runner.report.glossary import choice_of
from runner.report.labels import Description, descriptions, labels, titles
from runner.report.latex import LATEX, NEEDS
from runner.report.order import ACCURACIES, closeness, in_order, ranking_columns
from runner.report.page import OF_RECORDS, Page
from runner.report.text import MARKDOWN, TERMINAL
from runner.results import Line, Result, Results, models
from runner.roles import Role
from runner.wording import ALL, NEAREST, suggestion

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig


# Shares that no result explains: accuracies of results of earlier versions, and logged ones.
SHARES = {"accuracy", *ACCURACIES}


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

    def led_by(self, first: Sequence[str]) -> "Report":
        """Return the report with those of `first` that some run has before the other columns."""
        asked = [column for column in first if column in self.known]
        return replace(self, columns=list(dict.fromkeys([*asked, *self.columns])))

    def terminal(self) -> str:
        """Return scores, gaps and remarks as aligned text, as wide as the terminal, or 80 characters
        where there is none. Columns that do not fit go on in a second table. The last ones are left
        out if that is full too, and named below."""
        return Page(self, replace(TERMINAL, width=get_terminal_size((80, 24)).columns)).text()

    def markdown(self) -> str:
        """Return scores, gaps and remarks as Markdown."""
        return Page(self, MARKDOWN).text()

    def latex(self) -> str:
        """Return scores, gaps and remarks as LaTeX, whose first line names the packages it needs."""
        return f"{NEEDS}\n\n{Page(self, replace(LATEX, label=self.results[0].name)).text()}"

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
        """The label of every line in identifiers: its name, and the options that distinguish it."""
        return labels(self._descriptions)

    @cached_property
    def titles(self) -> dict[Line, str]:
        """The label of every line in people's words."""
        return titles(self._descriptions)

    @property
    def names(self) -> dict[Line, str]:
        """The title of every line, whatever its options: that of its method or variant."""
        return {line: described.title for line, described in self._descriptions.items()}

    @cached_property
    def known(self) -> set[str]:
        """The scores, costs and logged values that some run has."""
        return set(self.cells.index.get_level_values("metric"))

    def check_columns(self) -> None:
        """Raise UserError if there are values, and none of the columns is one."""
        if self.known and not set(self.columns) & self.known:
            found = sorted(self.known)
            wrong = ", ".join(f"{each}{suggestion(each, found, NEAREST)}" for each in self.columns)
            raise UserError(f"table.columns: no run of {self.results[0].name} has {wrong}: {ALL}")

    def title(self, score: str) -> str:
        """Return a score, a cost or a logged value in people's words."""
        return words.score(score, self.about)

    @cached_property
    def about(self) -> dict[str, Mapping[str, Any]]:
        """The meanings of the scores, as results tell them."""
        return {name: said for result in self.results for name, said in result.about.items()}

    def is_share(self, score: str) -> bool:
        """Return whether a score is a share, from 0 to 1: if results say so, or by its name."""
        said = meaning(score, self.about)
        return score in SHARES if said is None else said["unit"] == "share"

    def lines(self) -> list[Line]:
        """Return the lines that have cells, in the order of the table (see `in_order`)."""
        return list(self._in_order)

    @cached_property
    def _in_order(self) -> list[Line]:
        found = list(dict.fromkeys(Line(*index) for index in self.cells.droplevel("metric").index))
        gaps = closeness(found, self.ranking, lambda line, column: self.gap(line, column).mean)
        return in_order(found, self._descriptions, self.labels, gaps)

    def models(self) -> dict[Line, list[tuple[Result, Role]]]:
        """Return the models of every line, one for each seed, in the order of the table."""
        found: dict[Line, dict[int | None, tuple[Result, Role]]] = {line: {} for line in self.lines()}
        for line, result, role in models(self.results):
            found[line].setdefault(result.seed, (result, role))
        return {line: list(by_seed.values()) for line, by_seed in found.items()}

    @property
    def ranking(self) -> list[str]:
        """The accuracies whose mean absolute gap to retraining orders the methods."""
        return ranking_columns(self.columns, self.known)

    def gap(self, line: Line, column: str) -> Estimate:
        """Return the difference of a line's score from the retrained models'."""
        found = self.comparisons.get((line, column))
        estimate = self._gaps.get((line, column), ABSENT)
        if found is None or not (found.paired or estimate.n == 0):
            return estimate
        difference = found.difference
        width = difference.half_width(0.95) if difference.n > 1 else math.nan
        return Estimate(difference.mean, width, difference.n)

    @cached_property
    def _gaps(self) -> Estimates:
        return gaps(self.cells)

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
    def _compared_values(self) -> dict[tuple[Line, str], LineScore]:
        return values_of(self.results)

    @property
    def by_seed(self) -> set[Key]:
        """The retrained models' lines and scores that are means over those of each of several seeds."""
        return of_means(self._compared_values)

    @cached_property
    def _of_cells(self) -> tuple[Comparisons, Estimates]:
        return of_cells(self.results)

    def _comparison_columns(self) -> "pd.DataFrame":
        import pandas as pd

        columns = ["null_mean", "null_half_width", "null_n"]
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

    @cached_property
    def most(self) -> int:
        """The largest number of seeds of any cell."""
        by_seed = self.cells[~self.cells.index.isin(self.cell_scores, level="metric")]
        return int(by_seed["n"].max()) if len(by_seed) else 0

    @property
    def cell_scores(self) -> set[str]:
        """The scores that belong to all seeds of a cell."""
        return {name for result in self.results for name in result.cell_scores}

    @cached_property
    def counts(self) -> set[str]:
        """The scores, costs and logged values that are counts."""
        return counts(self.results, self.about)

    def rows(self) -> str:
        """Return one line for each model of each run, with its columns and the printed scores."""
        printed = [metric for _, _, metric in self.published]
        return rows.text(rows.of_results(self.results), [*self.columns, *OF_RECORDS, *printed])

    def write(self, folder: Path, name: str) -> None:
        """Write the files `name`.md, .csv and .tex, and `name`_rows.csv with a line per model and
        seed, to a folder, creating it if absent."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {".md": self.markdown(), ".csv": self.csv(), ".tex": self.latex()}
        for suffix, text in {**texts, "_rows.csv": self.rows()}.items():
            with replacing(folder / f"{name}{suffix}") as scratch:
                scratch.write_text(text)


def show(cfg: "DictConfig", name: str, first: Sequence[str] = ()) -> None:
    """Print the table of a name's results, and write its files; without columns, print all that it may
    have. Those of `first` that some run has stand before the others.

    Raise UserError if the name has no results, none of the columns, or `table.published` no file, or if
    an option of the table is out of its bounds.
    """
    check_bounds("table", OmegaConf.to_object(cfg.table))
    root = folder_of("paths.root", cfg.paths.root)
    published = {} if cfg.table.published is None else read(cfg.table.published)
    results = Results(root / "results").named(name)
    report = Report(results, list(cfg.table.columns), cfg.table.seeds, published)
    if not report.columns:
        print(choice_of(report.known, report.about))
        return
    report = report.led_by(first)
    report.check_columns()
    print(f"\n{name}\n\n{report.terminal()}")
    report.write(root / "tables", name)
    print(f"written to {root / 'tables' / name}.md, .csv, .tex and _rows.csv")
    if cfg.format is Format.html:
        from runner.report.html import write  # needs torch and figures, which a table does without

        print(f"written to {write(cfg, report, root / 'tables', name)}")
