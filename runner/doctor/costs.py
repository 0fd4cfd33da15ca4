"""Costs: the time and the space that a run will take, estimated from a few steps of training."""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median

from data.requests import Request
from methods.recording.recorder import RecordedTraining
from methods.training.cost import now
from methods.training.loop import train
from runner.doctor.findings import Finding
from runner.extra import missing_extras
from runner.plan import identities
from runner.stages.models import randomly_initialised
from runner.stages.workspace import Workspace

# Steps of the probe: the first ones compile and allocate.
WARM, TIMED = 3, 12


def of_costs(ws: Workspace, request: Request) -> Iterator[Finding]:
    """Yield the findings on time and space. Trains a few steps of a new model, and stores nothing."""
    plan, split = ws.plan, ws.dataset.train
    with tempfile.TemporaryDirectory() as folder:
        model = randomly_initialised(ws, ws.streams("doctor"))
        training = RecordedTraining(model, split, plan.recipe, ws.streams("record"), Path(folder))
        for name, recorder in plan.recorders.items():
            yield Finding(recorder.summary(training, f"recorder.{name}", len(request.rows)))
        step = _seconds_of_a_step(ws, training)
    original = training.steps * step
    yield Finding(f"a step takes {step:.3g} s, so an original about {original:,.0f} s")
    stored = ws.store.has("pretrain", identities.pretrain(plan))
    missing = missing_extras(ws, request)
    extra = sum(missing.values()) * original
    says = ", ".join(f"{n} trainings for evaluation.{option}" for option, n in missing.items())
    says += f" are missing, about {extra:,.0f} s for every request"
    says += "" if stored else f"; the original is missing, too, about {original:,.0f} s for every seed"
    if extra <= plan.evaluation.seconds or plan.evaluation.confirm:
        yield Finding(says)
    else:
        yield Finding(says, "set evaluation.confirm=true to run them, or ask for fewer")
    if plan.scenario.drawn:
        yield Finding(
            "every seed draws other rows to forget, so each needs references of its own",
            "set scenario.seed=0, and all seeds share them",
        )


def _seconds_of_a_step(ws: Workspace, training: RecordedTraining) -> float:
    """Return the median seconds of a training step."""
    times = []
    with ws.conditions(None, "probe", ws.streams("doctor"), None) as conditions, conditions.meter:
        steps = train(training.model, training.split, training.recipe, conditions)
        device = training.split.images.device
        before = now(device)
        for _ in islice(steps, min(WARM + TIMED, training.steps)):
            times.append(now(device) - before)
            before = now(device)
    return median(times[WARM:] or times)
