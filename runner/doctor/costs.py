"""Costs: the time and the space that a run will take, estimated from a few steps of training."""

import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median

from conf import Until
from data.requests import Request
from methods.recording.recorder import RecordedTraining
from methods.training.cost import now
from methods.training.loop import train
from runner.doctor.findings import Finding
from runner.extra import by_option, missing_extras
from runner.plan import Plan, identities
from runner.stages.models import randomly_initialised
from runner.stages.workspace import Workspace
from runner.state.trainings import PUBLIC, Training, kind, of_kinds, trainings

# Steps of the probe: the first ones compile and allocate.
WARM, TIMED = 3, 12


def of_costs(ws: Workspace, request: Request) -> Iterator[Finding]:
    """Yield the findings on time and space. Trains a few steps of a new model, and stores no model."""
    plan = ws.plan
    with tempfile.TemporaryDirectory() as folder:
        training = _training(ws, Path(folder))
        for name, recorder in plan.recorders.items():
            yield Finding(recorder.summary(training, f"recorder.{name}", len(request.rows)))
        step = _seconds_of_a_step(ws, training)
    original = training.steps * step
    if training.steps:
        yield Finding(f"a step takes {step:.3g} s, so an original about {original:,.0f} s")
    else:
        yield Finding("a training has no steps, and takes no time")
    asked = missing_extras(ws, request)  # first, since it stores the request that shadows follow from
    yield _of_missing(ws, original)
    if asked:
        yield _of_asked(plan, by_option(asked), asked.total() * original)
    if plan.scenario.drawn and _has_other_references(plan):
        yield Finding(
            "every seed draws other rows to forget, so each needs references of its own",
            "set scenario.seed=0, and all seeds share them",
        )


def _of_missing(ws: Workspace, original: float) -> Finding:
    """Return the finding on all trainings that the run lacks, with the seconds of those that are as long
    as an original."""
    missing = [each for each in trainings(ws.plan, ws.store) if not each.stored]
    if not missing:
        return Finding("every training of the run is stored")
    as_long, others = _as_long(ws.plan, missing)
    seconds = as_long * original
    if any(each.label == PUBLIC for each in missing):
        seconds += _seconds_of_public(ws)
    says = f"missing trainings: {of_kinds(missing)}; about {seconds:,.0f} s"
    return Finding(says + (f" without {of_kinds(others)}" if others else ""))


def _as_long(plan: Plan, missing: Sequence[Training]) -> tuple[int, list[Training]]:
    """Return the number of trainings as long as an original, and those of which no time is known.

    Missing records are made in the training of the original, which is repeated if it is stored.
    """
    original = kind(*identities.wanted_original(plan))
    again = any(each.original is not None and each.original.stored for each in missing)
    own = [each for each in missing if each.original is None and each.label != PUBLIC]
    others = [each for each in own if original not in each.kinds]
    return len(own) - len(others) + again, others


def _of_asked(plan: Plan, trainings: str, seconds: float) -> Finding:
    """Return the finding on the missing trainings that options of `evaluation` ask for.

    As in the run, each counts as long as an original.
    """
    limit = plan.evaluation.seconds
    says = f"of these are {trainings}, about {seconds:,.0f} s if each is as long as an original"
    if plan.evaluation.confirm:
        return Finding(f"{says}: evaluation.confirm=true allows it")
    if seconds <= limit:
        return Finding(f"{says}: evaluation.seconds={limit:g} allows it")
    return Finding(
        f"{says}, and evaluation.seconds={limit:g} allows less",
        "set evaluation.confirm=true to run them, or ask for fewer",
    )


def _has_other_references(plan: Plan) -> bool:
    """Return whether a seed of the run needs the references of other seeds."""
    asked = plan.until is Until.end and plan.reference is not None
    return asked and plan.evaluation.references > 0


def _seconds_of_public(ws: Workspace) -> float:
    """Return the seconds of the training of the public checkpoint."""
    assert ws.plan.public is not None
    public = Workspace(ws.plan.public, ws.store)
    with tempfile.TemporaryDirectory() as folder:
        training = _training(public, Path(folder))
        return training.steps * _seconds_of_a_step(public, training)


def _training(ws: Workspace, folder: Path) -> RecordedTraining:
    """Return the training of an original from random weights, whose records would lie in a folder."""
    model = randomly_initialised(ws, ws.streams("doctor"))
    return RecordedTraining(model, ws.dataset.train, ws.plan.recipe, ws.streams("record"), folder)


def _seconds_of_a_step(ws: Workspace, training: RecordedTraining) -> float:
    """Return the median seconds of a training step, 0 if there is none."""
    times = []
    with ws.conditions(None, "probe", ws.streams("doctor"), None) as conditions, conditions.meter:
        steps = train(training.model, training.split, training.recipe, conditions)
        device = training.split.images.device
        before = now(device)
        for _ in islice(steps, min(WARM + TIMED, training.steps)):
            times.append(now(device) - before)
            before = now(device)
    return median(times[WARM:] or times or [0.0])
