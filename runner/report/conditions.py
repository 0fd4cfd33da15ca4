"""The conditions in which the runs of a table were made and scored, where they differ."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner.own_code import CODE_OF
from runner.report.absent import Holders, held, some
from runner.results import Line, Result
from runner.roles import REFERENCE, ROLE, UNLEARNED

# Conditions that all runs of a table should share: keys of a result's provenance.
CONDITIONS = {
    "commit": "commits",
    "device": "devices",
    "threads": "numbers of threads",
    "processes": "numbers of processes",
    "torch": "versions of torch",
}

# Options that decide what a score is, and that are no part of a line.
OF_SCORING = re.compile(r"evaluation\.(reference|reference\..+|metrics\..+(?<!_target_)|curve_\w+)")


def of_conditions(results: list[Result], labels: Mapping[Line, str]) -> list[str]:
    """Return a remark for every condition in which models or scores differ, with those of each."""
    made = [each for result in results for each in _made(result, labels)]
    own = {key: key for _, conditions in made for key in conditions if key.startswith(CODE_OF)}
    found = []
    for condition, words in (CONDITIONS | own).items():
        by_value: dict[str, dict[str, None]] = {}
        for name, conditions in made:
            if condition in conditions or condition not in own:
                # a provenance that counts no processes is of a single one
                by_value.setdefault(str(conditions.get(condition, 1))[:20], {})[name] = None
        if len(by_value) > 1:
            each = [f"{value} ({some(list(by_value[value]))})" for value in sorted(by_value)]
            found.append(f"made with different {words}: {'; '.join(each)}")
    if any(conditions["dirty"] for _, conditions in made):
        found.append("made with uncommitted changes")
    return found


def _made(result: Result, labels: Mapping[Line, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the conditions in which the scores, the models and the other references were made."""
    for name, conditions in result.provenance.items():
        yield labels[result.line(ROLE[name])] if name in ROLE else "scores", conditions
    for each in result.references.values():
        if "provenance" in each:
            yield labels[result.line(REFERENCE)], each["provenance"]


def of_scoring(results: list[Result], labels: Mapping[Line, str]) -> list[str]:
    """Return a remark for every option of scoring in which runs differ, with those of each value."""
    made = [(result, _scoring(result)) for result in results if result.scores]
    found = []
    for option in sorted({option for _, options in made for option in options}):
        by_value: dict[str, Holders] = {}
        for result, options in made:
            lines = by_value.setdefault(options.get(option, "not given"), {})
            lines.setdefault(labels[result.line(UNLEARNED)], []).append(str(result.seed))
        if len(by_value) > 1:
            each = [
                f"{value} for {some([held({label: seeds}) for label, seeds in lines.items()])}"
                for value, lines in sorted(by_value.items())
            ]
            found.append(f"scored with different {option}: {'; '.join(each)}")
    return found


def _scoring(result: Result) -> dict[str, str]:
    """Return the options of scoring that the commands of a result give, with their values."""
    given = (text.lstrip("+").partition("=") for command in result.commands for text in command)
    return {option: value for option, _, value in given if OF_SCORING.fullmatch(option)}
