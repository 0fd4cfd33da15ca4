"""Logits: how the outputs for the test set are distributed, a histogram for every line of the table."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.classes import ClassNumber
from data.errors import UserError
from runner.figure.drawing import Drawing, legend, panels, styles
from runner.figure.runs import Line, Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LogitsFigure(Drawing):
    """Densities over `bins` of equal width: a panel of the logits of all classes together, then one of
    the logit of each of `classes`, of every test row and all seeds."""

    classes: list[ClassNumber]
    bins: int

    def draw(self, runs: Runs) -> "Figure":
        found = {
            line: np.concatenate([model.logits.numpy() for model in models])
            for line, models in runs.models.items()
        }
        if self.bins < 1:
            raise UserError(f"figure.logits.bins={self.bins}: it must be at least 1")
        known = min(logits.shape[1] for logits in found.values())
        for label in self.classes:
            if not 0 <= label < known:
                raise UserError(f"figure.logits.classes names {label}: choose from 0 to {known - 1}")
        figure, (first, *others) = panels(1 + len(self.classes), 1 + len(self.classes), 5.2, 4)
        self._panel(first, runs, {line: logits.ravel() for line, logits in found.items()})
        first.set_xlabel("logits of all classes")
        for axes, label in zip(others, self.classes, strict=True):
            self._panel(axes, runs, {line: logits[:, label] for line, logits in found.items()})
            axes.set_xlabel(f"logit of class {label}")
        legend(figure, runs, runs.report.labels)
        return figure

    def _panel(self, axes: "Axes", runs: Runs, values: "dict[Line, NDArray[np.float32]]") -> None:
        together = np.concatenate(list(values.values()))
        edges = np.linspace(together.min(), together.max(), self.bins + 1)
        look = styles(runs.models, runs.report.labels)
        for line, own in values.items():
            density, _ = np.histogram(own, edges, density=True)
            axes.stairs(density, edges, label=runs.report.labels[line], **look[line])
        axes.set_ylabel("density over the test set")
