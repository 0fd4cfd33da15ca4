"""Leaks: how the forgotten training rows score, a histogram over rows for every line of the table."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from data.bounds import SIZE
from runner.figure.drawing import Drawing, grid, histograms, legend
from runner.figure.runs import Model, Runs
from runner.results import Line, Result, Results
from runner.roles import UNLEARNED
from runner.tracking.sections import CELL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from metrics.metric import Matrix

# The matrix of a cell that holds the attack's score of every forgotten row.
ATTACKED = "ulira_rows"


@dataclass(frozen=True)
class LeaksFigure(Drawing):
    """Densities of two scores of the forgotten training rows, over `bins` of equal width.

    The first panel shows how sure each model is of a row's label, ln p − ln(1 − p), for all seeds. A
    method leaks where its histogram is not that of the retrained models. If the U-LiRA attack ran, the
    second panel shows its mean score of each row, which is about 0 after a retraining.
    """

    bins: Annotated[int, SIZE]

    def has(self, model: Model) -> bool:
        return len(model.forgotten_margins) > 0

    def draw(self, runs: Runs) -> "Figure":
        """Raise UserError if the predictions of a model are not stored."""
        margins = {
            line: np.concatenate([model.forgotten_margins.numpy() for model in models])
            for line, models in runs.models.items()
        }
        found = of_rows(runs.report.results, runs.root, ATTACKED).items()
        attacked = {line: np.array(rows)[:, 1] for line, (_, rows) in found if line in margins}
        shown = {"log-odds of the row's label (nats)": margins}
        if attacked:
            shown["mean U-LiRA score of the row (nats)"] = attacked
        figure, rows = grid(runs, runs.report.titles, len(shown))
        for lines, across in rows:
            for axes, (label, values) in zip(across, shown.items(), strict=True):
                histograms(axes, runs, lines, values, self.bins)
                axes.set_xlabel(label)
                axes.set_ylabel("density over the forgotten training rows")
        legend(figure, [across for _, across in rows])
        return figure


def of_rows(results: Iterable[Result], root: Path, name: str) -> "dict[Line, tuple[Result, Matrix]]":
    """Return a matrix of a cell's rows by the line of its unlearned model, with a result that has it.
    Damaged ones are told, and left out."""
    found: dict[Line, tuple[Result, Matrix]] = {}
    for result in results:
        rows = Results(root / "results").sound_matrices(result).get(CELL, {}).get(name)
        if rows:
            found[result.line(result.repeats or UNLEARNED)] = result, rows
    return found
