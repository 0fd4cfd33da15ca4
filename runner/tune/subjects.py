"""Subjects: the lines of a table that are tuned, from the command that makes the table."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from conf import Tune, Until
from data.bounds import check_bounds
from data.errors import UserError
from data.requests import Request
from runner import stages
from runner.compose import composed, jobs
from runner.naming import TUNED, as_typed, ending, folder_of, run_name
from runner.plan import Plan
from runner.plan.checks import check_request
from runner.say import say
from runner.store import Store
from runner.tune.search import Search, direction_of
from runner.tune.space import ends, space_of

# A search starts at the method's own options, not at those that an earlier search has found.
UNTUNED = "tuned=none"


@dataclass(frozen=True)
class Subject:
    """One method on one data set and model: the runs of a table that differ in their seed alone.

    `options` are the overrides of these runs without the seed, and `reported` those of each.
    """

    options: list[str]
    reported: list[list[str]]


def subjects_of(overrides: list[str]) -> list[Subject]:
    """Return the subjects of a table's command."""
    found: dict[tuple[str, ...], list[list[str]]] = {}
    for job in jobs(overrides):
        options = tuple(text for text in job if not text.startswith("seed="))
        found.setdefault(options, []).append(job)
    return [Subject(list(options), reported) for options, reported in found.items()]


def searches(overrides: list[str]) -> list[Search]:
    """Return the searches of a table's command, checked. Trains nothing.

    Methods without a space are told, and left out. Raise UserError if none is left, if two searches
    would fill one file, if runs do not look into `tune.folder`, or if a validation request is missing or
    reported.
    """
    found: dict[Path, Search] = {}
    for subject in subjects_of(overrides):
        search = _search(subject)
        if not search.space:
            say(f"{search.path.stem} has no conf/search/{search.path.stem}.yaml: nothing to tune")
            continue
        if search.path in found:
            raise UserError(
                f"several lines of the table would fill {search.path}: give every option but method and "
                "seed a single value"
            )
        try:
            _check(subject, search)
        except UserError as error:
            raise UserError(f"{search.path.stem}: {error}") from error
        found[search.path] = search
    if not found:
        raise UserError("nothing to tune: choose a method=… that has a conf/search/<method>.yaml")
    return list(found.values())


def _search(subject: Subject) -> Search:
    """Return the search for the method of a subject."""
    cfg, names = composed([*subject.options, UNTUNED])
    tune = OmegaConf.to_object(cfg.tune)
    assert isinstance(tune, Tune)
    check_bounds("tune", tune)
    if not tune.seeds:
        raise UserError("tune.seeds names no seed: set one or several, as in tune.seeds=[0]")
    name = run_name(cfg.name, names).removesuffix(ending(names))  # the plan's own name has it at its end
    overrides = [*subject.options, UNTUNED, *_validation(tune), as_typed("name", f"{name}_tuning")]
    plan = Plan.of(*composed([*overrides, f"seed={tune.seeds[0]}"]))
    if plan.until is not Until.end:
        raise UserError(f"until={plan.until.name} ends a trial before it is scored: leave it out")
    tuned = folder_of("tune.folder", tune.folder)
    if tuned.name != TUNED:
        raise UserError(f"runs find no options in tune.folder={tuned}: set tune.folder={tuned / TUNED}")
    path = tuned / f"{names['dataset']}_{names['model']}" / f"{names['method']}.yaml"
    space = space_of(plan.method, tune.space)
    return Search(path, overrides, plan, tune, space, direction_of(plan.metrics, tune.objective))


def _validation(tune: Tune) -> list[str]:
    """Return the overrides that choose the validation request."""
    if not tune.validation or not isinstance(tune.validation, dict):
        raise UserError(
            "a search needs a validation request, which no table reports: set options of its scenario, "
            "as in 'tune.validation={classes:[5]}' for another class, or tune.validation={seed:1000} "
            "for other random rows"
        )
    return [f"scenario.{name}={json.dumps(value)}" for name, value in tune.validation.items()]


def _check(subject: Subject, search: Search) -> None:
    """Raise UserError if an end of the space is refused, or if a validation request and a reported one
    have rows in common.

    Two draws may: a request with a seed of its own is refused if one of the two is a part of the other.
    """
    for seed in search.tune.seeds:
        own, facts = _request(search.plan_of(seed, {}))
        for values in ends(search.tune.space):
            check_request(search.plan_of(seed, values), facts)
        for job in subject.reported:
            plan = Plan.of(*composed(job))
            reported, _ = _request(plan)
            common = _common(own, reported)
            fewest = min(len(own.rows), len(reported.rows)) if "seed" in search.tune.validation else 1
            if common >= fewest:
                raise UserError(
                    f"tune.validation={search.tune.validation} selects {common} rows that the table "
                    f"reports with seed={plan.seed}: set other classes or rows there, or another seed"
                )


def _request(plan: Plan) -> tuple[Request, dict[str, Any]]:
    return stages.request(stages.Workspace(plan, Store(plan.root / "store", say)))


def _common(one: Request, other: Request) -> int:
    """Return the number of rows that both requests forget."""
    return int(torch.isin(one.rows, other.rows).sum())
