"""Curves: trainings that begin at a scored model, with looks at what it knows."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path

from torch import nn

from data.requests import Request
from data.split import Split
from methods.base import Method
from methods.training.descent import Recipe, Schedule
from methods.training.divergence import Diverged
from methods.training.loop import Conditions, Phase
from metrics.evidence import Point
from metrics.predictions import predict
from runner.plan import Plan, identities
from runner.stages.models import load, weights_of
from runner.stages.request import request as stored_request
from runner.stages.request import retained
from runner.stages.sample import sample
from runner.stages.workspace import CURVES, Workspace, write
from runner.store import Artefact, Making

# The largest number of rows of each probe.
PROBES = {"forget": 256, "retain": 2048}


class Curve(Enum):
    """The trainings. `relearn` takes all rows, under their labels before the request. `recover` takes
    the retained rows; in a request to relabel these are all rows, relabelled."""

    relearn = "relearn"
    recover = "recover"


_ROWS: Mapping[Curve, Callable[[Split, Request], Split]] = {
    Curve.relearn: lambda train, request: train,
    Curve.recover: retained,
}

# The fields of `Facts` that count these rows.
COUNTED = {Curve.relearn: "all", Curve.recover: "retain"}


def curve(
    ws: Workspace, request: Request, kind: Curve, made: Artefact, made_by: Method | None = None
) -> list[Point]:
    """Return the looks at a training that begins at an artefact's model.

    It follows the original's recipe at a constant learning rate for `evaluation.curve_batches` batches.
    Looks are before the first batch, after every `evaluation.curve_look` batches and after the last. If
    the training diverges, the curve ends before. `made_by` is the method that made the model, or None if
    it has the original's architecture. Raise Diverged if its outputs are not finite.
    """
    recipe = _recipe(ws, kind)

    def produce(making: Making) -> None:
        folder = making.folders[kind.value]
        points = _train(ws, request, kind, load(ws, made, made_by), recipe, folder)
        write(folder / CURVES, [asdict(point) for point in points])
        ws.keep(making, kind.value)

    identity = identities.curve(ws.plan, kind.value, weights_of(made), recipe, PROBES)
    # A dashboard has one line for a name, and a run asks for the curves of many models: none is tracked.
    found = ws.get_many({kind.value: (kind.value, identity)}, produce, kind.value, curves={})
    return points_of(found[kind.value])


def points_of(artefact: Artefact) -> list[Point]:
    """Return the looks of a stored curve."""
    return [Point(**point) for point in artefact.read(CURVES)]


def batches_per_epoch(ws: Workspace, kind: Curve) -> int:
    """Return the number of batches in one pass of a training."""
    _, facts = stored_request(ws)
    rows: int = facts[COUNTED[kind]]
    return math.ceil(rows / ws.plan.recipe.batch_size)


def _recipe(ws: Workspace, kind: Curve) -> Recipe:
    """Return the original's recipe at a constant learning rate, for as many passes as it takes."""
    passes = math.ceil(ws.plan.evaluation.curve_batches / batches_per_epoch(ws, kind))
    return replace(ws.plan.recipe, epochs=passes, schedule=Schedule.constant, warmup=0.0)


def _train(
    ws: Workspace, request: Request, kind: Curve, model: nn.Module, recipe: Recipe, folder: Path
) -> list[Point]:
    """Train the model, and return the looks at it."""
    split = _ROWS[kind](ws.dataset.train, request)
    # a pass ends with a smaller batch: B batches are ⌊B/b⌋ passes of b batches, and whole batches
    passes, rest = divmod(ws.plan.evaluation.curve_batches, math.ceil(len(split) / recipe.batch_size))
    rows = passes * len(split) + rest * recipe.batch_size
    with ws.conditions(folder, kind.value, ws.streams(kind.value), budget=rows) as conditions:
        looks = Looks(ws.plan, model, _probes(ws, request), conditions)
        conditions.meter.progress.expect(rows)
        with conditions.meter:
            looks.look()
            phase = Phase(model, split, recipe, conditions)
            phase.optimizer.register_step_post_hook(looks.after_update)
            try:
                for epoch in range(recipe.epochs):
                    for _ in phase.steps(epoch):
                        pass
            except Diverged as error:
                ws.store.say(f"{kind.value}: {error}; the curve ends at batch {looks.batches}")
    return looks.points


def _probes(ws: Workspace, request: Request) -> tuple[Split, Split]:
    """Return the rows of a look: forgotten and retained ones, the same for all models of a request.

    Forgotten are test rows of the same kind, or the training rows if the request names no kind.
    """
    train, test = ws.dataset.train, ws.dataset.test
    forget = test.only(request.test) if len(request.test) else train.only(request.rows)
    return (
        sample(forget, PROBES["forget"], "forget probe"),
        sample(train.without(request.rows), PROBES["retain"], "retain probe"),
    )


@dataclass
class Looks:
    """The looks at a training. They leave its mode, its time and its peak memory as they are.

    `probes` are the forgotten and the retained rows, and `batches` counts the updates so far.
    """

    plan: Plan
    model: nn.Module
    probes: tuple[Split, Split]
    conditions: Conditions
    points: list[Point] = field(default_factory=list)
    batches: int = 0

    def after_update(self, *_: object) -> None:
        """Count an update of the optimizer, and look if it is time."""
        self.batches += 1
        evaluation = self.plan.evaluation
        if self.batches % evaluation.curve_look == 0 or self.batches == evaluation.curve_batches:
            self.look()

    def look(self) -> None:
        """Measure both accuracies. Raise Diverged if an output is not finite."""
        meter, training = self.conditions.meter, self.model.training
        seconds = meter.elapsed()
        with meter.paused():
            forget, retain = (self._accuracy(probe) for probe in self.probes)
            self.model.train(training)
        self.points.append(Point(self.batches, seconds, forget, retain))

    def _accuracy(self, probe: Split) -> float:
        size, bf16 = self.plan.evaluation.batch_size, self.conditions.bf16
        # a method may have added logits after the first K
        logits = predict(self.model, probe, size, bf16)[:, : self.plan.source.classes]
        self.conditions.meter.count_forward(len(probe))
        if not logits.isfinite().all():
            raise Diverged("the outputs are no longer finite")
        # mean 1[argmax z = y]
        return (logits.argmax(1) == probe.labels.cpu()).double().mean().item()
