"""python -m tests.glossary

Write the table of all metrics into metrics/README.md, from what each metric says of its scores.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import metrics
from metrics.metric import Metric, Score
from metrics.predictions import PARTS
from tests.conftest import options, plan_of
from tests.tables import markdown

README = Path(metrics.__file__).with_name("README.md")

COMMAND = "python -m tests.glossary"

# The lines around the table.
START, END = f"<!-- {COMMAND} writes this table -->", "<!-- end of the table -->"

HEADS = ("option", "scores", "meaning", "unit", "best", "remembers", "margin", "needs", "presets")

PRESETS = ("standard", "privacy", "full")

BEST = {"higher": "higher", "lower": "lower", "reference": "as retrained"}

REMEMBERS = {1: "higher = still knows", -1: "lower = still knows", 0: ""}

# The endings of scores that say more about another one. The page explains them once.
ENDINGS = ("_se", "_low", "_high", "_censored", "_null")


def table() -> str:
    """Return the table of all metrics, as Markdown."""
    lines = [HEADS, ["---"] * len(HEADS), *rows()]
    return markdown(lines)


def rows() -> Iterator[list[str]]:
    """Yield a line for each meaning of every metric; scores of several parts that mean the same share
    one."""
    shadows = "evaluation.shadows=16"
    presets = {name: plan_of(f"evaluation={name}", shadows).metrics for name in PRESETS}
    for option in options("metric"):
        (metric,) = plan_of(f"metric=[{option}]", shadows).metrics
        needs = ", ".join(str(need.name).lower() for need in metric.needs)
        among = ", ".join(name for name in PRESETS if metric in presets[name])
        for names, meaning in meanings(metric):
            yield [f"`{option}`", names, *meaning, needs, among]


def meanings(metric: Metric) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the names of scores that mean the same, and the cells of their meaning."""
    about = metric.about()
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, said in about.items():
        if not says_more(name, about):
            part = part_of(name)
            family = f"<part>{name.removeprefix(part)}" if part else name
            found.setdefault((family, cells(said, part)), []).append(name)
    for (family, meaning), names in found.items():
        if len(names) == 1:
            yield f"`{names[0]}`", cells(about[names[0]], "")
        elif {family.replace("<part>", part) for part in PARTS} <= set(names):
            yield f"`{family}`", meaning
        else:
            yield ", ".join(f"`{name}`" for name in names), meaning


def says_more(name: str, about: Mapping[str, Score]) -> bool:
    """Return whether a score says more about another one, as its name tells."""
    return any(name.endswith(ending) and name.removesuffix(ending) in about for ending in ENDINGS)


def part_of(name: str) -> str:
    """Return the part of the data that a score is of, or the empty string."""
    parts = sorted((*PARTS, "train"), key=len, reverse=True)
    return next((part for part in parts if name.startswith(f"{part}_")), "")


def cells(said: Score, part: str) -> tuple[str, ...]:
    """Return the cells of a score's meaning, in words that fit every part if it is of one."""
    says = said.says.replace(f"the {part.replace('_', ' ')} rows", "the part's rows")
    margin = "" if said.margin is None else f"{said.margin:g}"
    return says, said.unit, BEST[said.better.value], REMEMBERS[said.remembers], margin


def written(page: str) -> str:
    """Return the page with the table of today in place of the one that it holds."""
    return between(page, START, END, table())


def between(page: str, start: str, end: str, text: str) -> str:
    """Return a page with this text between two lines of it, in place of what stands there."""
    before, rest = page.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n{text}{end}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
