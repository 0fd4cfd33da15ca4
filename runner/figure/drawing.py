"""The base class of figures, and what they share: panels, legends and styles."""

import math
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from data.component import Component
from data.errors import UserError
from runner.figure.runs import Model, Runs
from runner.results import Line

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import Container
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


# Okabe and Ito's colours, which the colour-blind tell apart, without yellow, which is faint on white;
# and as many markers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# The colour inside the markers of a single seed.
HOLLOW = "white"

# The most names in one panel.
MOST = len(COLOURS)

Item = TypeVar("Item")

# The most letters in a line of a legend or beside an axis, and in an inch of a line below the panels.
LETTERS, PER_INCH = 36, 14


class Drawing(Component):
    """A kind of figure: a frozen dataclass whose fields are its options."""

    def draw(self, runs: Runs) -> "Figure":
        """Return the figure of the runs. Raise UserError if they lack what it shows."""
        raise NotImplementedError

    def has(self, model: Model) -> bool:
        """Return whether a model has what the figure shows. Raise UserError if it is not stored."""
        return True

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


def groups(runs: Runs, names: Mapping[Line, str]) -> list[list[str]]:
    """Return the names of the runs' own lines, in the order of the table, in groups of at most `MOST`:
    one panel each, so that no two of a panel look alike."""
    return in_groups(dict.fromkeys(names[line] for line in runs.models if line.shared_role is None))


def in_groups(each: Iterable[Item]) -> list[list[Item]]:
    """Return the items in groups of at most `MOST`; one empty group if there are none."""
    own = list(each)
    return [own[start : start + MOST] for start in range(0, len(own), MOST)] or [[]]


def grid(
    runs: Runs, names: Mapping[Line, str], columns: int, same: bool = True
) -> tuple["Figure", list[tuple[list[Line], list["Axes"]]]]:
    """Return an empty figure of `columns` panels side by side, in a row for each group of names.

    With each row come its lines: those of the group, and the shared ones. If `same`, panels below each
    other have the same horizontal axis; the vertical one is the same in any case.
    """
    found = groups(runs, names)
    figure, axes = panels(len(found) * columns, columns, 5.2, 4)
    for number, each in enumerate(axes[columns:], start=columns):
        if same:
            each.sharex(axes[number % columns])
        each.sharey(axes[number % columns])
    rows = []
    for number, group in enumerate(found):
        lines = [line for line in runs.models if line.shared_role or names[line] in group]
        rows.append((lines, axes[number * columns : (number + 1) * columns]))
    return figure, rows


def in_lines(title: str) -> str:
    """Return a title in as many lines as it needs beside a panel."""
    return "\n".join(wrap(title, LETTERS))


def legend(figure: "Figure", rows: Sequence[Sequence["Axes"]]) -> None:
    """Add a legend beside each row of panels, in the order in which its lines were drawn, and widen the
    figure to hold them. It says what hollow markers mean if there are some."""
    widest = 0.0
    for across in rows:
        found: dict[str, Artist | Container] = {}
        for axes in across:
            handles, labels = axes.get_legend_handles_labels()
            for label, handle in zip(labels, handles, strict=True):
                found.setdefault(label, handle)
        beside = across[-1].legend(
            list(found.values()),
            [in_lines(label) for label in found],
            title="hollow: one seed" if any(map(_is_hollow, found.values())) else None,
            title_fontsize="small",
            alignment="left",
            loc="upper left",
            bbox_to_anchor=(1.02, 1),
            borderaxespad=0,
            fontsize="small",
        )
        widest = max(widest, beside.get_window_extent().width / figure.dpi)
    figure.set_figwidth(figure.get_figwidth() + widest)


def _is_hollow(drawn: "Artist | Container") -> bool:
    """Return whether a curve, or a point with its interval, has hollow markers."""
    from matplotlib.lines import Line2D

    line = drawn[0] if isinstance(drawn, tuple) else drawn
    return isinstance(line, Line2D) and line.get_markerfacecolor() == HOLLOW


def note(figure: "Figure", text: str) -> None:
    """Write a sentence below the panels, if there is one."""
    if text:
        lines = wrap(text, round(PER_INCH * figure.get_figwidth()))
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize="small")


def styles(lines: Sequence[Line], names: Mapping[Line, str]) -> dict[Line, dict[str, Any]]:
    """Return matplotlib's style of every line of a group: a colour and a marker for each name.

    The models that methods are compared with are grey.
    """
    own = list(dict.fromkeys(names[line] for line in lines if line.shared_role is None))
    found = {}
    for line in lines:
        role = line.shared_role
        if role:
            found[line] = {"color": "grey", "ls": role.stroke}
        else:
            number = own.index(names[line])
            found[line] = {"color": COLOURS[number], "marker": MARKERS[number]}
    return found


def legend_name(runs: Runs, line: Line, names: Mapping[Line, str]) -> str:
    """Return the name of a line in a legend: that of its role alone, if it is shared and there are
    several settings."""
    several = len({other.setting for other in runs.models}) > 1
    return line.shared_role.words if several and line.shared_role else names[line]


def histograms(
    axes: "Axes",
    runs: Runs,
    lines: Sequence[Line],
    values: "Mapping[Line, NDArray[np.floating[Any]]]",
    bins: int,
) -> None:
    """Draw the density of the values of every line that has some, all over the same `bins`. `lines` are
    those of the row of panels, in which each has one style."""
    own = [line for line in lines if line in values]
    if not own:
        return
    edges = np.histogram_bin_edges(np.concatenate([values[line] for line in own]), bins)
    titles, looks = runs.report.titles, styles(lines, runs.report.titles)
    for line in own:
        density, _ = np.histogram(values[line], edges, density=True)
        look = {name: value for name, value in looks[line].items() if name != "marker"}
        axes.stairs(density, edges, label=legend_name(runs, line, titles), **look)


def svg(figure: "Figure") -> bytes:
    """Return a figure as SVG without a ground, whose text is text and in the reader's own font."""
    from matplotlib import rc_context

    with BytesIO() as file, rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        return file.getvalue()
