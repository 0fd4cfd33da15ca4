"""Remarks below a table: what its numbers rest on, and what they lack."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

import conf
from data.meanings import meaning
from runner.report.compare import Comparisons
from runner.report.text import OFFICIAL
from runner.report.verdicts import false_flags
from runner.results import Line, Result
from runner.roles import UNLEARNED

# Conditions that all runs of a table should share: keys of a result's provenance.
CONDITIONS = ("commit", "device", "threads", "torch")


# The words for the directions of scores.
DIRECTIONS = {
    "higher": "higher is better",
    "lower": "lower is better",
    "reference": "best: as the retrained models",
}


def remarks(
    results: list[Result], labels: Mapping[Line, str], seeds: int, absent: Collection[str]
) -> list[str]:
    """Return the remarks, one sentence each.

    `seeds` is the largest number of seeds of any cell; `absent` are the columns that no run has.
    """
    found = []
    if seeds > 1:
        found.append(f"mean ± 95 % t-interval over {seeds} seeds; gaps are paired by seed")
    for result in results:
        if result.status != "done":
            label = labels[result.line(UNLEARNED)]
            found.append(f"{label}, seed {result.seed}: {result.status}: {result.error}")
    undefined = {name: reason for result in results for name, reason in result.undefined.items()}
    found += [f"{name} has no score: {reason}" for name, reason in undefined.items()]
    found += _of_conditions(results)
    if absent:
        found.append(f"no run has these columns: {', '.join(sorted(absent))}")
    return found


def verdict_remarks(
    comparisons: Comparisons, lines: Collection[Line], columns: Collection[str]
) -> list[str]:
    """Return the remarks on the verdicts in these lines and columns; none if there is no verdict."""
    shown = [
        each
        for (line, name), each in comparisons.items()
        if line in lines and name in columns and each.verdict
    ]
    if not shown:
        return []
    counts = sorted({int(each.retrained.n) for each in shown})
    models = " to ".join(map(str, sorted({counts[0], counts[-1]})))
    return [
        f"retrain: mean ± 95 % t-interval over {models} retrained models; scores that compare with a "
        "retrained model compare them with each other",
        "verdicts: matches (within the margin, two one-sided tests at 5 %); under or over (forgets), "
        "damaged, above, differs (95 % interval without 0); ? (unclear: n seeds and as many retrained "
        "models would decide)",
        f"{len(shown)} verdicts; if all these models were retrained ones, "
        f"{false_flags(len(shown)):.1f} would wrongly differ",
    ]


def glossary(results: Iterable[Result], columns: Mapping[str, str]) -> list[str]:
    """Return one sentence for each column whose meaning a result tells; columns map to their heads."""
    about = {name: said for result in results for name, said in result.about.items()}
    found = []
    for column, head in columns.items():
        if (said := meaning(column, about)) is not None:
            found.append(f"{head}: {said['says']} ({said['unit']}; {DIRECTIONS[said['better']]})")
    if any(OFFICIAL in column for column in columns):
        found.append("†: as a paper's code computes it, quirks included; it has no verdict")
    return found


def _of_conditions(results: list[Result]) -> list[str]:
    """Return a remark for every condition in which the runs differ."""
    found = []
    made = [made for result in results for made in result.provenance.values()]
    made += [
        each["provenance"]
        for result in results
        for each in result.references.values()
        if "provenance" in each
    ]
    for condition in CONDITIONS:
        values = sorted({str(conditions[condition])[:20] for conditions in made})
        if len(values) > 1:
            found.append(f"made with more than one {condition}: {', '.join(values)}")
    if any(conditions["dirty"] for conditions in made):
        found.append("made with uncommitted changes")
    return found


def are_chosen(columns: Sequence[str]) -> bool:
    """Return whether columns differ from the default ones.

    A run may lack some of the default ones: without forgotten test rows, it has no
    `test_forget_accuracy`.
    """
    default = OmegaConf.load(Path(conf.__file__).with_name("config.yaml"))
    return list(columns) != list(default.table.columns)
