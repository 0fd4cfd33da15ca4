"""Comparisons: every line's scores beside the retrained models of its setting."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runner.report.cells import Estimate, half_width_of
from runner.report.verdicts import FEWEST, Difference, from_pairs, from_shared, verdict, would_decide
from runner.results import Line, Result, meaning_of, models
from runner.roles import REFERENCE


class Compared(NamedTuple):
    """A line's score beside the retrained models: its difference from them, their own mean and interval,
    the verdict, and the number of seeds and retrained models that would decide an unclear one. `paired`
    is true if the score itself compares with a retrained model."""

    difference: Difference
    retrained: Estimate
    verdict: str
    needed: int | None
    paired: bool


Comparisons = Mapping[tuple[Line, str], Compared]


@dataclass
class Values:
    """One score of one line: its value by seed, and what the retrained models have.

    `own` holds, by seed, the scores of the retrained models for that seed's run. `pool` holds, by their
    seeds, the scores of the retrained models that all runs of the setting share; it is None if every
    seed has its own request, or if the score compares with the retrained model of the same seed.
    """

    about: Mapping[str, Any]
    value: dict[int | None, float] = field(default_factory=dict)
    own: dict[int | None, list[float]] = field(default_factory=dict)
    pool: Mapping[str, float] | None = None

    def retrained(self) -> Estimate | None:
        """Return the mean and interval of the retrained models' scores; None if they are too few."""
        if self.pool is not None:
            return _estimate(list(self.pool.values()))
        means = [sum(found) / len(found) for found in self.own.values() if found]
        return _estimate(means if len(means) > 1 else [x for found in self.own.values() for x in found])

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
            return from_shared([value], self.own[seed])
        differences = [
            value - sum(self.own[seed]) / len(self.own[seed]) for seed, value in self.value.items()
        ]
        return from_pairs(differences, min(len(self.own[seed]) for seed in self.value))


def compared(scores: Mapping[tuple[Line, str], Values]) -> dict[tuple[Line, str], Compared]:
    """Return the comparisons by line and score, where there are enough retrained models."""
    found = {}
    for key, values in scores.items():
        retrained, difference = values.retrained(), values.difference()
        if retrained is None or difference is None:
            continue
        about = values.about
        word = verdict(difference, about["margin"], about["remembers"], about["better"])
        needed = would_decide(difference, about["margin"]) if word == "unclear" else None
        found[key] = Compared(difference, retrained, word, needed, about["paired"])
    return found


def retrained(scores: Mapping[tuple[Line, str], Values]) -> dict[tuple[Line, str], Estimate]:
    """Return the mean and interval of the retrained models by their line and score, where there are
    several."""
    found = {}
    for (line, name), values in scores.items():
        estimate = values.retrained()
        if estimate is not None:
            found[Line(line.setting, REFERENCE.name), name] = estimate
    return found


def values_of(results: list[Result]) -> dict[tuple[Line, str], Values]:
    """Return every score of every line but the retrained models' own, if the results say what it means
    and have several retrained models."""
    pools = _pools(results)
    found: dict[tuple[Line, str], Values] = {}
    for line, result, role in models(results):
        if role is REFERENCE or not result.references:
            continue
        for name, value in result.scores[role.name].items():
            about = meaning_of(name, result.about)
            if about is None or name not in result.scores.get(REFERENCE.name, {}):
                continue
            shared = not result.drawn and not about["paired"]
            pool = pools[line.setting, name] if shared else None
            values = found.setdefault((line, name), Values(about, pool=pool))
            values.value[result.seed] = value
            values.own[result.seed] = list(_retrained_for(result, name, about["paired"]).values())
    return found


def _pools(results: Iterable[Result]) -> dict[tuple[str, str], dict[str, float]]:
    """Return the scores of all retrained models of a setting by name of the score, then by seed."""
    pools: dict[tuple[str, str], dict[str, float]] = {}
    for result in results:
        for name in result.scores.get(REFERENCE.name, {}):
            pool = pools.setdefault((result.setting, name), {})
            for seed, value in _retrained_for(result, name, paired=False).items():
                pool.setdefault(seed, value)
    return pools


def _retrained_for(result: Result, name: str, paired: bool) -> dict[str, float]:
    """Return a score of the retrained models of one run by seed.

    A score that compares leaves out the run's own reference, whose distance from itself is 0.
    """
    others = {seed: each["scores"] for seed, each in result.references.items()}
    if not paired:
        others = {str(result.seed): result.scores[REFERENCE.name], **others}
    return {seed: scores[name] for seed, scores in others.items() if name in scores}


def _estimate(values: list[float]) -> Estimate | None:
    if len(values) < 2:
        return None
    return Estimate(sum(values) / len(values), half_width_of(values), len(values))
