"""What a figure is: a component that draws the runs of a name."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from data.component import Component
from data.errors import UserError
from runner.figure.runs import Line, Runs

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The models that methods are compared with.
STYLES = {"original": {"color": "grey", "ls": ":"}, "reference": {"color": "grey", "ls": "--"}}


class Drawing(Component):
    """A kind of figure: a frozen dataclass whose fields say what it shows."""

    def draw(self, runs: Runs) -> "Figure":
        """Raises UserError where the runs have nothing of the kind."""
        raise NotImplementedError


def panels(count: int, columns: int, width: float, height: float) -> tuple["Figure", list["Axes"]]:
    """An empty figure of so many panels, `columns` in a row; sizes are a panel's, in inches. Raises
    UserError where there is nothing to show."""
    if not count:
        raise UserError("the figure has no panel: name what it shows with figure.<kind>.y=[…]")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('figures need matplotlib: pip install -e ".[figures]"') from error
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = [axes for row in figure.subplots(rows, columns, squeeze=False) for axes in row]
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def legend(figure: "Figure", runs: Runs, names: Mapping[Line, str]) -> None:
    """One legend of all panels by the lines' names, in the order of the table; the figure grows by its
    width."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    shown = [name for name in dict.fromkeys(names[line] for line in runs.models) if name in found]
    handles = [found[name] for name in shown]
    beside = figure.legend(handles, shown, loc="outside right upper", fontsize="small")
    figure.set_figwidth(figure.get_figwidth() + beside.get_window_extent().width / figure.dpi)


def styles(lines: Collection[Line], names: Mapping[Line, str]) -> dict[Line, dict[str, Any]]:
    """How every line of the table is drawn, the same in all panels: a colour for a name, of twenty."""
    from matplotlib import colormaps

    pairs = colormaps["tab20"]  # a full and a light one of each of ten colours in turns: full ones first
    own = list(dict.fromkeys(names[line] for line in lines if line[1] not in STYLES))
    colours = {name: pairs((2 * number + number // 10) % 20) for number, name in enumerate(own)}
    return {line: STYLES.get(line[1]) or {"color": colours[names[line]]} for line in lines}
