"""Figures from rows: one score or cost against another, a point per line of the table.

    python -m runner.figure name=digits_small_cnn_whole_class figure.x=seconds

draws means with 95 % intervals over seeds, the retrained reference and the original as lines across, and
writes <paths.root>/figures/<name>.png and .svg. It needs `pip install -e ".[figures]"`.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from runner.naming import run_name
from runner.report import Report
from runner.results import SHARED, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# An axis whose largest value is so many times its smallest is logarithmic.
WIDE = 20


def draw(report: Report, x: str, y: list[str]) -> "Figure":
    """One panel per score of `y`. Raises UserError where no run has an `x` or a score."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('figures need matplotlib: pip install -e ".[figures]"') from error
    places = _places(report, x)
    known = set(report.cells.index.get_level_values("metric"))
    for name in y:
        if name not in known:
            raise UserError(f"figure.y names {name}, which no run has; there are: {sorted(known)}")
    if not places:
        raise UserError(f"figure.x={x} is no number of any run: choose a score, a cost or an option")
    figure = Figure(figsize=(5.2 * len(y), 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(y), squeeze=False)[0], y, strict=True):
        _panel(axes, report, places, name)
        axes.set_xlabel(x.replace("_", " "))
        axes.set_ylabel(name.replace("_", " "))
        if min(places.values()) > 0 and max(places.values()) > WIDE * min(places.values()):
            axes.set_xscale("log")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def _places(report: Report, x: str) -> dict[tuple[str, str], float]:
    """Where each (setting, cell) lies: the mean of its score or cost, or its option."""
    means = report.cells["value"]
    found = {
        (setting, cell): float(value)
        for (setting, cell, metric), value in zip(means.index, means.to_numpy(), strict=True)
        if metric == x and cell not in SHARED
    }
    for row in report.rows:
        value = row.parameters.get(x)
        if isinstance(value, int | float):
            for cell in row.cells.values():
                found[row.setting, cell] = float(value)
    return found


def _panel(axes: "Axes", report: Report, places: dict[tuple[str, str], float], name: str) -> None:
    columns = report.cells[["value", "half_width"]]
    numbers: dict[Any, Any] = dict(zip(columns.index, columns.to_numpy(), strict=True))
    for place, at in sorted(places.items(), key=lambda item: item[1]):
        if (*place, name) not in numbers:
            continue
        value, half = numbers[*place, name]
        bar = half if half == half else None
        axes.errorbar(at, value, yerr=bar, fmt="o", capsize=3, label=report.labels[place])
    for (setting, cell, metric), (value, _) in numbers.items():
        if metric == name and cell in SHARED:
            style = "--" if cell == "reference" else ":"
            axes.axhline(value, ls=style, color="grey", lw=1, label=report.labels[setting, cell])


def main(overrides: list[str]) -> None:
    from runner.compose import composed

    cfg, names = composed(overrides)
    name, root = run_name(cfg.name, names), Path(cfg.paths.root)
    report = Report(Results(root / "results").rows(name), list(cfg.table.columns))
    figure = draw(report, cfg.figure.x, list(cfg.figure.y))
    (root / "figures").mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "svg"):
        path = root / "figures" / f"{name}.{suffix}"
        figure.savefig(path, dpi=150)
        print(path)


if __name__ == "__main__":
    from runner.edge import telling

    with telling():
        main(sys.argv[1:])
