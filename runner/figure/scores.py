"""Scores: one score or cost against another, a point for every line of the table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from runner.figure.drawing import HOLLOW, Drawing, grid, in_lines, legend, legend_name, styles
from runner.figure.runs import Runs
from runner.report import Report
from runner.report.cells import Estimate, interval, least_of, values
from runner.report.labels import as_option
from runner.report.words import axis
from runner.results import Line
from runner.roles import ROLE
from runner.wording import ALL, NEAREST, suggestion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# An axis is logarithmic if its largest value exceeds this multiple of its smallest.
WIDE = 20


@dataclass(frozen=True)
class ScoresFigure(Drawing):
    """Scores or costs against `x`: a panel for every name in `y`.

    `x` is a score, a cost, or an option that the runs differ in. Points are means with 95 %
    intervals over seeds, those of shares inside [0, 1], and those of losses not below 0. The original
    and the retrained models are horizontal lines, at the means of the table. If `joined`, lines of one
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
        names = runs.report.names if self.joined else runs.report.titles
        figure, rows = grid(runs, names, len(self.y))
        wide = min(places.values()) > 0 and max(places.values()) > WIDE * min(places.values())
        for lines, across in rows:
            for axes, name in zip(across, self.y, strict=True):
                panel = Panel(axes, runs, lines, names, {k: places[k] for k in lines if k in places})
                panel.draw(name, wide)
                axes.set_xlabel(self._label(runs.report) + (" (log scale)" if wide else ""))
                axes.set_ylabel(in_lines(runs.report.title(name)))
        legend(figure, [across for _, across in rows])
        return figure

    def _label(self, report: Report) -> str:
        """Return the score, the cost or the option of the axis in people's words."""
        return report.title(self.x) if self.x in report.known else axis(self.x)

    def _check(self, report: Report, places: Mapping[Line, float]) -> None:
        """Raise UserError if there is nothing to show."""
        for name in self.y:
            if name not in report.known:
                near = suggestion(name, sorted(report.known), NEAREST)
                raise UserError(
                    f"figure.scores.y names {name}, which no run has{near}: in runner.report {ALL}"
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


@dataclass(frozen=True)
class Panel:
    """One panel: its lines, their names and the places of the own ones on the axis."""

    axes: "Axes"
    runs: Runs
    lines: Sequence[Line]
    names: Mapping[Line, str]
    places: Mapping[Line, float]

    def draw(self, metric: str, wide: bool) -> None:
        """Draw the estimates of a metric: own lines as points, joined by name, and shared ones across.

        `wide` makes the axis logarithmic. A single seed is hollow. Of points in one place, each earlier
        one is larger, so that it shows around the later ones.
        """
        if wide:
            self.axes.set_xscale("log")
        known = self.runs.report.estimates
        estimates = {line: known[line, metric] for line in self.lines if (line, metric) in known}
        look = styles(self.lines, self.names)
        own = [line for line in estimates if line in self.places]
        ranks = _ranks([(self._at(line, wide), estimates[line].mean) for line in own])
        for name in dict.fromkeys(self.names[line] for line in own):
            self._join([line for line in own if self.names[line] == name], estimates, look)
        for line, rank in zip(own, ranks, strict=True):
            self._point(line, metric, estimates[line], look[line], rank)
        for line, estimate in estimates.items():
            if line.shared_role is not None:
                name = legend_name(self.runs, line, self.names)
                self.axes.axhline(estimate.mean, lw=1, label=name, **look[line])

    def _at(self, line: Line, wide: bool) -> float:
        return math.log(self.places[line]) if wide else self.places[line]

    def _join(
        self,
        lines: Sequence[Line],
        estimates: Mapping[Line, Estimate],
        look: Mapping[Line, Mapping[str, Any]],
    ) -> None:
        """Draw a curve through the points of one name, in the order of the axis."""
        found = sorted(lines, key=lambda line: self.places[line])
        at, means = [self.places[line] for line in found], [estimates[line].mean for line in found]
        if len(found) > 1:
            self.axes.plot(at, means, color=look[found[0]]["color"], lw=1)

    def _point(
        self,
        line: Line,
        metric: str,
        estimate: Estimate,
        look: Mapping[str, Any],
        rank: int,
    ) -> None:
        """Draw a metric's point with its interval; `rank` counts the later points in the same place."""
        share = self.runs.report.is_share(metric)
        low, high = interval(estimate, share, least_of(metric, [estimate.mean]))
        bars = [[estimate.mean - low], [high - estimate.mean]]
        self.axes.errorbar(
            [self.places[line]],
            [estimate.mean],
            yerr=bars if estimate.n > 1 else None,
            ls="",
            capsize=3,
            label=self.names[line],
            markersize=6 + 4 * rank,
            zorder=3 - rank / 100,
            markerfacecolor=HOLLOW if estimate.n == 1 else look["color"],
            **look,
        )


def _ranks(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return, for each point, the number of later ones that lie in the same place, as far as one sees:
    within a fiftieth of the points' spread."""
    spans = [max(each) - min(each) for each in zip(*points, strict=True)]

    def meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return all(abs(a - b) <= span / 50 for a, b, span in zip(one, other, spans, strict=True))

    return [
        sum(meet(point, later) for later in points[number + 1 :]) for number, point in enumerate(points)
    ]
