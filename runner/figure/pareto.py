"""Trade-off: forgetting, utility and cost of every method, and the methods that no other one beats."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from data.errors import UserError
from runner.figure.drawing import COLOURS, MARKERS, MOST, Drawing, legend, panels
from runner.figure.runs import Runs
from runner.figure.scores import WIDE
from runner.report import Report
from runner.report.cells import ABSENT
from runner.results import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Distances below this are drawn on a linear scale, which has a place for 0; above, the scale is
# logarithmic, since the best methods lie close together.
LINEAR = 0.01

# The ticks of distances: enough to read a panel that spans a single decade, and few enough for several.
TICKS = [0, 0.003, *(each * 10.0**power for power in range(-2, 5) for each in (1, 3))]


class Distances(NamedTuple):
    """A method's distances from the retrained models in what it forgot and in what it kept, and its
    cost. All are better if they are smaller."""

    forgetting: float
    utility: float
    cost: float


@dataclass(frozen=True)
class ParetoFigure(Drawing):
    """Distances from retraining in two scores, and a cost: two panels for every setting.

    `forgetting` is a score of the forgotten rows, and `utility` one of the retained rows. A distance is
    the absolute gap of a method's mean to the retrained models' one. A method is on the front if no
    other one of its setting is as good in both distances and in `cost`, and better in one of them. The
    first of the front in the table's order have colours; the others are black, and methods behind the
    front are grey. A dotted line is the front in the two values of a panel alone.
    """

    forgetting: str
    utility: str
    cost: str

    def shown(self) -> Sequence[str]:
        return self.forgetting, self.utility, self.cost

    def draw(self, runs: Runs) -> "Figure":
        """Raise UserError if no method has the gaps and the cost."""
        settings: dict[str, dict[Line, Distances]] = {}
        for line in runs.report.lines():
            point = self._point(runs.report, line)
            if line.shared_role is None and all(map(math.isfinite, point)):
                settings.setdefault(line.setting, {})[line] = point
        if not settings:
            raise UserError(
                f"no method has gaps in {self.forgetting} and {self.utility}, and {self.cost}: choose "
                "others with figure.pareto.forgetting=…, .utility=… and .cost=…"
            )
        figure, axes = panels(2 * len(settings), 2, 4.6, 3.8)
        rows = [axes[start : start + 2] for start in range(0, len(axes), 2)]
        for across, points in zip(rows, settings.values(), strict=True):
            self._row(across, points, runs.report)
        legend(figure, rows)
        return figure

    def _point(self, report: Report, line: Line) -> Distances:
        return Distances(
            abs(report.gap(line, self.forgetting).mean),
            abs(report.gap(line, self.utility).mean),
            report.estimates.get((line, self.cost), ABSENT).mean,
        )

    def _row(self, across: "Sequence[Axes]", points: Mapping[Line, Distances], report: Report) -> None:
        """Draw the methods of a setting: utility and cost, each against forgetting."""
        costs = [point.cost for point in points.values()]
        wide = min(costs) > 0 and max(costs) > WIDE * min(costs)
        if wide:
            across[1].set_yscale("log")
        for look, alike in _looks(points, report.titles):
            at = [point.forgetting for point in alike]
            across[0].plot(at, [point.utility for point in alike], ls="", **look)
            across[1].plot(at, [point.cost for point in alike], ls="", **look)
        distance = "distance from retraining (log scale, linear at 0):\n"
        _distances(across[0], "y", max(point.utility for point in points.values()))
        for axes in across:
            _distances(axes, "x", max(point.forgetting for point in points.values()))
            axes.set_xlabel(distance + report.title(self.forgetting), fontsize="small")
        across[0].set_ylabel(distance + report.title(self.utility), fontsize="small")
        across[1].set_ylabel(
            report.title(self.cost) + (" (log scale)" if wide else ""), fontsize="small"
        )
        _stairs(across[0], {line: (each.forgetting, each.utility) for line, each in points.items()})
        _stairs(across[1], {line: (each.forgetting, each.cost) for line, each in points.items()})


def _distances(axes: "Axes", name: str, largest: float) -> None:
    """Make the axis `name`, "x" or "y", one of distances, from 0 to beyond the largest."""
    from matplotlib.scale import SymmetricalLogScale

    axis = getattr(axes, f"{name}axis")
    top = 1.5 * max(LINEAR, largest)
    axes.set(
        **{
            f"{name}scale": SymmetricalLogScale(axis, linthresh=LINEAR),
            f"{name}ticks": [each for each in TICKS if each <= top],
            f"{name}lim": (-LINEAR / 10, top),
        }
    )
    axis.set_major_formatter("{x:g}")


def _stairs(axes: "Axes", points: Mapping[Line, tuple[float, float]]) -> None:
    """Draw the front of the two values of a panel as stairs, from its top to its right end."""
    at, values = zip(*sorted(points[line] for line in front(points)), strict=True)
    along, up = (at[0], *at, axes.get_xlim()[1]), (axes.get_ylim()[1], *values, values[-1])
    look: dict[str, Any] = {"color": "grey", "ls": ":", "lw": 1, "zorder": 1}
    axes.step(along, up, where="post", scalex=False, scaley=False, **look)


def front(points: Mapping[Line, tuple[float, ...]]) -> list[Line]:
    """Return the lines that no other one dominates: is as small in every coordinate, and smaller in
    one."""
    return [
        line
        for line, own in points.items()
        if not any(
            other != own and all(theirs <= mine for theirs, mine in zip(other, own, strict=True))
            for other in points.values()
        )
    ]


def _looks(
    points: Mapping[Line, Distances], titles: Mapping[Line, str]
) -> Iterator[tuple[dict[str, Any], list[Distances]]]:
    """Yield matplotlib's styles, each with its points. The front lies above the others."""
    best = front(points)
    named, others = best[: MOST - 1], best[MOST - 1 :]
    for number, line in enumerate(named):
        look = {"color": COLOURS[number], "marker": MARKERS[number], "label": titles[line]}
        yield {**look, "zorder": 3 - number / 100, "markersize": 8}, [points[line]]
    if others:
        look = {"color": "black", "marker": "x", "label": "others on the Pareto front"}
        yield {**look, "zorder": 3}, [points[line] for line in others]
    if behind := [point for line, point in points.items() if line not in best]:
        yield {"color": "grey", "marker": ".", "label": "behind the Pareto front", "zorder": 2}, behind
