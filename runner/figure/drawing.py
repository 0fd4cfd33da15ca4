"""The base class of figures, and what they share: panels, legend and styles."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data.component import Component
from data.errors import UserError
from runner.figure.runs import Runs
from runner.results import Line

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Drawing(Component):
    """A kind of figure: a frozen dataclass whose fields are its options."""

    def draw(self, runs: Runs) -> "Figure":
        """Return the figure of the runs. Raise UserError if they lack what it shows."""
        raise NotImplementedError

    def shown(self) -> Sequence[str]:
        """Return the scores, costs and logged values that it draws, which some run must have."""
        return ()


def panels(count: int, columns: int, width: float, height: float) -> tuple["Figure", list["Axes"]]:
    """Return an empty figure and the axes of its `count` panels, `columns` side by side.

    `width` and `height` of a panel are in inches. Raise UserError if `count` is 0, or if matplotlib is
    not installed.
    """
    if not count:
        raise UserError("the figure has no panel: name what it shows with figure.<kind>.y=[…]")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('figures need matplotlib: pip install -e ".[figures]"') from error
    down = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * down), layout="constrained")
    grid = figure.subplots(down, columns, squeeze=False).ravel().tolist()
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def axis_label(name: str) -> str:
    """Return the label of an axis that shows a score, a cost or a logged value."""
    return name.replace("_", " ")


def legend(figure: "Figure", runs: Runs, names: Mapping[Line, str]) -> None:
    """Add one legend for all panels, in the order of the table, and widen the figure to hold it.

    `names` are the labels that the lines were drawn with.
    """
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    shown = [name for name in dict.fromkeys(names[line] for line in runs.models) if name in found]
    handles = [found[name] for name in shown]
    beside = figure.legend(handles, shown, loc="outside right upper", fontsize="small")
    figure.set_figwidth(figure.get_figwidth() + beside.get_window_extent().width / figure.dpi)


def styles(lines: Collection[Line], names: Mapping[Line, str]) -> dict[Line, dict[str, Any]]:
    """Return matplotlib's style of every line, the same in all panels.

    The models that methods are compared with are grey. Other lines have one of twenty colours for each
    name.
    """
    from matplotlib import colormaps

    # tab20 alternates a full and a light shade of ten colours: take the ten full ones first
    pairs = colormaps["tab20"]
    own = list(dict.fromkeys(names[line] for line in lines if line.shared_role is None))
    colours = {name: pairs((2 * number + number // 10) % 20) for number, name in enumerate(own)}
    found = {}
    for line in lines:
        role = line.shared_role
        found[line] = {"color": "grey", "ls": role.stroke} if role else {"color": colours[names[line]]}
    return found
