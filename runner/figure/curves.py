"""Curves: the values logged while a model was trained, a curve for every line of the table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.errors import UserError
from runner.figure.drawing import HOLLOW, Drawing, grid, in_lines, legend, legend_name, note, styles
from runner.figure.runs import Model, Runs
from runner.report.cells import Estimate, half_width, interval, least_of
from runner.results import Line

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The columns that identify a point of a curve.
POINT = ["setting", "cell", "seed", "name", "at"]


@dataclass(frozen=True)
class CurvesFigure(Drawing):
    """Logged values against another logged value, such as the epoch: a panel for every name in `y`.

    A name `a - b` is the difference of two logged values. Curves are means over seeds with 95 %
    intervals, those of shares inside [0, 1], and those of losses not below 0. A panel leaves out the
    lines of the table that did not log its value together with `x`, or that logged several values at
    one `x`. Lines that no panel shows are named below the panels.
    """

    x: str
    y: list[str]

    def has(self, model: Model) -> bool:
        return any(self.x in point for point in model.logged)

    def shown(self) -> list[str]:
        return [part for name in self.y for part in name.split(" - ")]

    def draw(self, runs: Runs) -> "Figure":
        """Raise UserError if no run logged a value of `y` with `x`, or if each logged several at one."""
        points = self._points(runs)
        figure, rows = grid(runs, runs.report.titles, len(self.y))
        for lines, across in rows:
            for axes, name in zip(across, self.y, strict=True):
                _panel(axes, runs, lines, points[points["name"] == name], name)
                axes.locator_params(axis="x", integer=True)
                axes.set_xlabel(runs.report.title(self.x))
                axes.set_ylabel(in_lines(runs.report.title(name)))
        legend(figure, [across for _, across in rows])
        note(figure, self._missing(runs, points))
        return figure

    def _missing(self, runs: Runs, points: "pd.DataFrame") -> str:
        """Return a sentence that names the lines without a curve, and the axes that have one."""
        drawn, said = set(_lines(points)), []
        for line, models in runs.models.items():
            if line not in drawn:
                axes = " or ".join(self._axes(models[0]))
                cure = f" (figure.curves.x={axes} draws it)" if axes else ""
                said.append(runs.report.titles[line] + cure)
        return f"No curve of {', '.join(said)}: not one value at each {self.x}." if said else ""

    def _axes(self, model: Model) -> Iterator[str]:
        """Yield the whole numbers that a model logged beside `y` and that rise from point to point."""
        points = [point for point in model.logged if any(name in point for name in self.y)]
        for name in dict.fromkeys(name for point in points for name in point):
            at = [point.get(name, math.nan) for point in points]
            if all(float(each).is_integer() for each in at) and sorted(set(at)) == at:
                yield name

    def _points(self, runs: Runs) -> "pd.DataFrame":
        """Return a frame with one entry per model and logged value: the columns of POINT and `value`."""
        import pandas as pd

        points = [
            (*line, model.result.seed, name, point[self.x], value)
            for line, models in runs.models.items()
            for model in models
            for point in model.logged
            if self.x in point
            for name, value in self._values(point).items()
            if name != self.x
        ]
        frame = pd.DataFrame(points, columns=[*POINT, "value"])
        logged = sorted(set(frame["name"]))
        for name in self.y:
            if name not in logged:
                raise UserError(
                    f"figure.curves.y names {name}, which no run logged with {self.x}: "
                    f"{self._cure(runs, name, logged)}"
                )
        frame = frame[frame["name"].isin(self.y)]
        several = set(_lines(frame[frame.duplicated(POINT)]))
        frame = frame[[line not in several for line in _lines(frame)]]
        if frame.empty:
            raise UserError(
                f"figure.curves.x={self.x} is no axis, since every run logged several values at one "
                "point: choose another, such as epoch or step"
            )
        return frame

    def _cure(self, runs: Runs, name: str, logged: Sequence[str]) -> str:
        """Return what to do about a name that no run logged with `x`, with which others are `logged`."""
        every = [point for models in runs.models.values() for each in models for point in each.logged]
        points = [self._values(point).keys() for point in every if name in self._values(point)]
        beside = sorted(set().union(*points) - {name})
        if beside:
            return f"set figure.curves.x to a value that it was logged with: {', '.join(beside)}"
        if points:
            return f"it is a single value, which table.columns=[{name}] shows"
        if logged:
            return f"choose from {', '.join(logged)}"
        return f"set figure.curves.x to one of {', '.join(sorted(set().union(*every)))}"

    def _values(self, point: Mapping[str, float]) -> dict[str, float]:
        """Return the values of a point, and the differences of them that `y` names."""
        pairs = {name: name.split(" - ") for name in self.y if " - " in name}
        differences = {
            name: point[first] - point[then]
            for name, (first, then) in pairs.items()
            if {first, then} <= point.keys()
        }
        return {**point, **differences}


def _lines(points: "pd.DataFrame") -> list[Line]:
    """Return the line of every point."""
    return [Line(*pair) for pair in zip(points["setting"], points["cell"], strict=True)]


def _panel(axes: "Axes", runs: Runs, lines: Sequence[Line], points: "pd.DataFrame", name: str) -> None:
    """Draw the mean and the interval of every line over its seeds; one seed has hollow markers."""
    titles, look = runs.report.titles, styles(lines, runs.report.titles)
    for index, own in points.groupby(["setting", "cell"], sort=False):
        line = Line(*map(str, index))
        if line not in lines:
            continue
        groups = own.groupby("at")["value"].agg(["mean", "std", "count"])
        at, mean, half = groups.index, groups["mean"], half_width(groups)
        n = int(groups["count"].max())
        label = legend_name(runs, line, titles)
        (curve,) = axes.plot(at, mean, label=label, markersize=4, **look[line])
        if n == 1:
            curve.set_markerfacecolor(HOLLOW)
        least = least_of(name, own["value"])
        ends = [
            interval(Estimate(*each, n), runs.report.is_share(name), least)
            for each in zip(mean, half, strict=True)
        ]
        low, high = zip(*ends, strict=True)
        axes.fill_between(at, low, high, color=curve.get_color(), alpha=0.2, lw=0)
