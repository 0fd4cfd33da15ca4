"""Confusion: the shares of predicted classes for each true class, a matrix per line of the table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.errors import UserError
from runner.figure.drawing import Drawing, panels
from runner.figure.runs import Model, Runs
from runner.say import say
from runner.sealed import DamagedResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from metrics.metric import Matrix

# The largest number of matrices side by side, and of classes whose shares can be read as numbers.
ABREAST = 4
LEGIBLE = 20


@dataclass(frozen=True)
class ConfusionFigure(Drawing):
    """The counts of a confusion matrix, summed over seeds and shown as shares of each true class.

    `matrix` is the name that a metric gave to the matrix. All panels have one colour scale. Up to 20
    classes, shares are also written in percent, except those that round to 0.
    """

    matrix: str

    def draw(self, runs: Runs) -> "Figure":
        """Raise UserError if a model has no such matrix. Damaged ones are told, and left out."""
        matrices = {line: self._sound(models) for line, models in runs.models.items()}
        found = {line: np.sum(sound, axis=0) for line, sound in matrices.items() if sound}
        if not found:
            raise UserError("all matrices are damaged, as told above")
        down = math.ceil(len(found) / ABREAST)
        figure, all_axes = panels(len(found), math.ceil(len(found) / down), 3.4, 3.6)
        for axes, (line, counts) in zip(all_axes, found.items(), strict=True):
            # a class without rows has no shares: divide by 1, which leaves its zeros
            shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            axes.set_title(runs.report.labels[line], fontsize="small")
            axes.set_xlabel("predicted class")
            axes.set_ylabel("true class")
            if len(shares) <= LEGIBLE:
                _number(axes, shares)
        figure.colorbar(image, ax=all_axes, label="share of the true class", shrink=0.6)
        return figure

    def _sound(self, models: Sequence[Model]) -> "list[Matrix]":
        found = []
        for model in models:
            try:
                found.append(model.matrix(self.matrix))
            except DamagedResult as error:
                say(f"left out: {error}")
        return found


def _number(axes: "Axes", shares: "NDArray[np.float64]") -> None:
    """Write every share in percent into its field, and number the classes."""
    axes.set_xticks(range(len(shares)))
    axes.set_yticks(range(len(shares)))
    for (true, predicted), share in np.ndenumerate(shares):
        if round(100 * share):
            color = "white" if share > 0.5 else "black"
            text = f"{100 * share:.0f}"
            axes.text(predicted, true, text, ha="center", va="center", color=color, fontsize=6)
