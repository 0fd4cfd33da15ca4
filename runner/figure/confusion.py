"""Confusion: which class is taken for which, a matrix for every line of the table."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from runner.figure.drawing import Drawing, panels
from runner.figure.runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Matrices side by side in a row, at most, and classes whose shares can be read as numbers.
ABREAST = 4
LEGIBLE = 20


@dataclass(frozen=True)
class ConfusionFigure(Drawing):
    """The counts of `matrix`, summed over seeds, as shares of each true class, in one colour scale and,
    for few classes, in percent; what rounds to none is left blank."""

    matrix: str

    def draw(self, runs: Runs) -> "Figure":
        found = {
            line: np.sum([model.matrix(self.matrix) for model in models], axis=0)
            for line, models in runs.models.items()
        }
        rows = -(-len(found) // ABREAST)
        figure, all_axes = panels(len(found), -(-len(found) // rows), 3.4, 3.6)
        for axes, (line, counts) in zip(all_axes, found.items(), strict=True):
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            axes.set_title(runs.report.labels[line], fontsize="small")
            axes.set_xlabel("predicted class")
            axes.set_ylabel("true class")
            if len(shares) <= LEGIBLE:
                _number(axes, shares)
        figure.colorbar(image, ax=all_axes, label="share of the true class", shrink=0.6)
        return figure


def _number(axes: "Axes", shares: "NDArray[np.float64]") -> None:
    axes.set_xticks(range(len(shares)))
    axes.set_yticks(range(len(shares)))
    for (true, predicted), share in np.ndenumerate(shares):
        if round(100 * share):
            color = "white" if share > 0.5 else "black"
            text = f"{100 * share:.0f}"
            axes.text(predicted, true, text, ha="center", va="center", color=color, fontsize=6)
