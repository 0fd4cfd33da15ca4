"""The data frame of many results."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from runner.results import Line, Result, models
from runner.roles import REFERENCE, UNLEARNED

if TYPE_CHECKING:  # pandas is imported when a report renders
    import pandas as pd


def tidy(results: list[Result]) -> "pd.DataFrame":
    """Return a frame with one entry per model and number: `setting`, `cell`, `seed`, `metric`, `value`
    and `gap`.

    `gap` is the value minus that of the same run's reference, NaN if the reference has no such score.
    Originals and references that several runs share appear once per setting and seed, by a run that has
    the gap if there is one. The values of a score of a whole cell appear once per cell, by their places
    instead of seeds.
    """
    import pandas as pd

    entries: dict[tuple[object, ...], tuple[object, ...]] = {}
    for line, result, role in models(results):
        reference = result.scores.get(REFERENCE.name, {})
        for name, value in (*result.scores[role.name].items(), *result.costs[role.name].items()):
            gap = value - reference[name] if name in reference else None
            key = (*line, result.seed, name)
            if key not in entries or (entries[key][-1] is None and gap is not None):
                entries[key] = (*line, result.seed, name, value, gap)
    for line, name, found in cell_values(results):
        for place, value in enumerate(found):
            entries[*line, place, name] = (*line, place, name, value, None)
    columns = ["setting", "cell", "seed", "metric", "value", "gap"]
    return pd.DataFrame(list(entries.values()), columns=columns)


def cell_values(results: list[Result]) -> Iterator[tuple[Line, str, list[float]]]:
    """Yield line, name and values of every score of a cell, once per cell: of runs that differ,
    those of the one that has the most."""
    found: dict[tuple[Line, str], list[float]] = {}
    for result in results:
        line = result.line(result.repeats or UNLEARNED)
        for name, value in result.cell_scores.items():
            values = value if isinstance(value, list) else [value]
            if len(values) > len(found.get((line, name), [])):
                found[line, name] = values
    for (line, name), values in found.items():
        yield line, name, values
