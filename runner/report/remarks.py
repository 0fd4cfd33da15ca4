"""Remarks below a table: what its numbers rest on, and what they lack."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

import conf
from runner.results import Line, Result
from runner.roles import UNLEARNED

# Conditions that all runs of a table should share: keys of a result's provenance.
CONDITIONS = ("commit", "device", "threads", "torch")


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
    found += _of_conditions(results)
    if absent:
        found.append(f"no run has these columns: {', '.join(sorted(absent))}")
    return found


def _of_conditions(results: list[Result]) -> list[str]:
    """Return a remark for every condition in which the runs differ."""
    found = []
    made = [made for result in results for made in result.provenance.values()]
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
