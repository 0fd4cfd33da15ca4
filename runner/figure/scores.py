"""Scores: one score or cost against another, a point for every line of the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.errors import UserError
from runner.figure.drawing import Drawing, axis_label, legend, panels, styles
from runner.figure.runs import Runs
from runner.report import Report
from runner.report.cells import values
from runner.report.labels import as_option
from runner.results import Line
from runner.roles import ROLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# An axis is logarithmic if its largest value exceeds this multiple of its smallest.
WIDE = 20


@dataclass(frozen=True)
class ScoresFigure(Drawing):
    """Scores or costs against `x`: a panel for every name in `y`.

    `x` is a score, a cost, or an option that the runs differ in. Points are means with 95 % t-intervals
    over seeds. The original and the retrained reference are horizontal lines. If `joined`, lines of one
    name are joined to a curve, whatever their options.
    """

    x: str
    y: list[str]
    joined: bool

    def shown(self) -> list[str]:
        return self.y

    def draw(self, runs: Runs) -> "Figure":
        """Raise UserError if no run has the numbers of `x` or of a name in `y`."""
        places = _places(runs.report, self.x)
        self._check(runs.report, places)
        names = runs.report.names if self.joined else runs.report.labels
        figure, all_axes = panels(len(self.y), len(self.y), 5.2, 4)
        for axes, name in zip(all_axes, self.y, strict=True):
            _panel(axes, runs, names, places, name)
            axes.set_xlabel(axis_label(self.x))
            axes.set_ylabel(axis_label(name))
            if min(places.values()) > 0 and max(places.values()) > WIDE * min(places.values()):
                axes.set_xscale("log")
        legend(figure, runs, names)
        return figure

    def _check(self, report: Report, places: Mapping[Line, float]) -> None:
        """Raise UserError if there is nothing to show."""
        known = set(report.cells.index.get_level_values("metric"))
        for name in self.y:
            if name not in known:
                raise UserError(
                    f"figure.scores.y names {name}, which no run has: choose from {sorted(known)}"
                )
        if not places:
            raise UserError(
                f"figure.scores.x={self.x} is no number of any run: choose a score, a cost or an option"
            )


def _places(report: Report, x: str) -> dict[Line, float]:
    """Return the place of every own line on the axis: the mean of a score or cost, or an option."""
    found = {
        line: float(estimate.mean)
        for (line, metric), estimate in values(report.cells).items()
        if metric == x and line.shared_role is None
    }
    for result in report.results:
        options = {as_option(name): value for name, value in result.parameters.items()}
        if isinstance(value := options.get(x), int | float):
            for role in result.cells:
                found[result.line(ROLE[role])] = float(value)
    return found


def _panel(
    axes: "Axes", runs: Runs, names: Mapping[Line, str], places: Mapping[Line, float], metric: str
) -> None:
    """Draw the estimates of a metric: own lines as points, joined by name, and shared ones across."""
    known = values(runs.report.cells)
    estimates = {line: found for (line, name), found in known.items() if name == metric}
    look = styles(runs.models, names)
    curves: dict[str, list[Line]] = {}
    own = [line for line in estimates if line in places]
    for line in sorted(own, key=lambda line: places[line]):
        curves.setdefault(names[line], []).append(line)
    for name, lines in curves.items():
        at = [places[line] for line in lines]
        means = [estimates[line].mean for line in lines]
        halves = [estimates[line].half_width for line in lines]
        axes.errorbar(at, means, yerr=halves, fmt="o-", capsize=3, label=name, **look[lines[0]])
    for line, estimate in estimates.items():
        if line.shared_role is not None:
            axes.axhline(estimate.mean, lw=1, label=names[line], **look[line])
