"""What a figure is: a component that draws the runs of a name."""

from typing import TYPE_CHECKING, Any

from data.component import Component
from data.errors import UserError
from runner.figure.runs import Runs

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
    """An empty figure of so many panels, `columns` in a row; sizes are a panel's, in inches."""
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


def legend(figure: "Figure") -> None:
    """One legend with every line of any panel once, on the right; the figure grows by its width."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    beside = figure.legend(found.values(), found, loc="outside right upper", fontsize="small")
    figure.set_figwidth(figure.get_figwidth() + beside.get_window_extent().width / figure.dpi)


def style_of(cell: str) -> dict[str, Any]:
    """How a cell's line is drawn, where that is not for the panel to choose."""
    return STYLES.get(cell, {})
