"""The glossary: what scores mean, and in which direction they are better."""

from collections.abc import Iterable, Mapping

from data.meanings import meaning
from runner.report.cells import About
from runner.report.text import OFFICIAL

# The words for the directions of scores.
DIRECTIONS = {
    "higher": "higher is better",
    "lower": "lower is better",
    "reference": "best: as the retrained models",
}


def glossary(about: About, columns: Mapping[str, str]) -> list[str]:
    """Return one sentence for each column that `about` explains; columns map to their heads."""
    found = [f"{head}: {said}" for column, head in columns.items() if (said := meant(column, about))]
    if any(OFFICIAL in column for column in columns):
        found.append("†: as a paper's code computes it, quirks included; it has no verdict")
    return found


def meant(column: str, about: About) -> str:
    """Return the meaning of a column, its unit and direction; nothing if `about` lacks it."""
    if (said := meaning(column, about)) is None:
        return ""
    return f"{said['says']} ({said['unit']}; {DIRECTIONS[said['better']]})"


def choice_of(columns: Iterable[str], about: About) -> str:
    """Return all columns that table.columns=[…] may name, one a line, with what is known of each."""
    return "\n".join(": ".join(filter(None, [each, meant(each, about)])) for each in sorted(columns))
