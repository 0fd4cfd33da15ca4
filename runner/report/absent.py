"""Absent scores: remarks on what metrics gave no value of, with the lines and seeds that lack it."""

from collections.abc import Iterator

from runner.report.words import Names
from runner.results import Result
from runner.roles import REFERENCE, ROLE, UNLEARNED

# The reason of a score that is no finite number.
NOT_FINITE = "its metric returned nan or infinity"

# Lines of a table, each with seeds.
Holders = dict[str, list[str]]

# The most lines that a remark names one by one.
NAMED = 4


def held(lines: Holders) -> str:
    """Return the lines with their seeds, each once: runs that repair in several ways share a model."""
    return "; ".join(
        f"{label} (seed {', '.join(dict.fromkeys(seeds))})" for label, seeds in lines.items()
    )


def of_absent(results: list[Result], names: Names) -> Iterator[str]:
    """Yield a remark for each metric without a score, and for each score that is no finite number."""
    undefined: dict[tuple[str, str], Holders] = {}
    not_finite: dict[str, Holders] = {}
    for result in results:
        seed, own = str(result.seed), names.lines[result.line(UNLEARNED)]
        for each in result.undefined.items():
            undefined.setdefault(each, {}).setdefault(own, []).append(seed)
        for role, scores in result.not_finite.items():
            label = names.lines[result.line(ROLE[role])]
            for name in scores:
                seeds = not_finite.setdefault(name, {}).setdefault(label, [])
                # runs of several methods share a model
                seeds += [each for each in _seeds(result, role, name) if each not in seeds]
    for (metric, reason), lines in undefined.items():
        everywhere = sum(map(len, lines.values())) == len(results)
        name = names.option("metric", metric)
        yield f"{name} has no score{'' if everywhere else f' of {held(lines)}'}: {reason}"
    for name, lines in not_finite.items():
        yield f"{names.score(name)} has no value of {held(lines)}: {NOT_FINITE}"


def _seeds(result: Result, role: str, score: str) -> list[str]:
    """Return the seeds of a role's models that lack a score: a run may have several retrained models."""
    own = {str(result.seed): result.scores.get(role, {})}
    if role == REFERENCE.name:
        own |= {seed: each["scores"] for seed, each in result.references.items()}
    return [seed for seed, scores in own.items() if score not in scores]


def some(names: list[str]) -> str:
    """Return the names, the first ones alone if they are many."""
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} others"
