"""Scores: one score or cost against another, a point for every line of the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from runner.figure.drawing import Drawing, legend, panels, styles
from runner.figure.runs import Line, Runs
from runner.report import Report, as_option
from runner.results import SHARED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# An axis whose largest value is so many times its smallest is logarithmic.
WIDE = 20


@dataclass(frozen=True)
class ScoresFigure(Drawing):
    """A panel for every score or cost of `y` against `x`, which is a score, a cost, or an option that
    the runs differ in: means with 95 % intervals over seeds; the retrained reference and the original
    are lines across. `joined`: lines of one name are one curve, whatever their options."""

    x: str
    y: list[str]
    joined: bool

    def draw(self, runs: Runs) -> "Figure":
        places = _places(runs.report, self.x)
        known = set(runs.report.cells.index.get_level_values("metric"))
        for name in self.y:
            if name not in known:
                raise UserError(
                    f"figure.scores.y names {name}, which no run has; there are: {sorted(known)}"
                )
        if not places:
            raise UserError(
                f"figure.scores.x={self.x} is no number of any run: choose a score, a cost or an option"
            )
        names = runs.report.names if self.joined else runs.report.labels
        figure, all_axes = panels(len(self.y), len(self.y), 5.2, 4)
        for axes, name in zip(all_axes, self.y, strict=True):
            _panel(axes, runs, names, places, name)
            axes.set_xlabel(self.x.replace("_", " "))
            axes.set_ylabel(name.replace("_", " "))
            if min(places.values()) > 0 and max(places.values()) > WIDE * min(places.values()):
                axes.set_xscale("log")
        legend(figure, runs, names)
        return figure


def _places(report: Report, x: str) -> dict[Line, float]:
    """Where each (setting, cell) lies: the mean of its score or cost, or its option."""
    means = report.cells["value"]
    found = {
        (setting, cell): float(value)
        for (setting, cell, metric), value in zip(means.index, means.to_numpy(), strict=True)
        if metric == x and cell not in SHARED
    }
    for row in report.rows:
        value = {as_option(name): value for name, value in row.parameters.items()}.get(x)
        if isinstance(value, int | float):
            for cell in row.cells.values():
                found[row.setting, cell] = float(value)
    return found


def _panel(
    axes: "Axes", runs: Runs, names: Mapping[Line, str], places: Mapping[Line, float], metric: str
) -> None:
    columns = runs.report.cells[["value", "half_width"]].xs(metric, level="metric")
    numbers: dict[Line, Any] = dict(zip(columns.index, columns.to_numpy(), strict=True))
    look = styles(runs.models, names)
    curves: dict[str, list[Line]] = {}
    for line in sorted(numbers.keys() & places.keys(), key=lambda line: places[line]):
        curves.setdefault(names[line], []).append(line)
    for name, lines in curves.items():
        values, halves = zip(*(numbers[line] for line in lines), strict=True)
        at = [places[line] for line in lines]
        axes.errorbar(at, values, yerr=halves, fmt="o-", capsize=3, label=name, **look[lines[0]])
    for line, (value, _) in numbers.items():
        if line[1] in SHARED:
            axes.axhline(value, lw=1, label=names[line], **look[line])
