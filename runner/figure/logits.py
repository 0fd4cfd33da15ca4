"""Logits: the distribution of the outputs for the test set, a histogram for every line of the table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from data.bounds import SIZE
from data.classes import ClassNumber
from data.errors import UserError
from runner.figure.drawing import Drawing, grid, histograms, legend
from runner.figure.runs import Model, Runs
from runner.results import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LogitsFigure(Drawing):
    """Densities of the logits of all test rows and seeds, over `bins` of equal width.

    The first panel shows the logits of all classes together. Every other panel shows the logit of one
    of `classes`.
    """

    classes: list[ClassNumber]
    bins: Annotated[int, SIZE]

    def has(self, model: Model) -> bool:
        return len(model.logits) > 0

    def draw(self, runs: Runs) -> "Figure":
        """Raise UserError if a model lacks one of the classes, or its predictions are not stored."""
        found = {
            line: np.concatenate([model.logits.numpy() for model in models])
            for line, models in runs.models.items()
        }
        known = min(logits.shape[1] for logits in found.values())
        for label in self.classes:
            if label >= known:
                raise UserError(f"figure.logits.classes names {label}: choose from 0 to {known - 1}")
        figure, rows = grid(runs, runs.report.titles, 1 + len(self.classes), same=False)
        for lines, (first, *others) in rows:
            self._panel(first, runs, lines, {line: found[line].ravel() for line in lines})
            first.set_xlabel("logits of all classes")
            for axes, label in zip(others, self.classes, strict=True):
                self._panel(axes, runs, lines, {line: found[line][:, label] for line in lines})
                axes.set_xlabel(f"logit of class {label}")
        legend(figure, [across for _, across in rows])
        return figure

    def _panel(
        self, axes: "Axes", runs: Runs, lines: Sequence[Line], values: "dict[Line, NDArray[np.float32]]"
    ) -> None:
        histograms(axes, runs, lines, values, self.bins)
        axes.set_yscale("log")  # a spike, such as that of equal outputs, would flatten all others
        axes.set_ylabel("density over the test set (log scale)")
