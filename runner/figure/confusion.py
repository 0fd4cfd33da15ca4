"""Confusion: the shares of predicted classes for each true class, a matrix per line of the table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.errors import UserError
from runner.figure.drawing import Drawing, in_lines, panels
from runner.figure.runs import Model, Runs
from runner.report.words import spaced
from runner.results import Line, leave_out
from runner.sealed import DamagedResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from metrics.metric import Matrix

# The largest number of matrices side by side, and of classes whose shares can be read as numbers.
ABREAST = 4
LEGIBLE = 20

# The colour of a frame.
FRAME = "#D55E00"


@dataclass(frozen=True)
class ConfusionFigure(Drawing):
    """The counts of a confusion matrix, summed over seeds and shown in percent of each true class.

    `matrix` is the name that a metric gave to the matrix. All panels have one colour scale. Up to 20
    classes, the percentages are also written, except those that round to 0. Classes that are forgotten
    as a whole are framed.
    """

    matrix: str

    def has(self, model: Model) -> bool:
        return bool(model.matrix(self.matrix))

    def draw(self, runs: Runs) -> "Figure":
        """Raise UserError if a model has no such matrix. Damaged ones are told, and left out."""
        matrices = {line: self._sound(models) for line, models in runs.models.items()}
        found = {line: percentages(sound) for line, sound in matrices.items() if sound}
        if not found:
            raise UserError("all matrices are damaged, as told above")
        down = math.ceil(len(found) / ABREAST)
        figure, all_axes = panels(len(found), math.ceil(len(found) / down), 3.4, 3.6)
        for axes, (line, shares) in zip(all_axes, found.items(), strict=True):
            image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
            axes.set_title(in_lines(runs.report.titles[line]), fontsize="small")
            axes.set_xlabel("predicted class", fontsize="small")
            axes.set_ylabel("true class", fontsize="small")
            if len(shares) <= LEGIBLE:
                _number(axes, shares, class_names(runs, line, len(shares)))
            _frame(axes, forgotten(runs.models[line]), len(shares))
        figure.colorbar(image, ax=all_axes, label="% of the true class", shrink=0.6)
        return figure

    def _sound(self, models: Sequence[Model]) -> "list[Matrix]":
        found = []
        for model in models:
            try:
                found.append(model.matrix(self.matrix))
            except DamagedResult as error:
                leave_out(str(error))
        return found


def percentages(matrices: "Sequence[Matrix]") -> "NDArray[np.float64]":
    """Return the percentages of each true class in the sum of matrices of counts."""
    counts = np.sum(matrices, axis=0)
    # a class without rows has no shares: divide by 1, which leaves its zeros
    shares: NDArray[np.float64] = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def class_names(runs: Runs, line: Line, count: int) -> list[str]:
    """Return the names of the `count` classes of a line's data set in words, or else their numbers."""
    names = runs.class_names[runs.models[line][0].result.names["dataset"]]
    return [spaced(names[i]) if len(names) == count else str(i) for i in range(count)]


def _number(axes: "Axes", shares: "NDArray[np.float64]", names: Sequence[str]) -> None:
    """Write every percentage into its field, and name the classes."""
    axes.set_xticks(range(len(shares)), names, rotation="vertical", fontsize="x-small")
    axes.set_yticks(range(len(shares)), names, fontsize="x-small")
    for (true, predicted), share in np.ndenumerate(shares):
        if round(share):
            color = "white" if share > 50 else "black"
            text = f"{share:.0f}"
            axes.text(predicted, true, text, ha="center", va="center", color=color, fontsize=6)


def forgotten(models: Sequence[Model]) -> list[int]:
    """Return the classes that the request of a model forgets as a whole."""
    return sorted({label for model in models for label in model.forgotten})


def _frame(axes: "Axes", classes: list[int], count: int) -> None:
    """Frame the rows of the forgotten classes, and say so."""
    from matplotlib.patches import Rectangle

    for label in classes:
        row = Rectangle((-0.5, label - 0.5), count, 1, fill=False, ec=FRAME, lw=1.5, clip_on=False)
        axes.add_patch(row)
    if classes:
        axes.set_ylabel("true class (framed: forgotten)", fontsize="small")
