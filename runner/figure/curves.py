"""Curves: what was logged while a model was made, a curve for every line of the table."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.errors import UserError
from runner.figure.drawing import Drawing, legend, panels, styles
from runner.figure.runs import Runs
from runner.report import half_width

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CurvesFigure(Drawing):
    """A panel for every value of `y` against `x`, both as they were logged: means with 95 % t-intervals
    over seeds. A line of the table that logged no such value is not in the panel."""

    x: str
    y: list[str]

    def draw(self, runs: Runs) -> "Figure":
        points = self._points(runs)
        figure, all_axes = panels(len(self.y), len(self.y), 5.2, 4)
        for axes, name in zip(all_axes, self.y, strict=True):
            _panel(axes, runs, points[points["name"] == name])
            axes.locator_params(axis="x", integer=True)
            axes.set_xlabel(self.x.replace("_", " "))
            axes.set_ylabel(name.replace("_", " "))
        legend(figure, runs, runs.report.labels)
        return figure

    def _points(self, runs: Runs) -> "pd.DataFrame":
        """One line per model and logged value: `setting`, `cell`, `seed`, `name`, `at`, `value`."""
        import pandas as pd

        points = [
            (*line, model.row.seed, name, point[self.x], value)
            for line, models in runs.models.items()
            for model in models
            for point in model.logged
            if self.x in point
            for name, value in point.items()
            if name != self.x
        ]
        where = ["setting", "cell", "seed", "name", "at"]
        frame = pd.DataFrame(points, columns=[*where, "value"])
        logged = sorted(set(frame["name"]))
        for name in self.y:
            if name not in logged:
                raise UserError(
                    f"figure.curves.y names {name}, which no run logged with {self.x}; there are: "
                    f"{logged}; figure.curves.x may be another, such as epoch or step"
                )
        frame = frame[frame["name"].isin(self.y)]
        if frame.duplicated(where).any():
            raise UserError(
                f"figure.curves.x={self.x} is no axis: a run logged the same twice; set another"
            )
        return frame


def _panel(axes: "Axes", runs: Runs, points: "pd.DataFrame") -> None:
    look = styles(runs.models, runs.report.labels)
    for where, own in points.groupby(["setting", "cell"], sort=False):
        setting, cell = map(str, where)
        groups = own.groupby("at")["value"].agg(["mean", "std", "count"])
        at, mean, half = groups.index, groups["mean"], half_width(groups)
        label = runs.report.labels[setting, cell]
        (curve,) = axes.plot(at, mean, label=label, **look[setting, cell])
        axes.fill_between(at, mean - half, mean + half, color=curve.get_color(), alpha=0.2, lw=0)
