"""Pushing: stored results and curves become W&B runs, under the ids that live runs with the same options
of tracking have."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from conf import Tracking
from data.errors import UserError
from runner.errors import message_of
from runner.naming import command_of
from runner.results import Result, Results
from runner.tracking.replay import track_curves
from runner.tracking.start import track
from runner.tracking.tracker import Tracker

if TYPE_CHECKING:  # imports torch, which help does without
    from metrics.metric import Matrix
    from runner.plan import Plan

Say = Callable[[str], None]


class Unfinished(Exception):
    """Closes the W&B run of a result that is not done as failed."""


class Pushed(NamedTuple):
    """The number of results of a name, and of those whose W&B run holds all of them."""

    results: int
    written: int


def push(name: str, root: Path, tracking: Tracking, say: Say) -> Pushed:
    """Write every result of a name as a W&B run.

    `tracking` are the options of W&B, in place of those of the commands that made the results. `say`
    receives what could not be written, and why. A result that was tracked before has the same run again,
    so that pushing twice gives the same runs.
    """
    results, written = Results(root / "results"), 0
    found = results.named(name)
    for result in found:
        try:
            plan = replace(_plan_of(result), root=root, tracking=tracking)
            matrices = results.matrices(result)
        except Exception as error:
            if (text := message_of(error)) is None:
                raise
            say(f"{name}/{result.key} is left out: {text}")
            continue
        try:
            with track(plan, result.overrides, say, result.provenance["row"]) as tracker:
                _replay(result, plan, tracker, matrices, say)
                if result.status != "done":
                    raise Unfinished
        except Unfinished:
            pass
        written += tracker.written
    return Pushed(len(found), written)


def _plan_of(result: Result) -> "Plan":
    """Return the plan that made a result. Raise UserError if its command has another meaning by now."""
    from runner.compose import composed
    from runner.plan import Plan

    plan = Plan.of(*composed(result.overrides))
    if plan.key != result.key:
        again = command_of(result.overrides)
        raise UserError(f"by now its command makes another model; run it again: {again}")
    return replace(plan, name=result.name)


def _replay(
    result: Result,
    plan: "Plan",
    tracker: Tracker,
    matrices: "dict[str, dict[str, Matrix]]",
    say: Say,
) -> None:
    """Track what a live run would track, as far as the store has it."""
    from runner.plan import identities
    from runner.stages.request import stored_facts
    from runner.store import Store

    request = Store(plan.root / "store").find("request", identities.request(plan))
    if request.path.exists() and request.damage() is None:
        tracker.request(stored_facts(request))
    track_curves(tracker, result, result.weights, plan.root, say)
    tracker.result(result, matrices)
