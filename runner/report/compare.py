"""Comparisons: every line's scores beside the retrained models of its setting."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data.meanings import CENSORED, meaning
from runner.report.cells import Estimate, half_width_of
from runner.report.frame import cell_values
from runner.report.verdicts import (
    FEWEST,
    Difference,
    from_one,
    from_pairs,
    from_shared,
    moments,
    remembered,
    verdict,
    would_decide,
)
from runner.results import Line, Result, models
from runner.roles import REFERENCE


class Compared(NamedTuple):
    """A line's score beside the retrained models.

    It holds its difference from them, their own mean and interval, the verdict if there is one, and the
    number of seeds and retrained models that would decide an unclear one. `paired` is true if the score
    itself compares with a retrained model.
    """

    difference: Difference
    retrained: Estimate
    verdict: str | None
    needed: int | None
    paired: bool


# A line and a score.
Key = tuple[Line, str]

Comparisons = Mapping[Key, Compared]


@dataclass
class LineScore:
    """One score of one line: its value by seed, and what the retrained models have.

    `own` holds, by seed, the scores of the retrained models for that seed, whichever runs of the setting
    have them. `pool` holds, by their seeds, the scores of the retrained models that all runs of the
    setting share; it is None if every seed has its own request, or if the score compares with the
    retrained model of the same seed.
    """

    about: Mapping[str, Any]
    value: dict[int | None, float] = field(default_factory=dict)
    own: dict[int | None, list[float]] = field(default_factory=dict)
    pool: Mapping[str, float] | None = None

    @property
    def by_seed(self) -> list[list[float]]:
        """The scores of the retrained models for each seed that has some."""
        return [found for found in self.own.values() if found]

    def retrained(self) -> Estimate | None:
        """Return the mean and interval of the retrained models' scores; None if they are too few."""
        if self.pool is not None:
            return _estimate(list(self.pool.values()))
        means = [sum(found) / len(found) for found in self.by_seed]
        return _estimate(means if len(means) > 1 else [x for found in self.by_seed for x in found])

    def difference(self) -> Difference | None:
        """Return the difference from the retrained models, or None if they are fewer than 4."""
        fewest = FEWEST - 1 if self.about["paired"] else FEWEST
        if self.pool is not None:
            enough = len(self.pool) >= fewest
            return from_shared(list(self.value.values()), list(self.pool.values())) if enough else None
        if any(len(self.own[seed]) < fewest for seed in self.value):
            return None
        if len(self.value) == 1:
            ((seed, value),) = self.value.items()
            return from_one(value, self.own[seed])
        # the exact mean: that of equal scores is their value, with no rounding to be told from 0
        differences = [value - moments(tuple(self.own[seed]))[0] for seed, value in self.value.items()]
        return from_pairs(differences)


def compared(scores: Mapping[Key, LineScore]) -> dict[Key, Compared]:
    """Return the comparisons by line and score, where there are enough retrained models."""
    found = {}
    for key, values in scores.items():
        retrained, difference = values.retrained(), values.difference()
        if retrained is None or difference is None:
            continue
        about = values.about
        found[key] = _judged(difference, retrained, about)
    return found


def _judged(difference: Difference, retrained: Estimate, about: Mapping[str, Any]) -> Compared:
    """Return the comparison with its verdict.

    A score that compares two models tells only that they differ. There is no verdict on a score that
    states neither a margin nor a direction, such as a speed-up, an interval's end or an official twin.
    """
    better, remembers = "reference" if about["paired"] else about["better"], about["remembers"]
    if better == "reference" and not remembers and about["margin"] is None:
        return Compared(difference, retrained, None, None, about["paired"])
    word = verdict(difference, about["margin"], remembers, better)
    needed = would_decide(difference, about["margin"]) if word == "unclear" else None
    return Compared(difference, retrained, word, needed, about["paired"])


def of_cells(results: list[Result]) -> tuple[dict[Key, Compared], dict[Key, Estimate]]:
    """Return the comparisons of the scores of whole cells, and the retrained models' estimates.

    Retrained models have the value that the definition gives, or that was measured as `<name>_null`.
    """
    found, nulls = {}, {}
    abouts = {(result.setting, name): result.about for result in results for name in result.cell_scores}
    measured = {(line, name): values for line, name, values in cell_values(results)}
    for (line, name), values in measured.items():
        about = meaning(name, abouts[line.setting, name])
        if about is None:
            continue
        null = measured.get((line, f"{name}_null"))
        known = about["null"]
        if null is None and known is None:
            continue
        estimate = Estimate(known, math.nan, 1) if null is None else _spread(tuple(null))
        nulls[Line(line.setting, REFERENCE.name), name] = estimate
        if known is not None and len(values) > 1:
            difference = from_pairs([value - known for value in values])
            found[line, name] = _judged(difference, estimate, about)
    return found, nulls


def retrained(scores: Mapping[Key, LineScore]) -> dict[Key, Estimate]:
    """Return the mean and interval of the retrained models by their line and score, where there are
    several."""
    each = {key: values.retrained() for key, values in _of_retrained(scores).items()}
    return {key: estimate for key, estimate in each.items() if estimate is not None}


def of_means(scores: Mapping[Key, LineScore]) -> set[Key]:
    """Return the scores of retrained models, by their line, whose values are the means over those of a
    seed: there are several seeds, each with retrained models of its own."""
    found = _of_retrained(scores).items()
    return {key for key, values in found if values.pool is None and len(values.by_seed) > 1}


def _of_retrained(scores: Mapping[Key, LineScore]) -> dict[Key, LineScore]:
    """Return the scores of the retrained models by their line, of all seeds that any line has."""
    together: dict[Key, LineScore] = {}
    for (line, name), values in scores.items():
        key = Line(line.setting, REFERENCE.name), name
        # a line may lack seeds that others have
        together.setdefault(key, LineScore(values.about, pool=values.pool)).own.update(values.own)
    return together


def values_of(results: list[Result]) -> dict[Key, LineScore]:
    """Return every score of every line but the retrained models' own, if the results say what it means
    and the run has a retrained model.

    A score that is censored in the line or among the retrained models is left out: those that got there
    within the budget are no fair sample.
    """
    pools, ended = _pools(results), censored(results)
    found: dict[Key, LineScore] = {}
    for line, result, role in models(results):
        if role is REFERENCE:
            continue
        for name, value in result.scores[role.name].items():
            about = meaning(name, result.about)
            if about is None or name not in result.scores.get(REFERENCE.name, {}):
                continue
            if ended & {(line, name), (result.line(REFERENCE), name)}:
                continue
            seed = _request_of(result, about)
            pool = pools[line.setting, name, seed]
            values = found.setdefault(
                (line, name), LineScore(about, pool=pool if seed is None else None)
            )
            values.value.setdefault(result.seed, value)
            values.own[result.seed] = list(pool.values())
    return found


def censored(results: list[Result]) -> set[Key]:
    """Return the scores by line of which some training ended before the score was known."""
    found = set()
    for line, result, role in models(results):
        others = [each["scores"] for each in result.references.values()] if role is REFERENCE else []
        flags = {name for scores in (result.scores[role.name], *others) for name in scores}
        found |= {(line, name.removesuffix(CENSORED)) for name in flags if name.endswith(CENSORED)}
    return found


def _pools(results: Iterable[Result]) -> dict[tuple[str, str, int | None], dict[str, float]]:
    """Return the scores of all retrained models by setting, score, and the seed of `_request_of`, then
    by their own seeds. Runs of one seed may have different ones of them."""
    pools: dict[tuple[str, str, int | None], dict[str, float]] = {}
    for result in results:
        for name in result.scores.get(REFERENCE.name, {}):
            if (about := meaning(name, result.about)) is None:
                continue
            pool = pools.setdefault((result.setting, name, _request_of(result, about)), {})
            for seed, value in _retrained_for(result, name, about["paired"]).items():
                pool.setdefault(seed, value)
    return pools


def _request_of(result: Result, about: Mapping[str, Any]) -> int | None:
    """Return the seed whose retrained models a score stands beside; None if all seeds share them."""
    return result.seed if result.drawn or about["paired"] else None


def _retrained_for(result: Result, name: str, paired: bool) -> dict[str, float]:
    """Return a score of the retrained models of one run by seed.

    A score that compares leaves out the run's own reference, whose distance from itself is 0.
    """
    others = {seed: each["scores"] for seed, each in result.references.items()}
    if not paired:
        others = {str(result.seed): result.scores[REFERENCE.name], **others}
    return {seed: scores[name] for seed, scores in others.items() if name in scores}


def _estimate(values: list[float]) -> Estimate | None:
    return _spread(tuple(values)) if len(values) > 1 else None


@remembered
def _spread(values: tuple[float, ...]) -> Estimate:
    width = half_width_of(values) if len(values) > 1 else math.nan
    return Estimate(sum(values) / len(values), width, len(values))
