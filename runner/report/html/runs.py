"""The runs behind a report: the command that makes each, and those that are missing."""

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from runner.naming import command_of
from runner.report import Report
from runner.results import Line, Result
from runner.roles import UNLEARNED, Role


class Made(NamedTuple):
    """A model behind a line: its seed, the commands that make all of its scores, its result's file, and
    what made it."""

    seed: int | None
    commands: list[str]
    file: str
    provenance: dict[str, Any]


class Missing(NamedTuple):
    """A run without scores: its line and seed, or its options; the reason; the command that makes it."""

    title: str
    seed: str
    reason: str
    command: str


def made(report: Report) -> dict[Line, list[Made]]:
    """Return the models of every line, one for each seed."""
    return {line: [_made(*each) for each in models] for line, models in report.models().items()}


def unfinished(root: Path, name: str) -> list[Missing]:
    """Return the cells of the name's sweeps below `paths.root` that have no result."""
    from runner.launch.task import labels
    from runner.state.progress import progress

    left = progress(root, name).left
    texts = labels([seen.cell.overrides for seen in left]) if left else []
    return [
        Missing(text, "", f"{seen.state.value} {seen.why}".strip(), seen.command)
        for text, seen in zip(texts, left, strict=True)
    ]


def missing(report: Report) -> list[Missing]:
    """Return the runs that diverged, and the seeds that a method lacks.

    Each method should have the seeds that any method has, and as many more as the report asks for.
    """
    titles, found = report.titles, []
    seeds = _expected(report)
    by_line: dict[Line, dict[int | None, Result]] = {}
    for result in report.results:
        by_line.setdefault(result.line(UNLEARNED), {})[result.seed] = result
    for line, results in by_line.items():
        for result in results.values():
            if result.status != "done" and result.seed is not None:
                reason = f"{result.status}: {result.error}"
                found.append(
                    Missing(titles[line], str(result.seed), reason, command_of(result.overrides))
                )
        like = next(iter(results.values()))
        for seed in seeds:
            if seed not in results and None not in results:
                again = [each for each in like.overrides if not each.startswith("seed=")]
                found.append(
                    Missing(titles[line], str(seed), "not run", command_of([*again, f"seed={seed}"]))
                )
    return found


def _made(result: Result, role: Role) -> Made:
    provenance = {**result.provenance.get("row", {}), **result.provenance.get(role.name, {})}
    commands = [command_of(each) for each in result.commands]
    return Made(result.seed, commands, f"{result.name}/{result.key}.json", provenance)


def _expected(report: Report) -> list[int]:
    """Return the seeds that any run has, and the smallest other ones if the report asks for more."""
    known = {result.seed for result in report.results if result.seed is not None}
    others: Iterator[int] = (seed for seed in count() if seed not in known)
    return sorted({*known, *islice(others, max((report.seeds or 0) - len(known), 0))})
