"""Unlearning: a method's training before the request, its work after it, and the repair."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from data.contracts import returned
from data.errors import UserError
from data.requests import Request
from methods.base import Access, CachedTraining, Method, Problem, declared
from methods.recording.files import Damaged
from methods.training.checkpoint import Values
from methods.training.cost import Cost, Meter, now
from methods.training.loop import Conditions
from metrics.evidence import Evidence, Needs
from metrics.metric import numbers, scored
from runner.flags import CLAMPED, CUT
from runner.plan import identities
from runner.roles import INITIAL, REFERENCE, REPAIRED, UNLEARNED, Role
from runner.stages.models import fresh, load, randomly_initialised, save, weights, weights_of
from runner.stages.predict import predictions_now
from runner.stages.pretrain import ORIGINAL_FILE, pretrain, record
from runner.stages.request import retained
from runner.stages.workspace import COST, Workspace, content_bytes
from runner.store import Artefact, Making
from runner.tracking.sections import PASS

SLICE = "slice"

MODEL_MADE = "the model that it made, a torch.nn.Module"


def unlearn(ws: Workspace, request: Request, original: Artefact) -> Artefact:
    """Return the model that the run's method makes from the original, within the budget."""
    plan = ws.plan
    identity = {**identities.own(plan), **identities.scoring(plan)}
    work = Application(UNLEARNED, plan.method, plan.budget, scored_passes=bool(identities.scoring(plan)))
    start = None if plan.method.starts_fresh else original
    return _unlearned(ws, request, start, work, identity)


def reference(ws: Workspace, request: Request) -> Artefact:
    """Return the reference, which all other models are compared with. It has no budget.

    A method that starts with a fresh model needs no original, and none is trained for it.
    """
    ws, method = ws.of_reference(), ws.plan.reference
    assert method is not None
    original = None if method.starts_fresh else pretrain(ws, request)
    identity = identities.unlearn(ws.plan, method, None)
    return _unlearned(ws, request, original, Application(REFERENCE, method, None), identity)


def repair(ws: Workspace, request: Request, unlearned: Artefact) -> Artefact:
    """Return the unlearned model, repaired with the rest of the budget."""
    plan = ws.plan
    spent = unlearned.read(COST)["gradient_examples"]
    left = None if plan.budget is None else plan.budget - spent
    identity = identities.repair(plan)
    assert plan.repair is not None and identity is not None
    work = Application(REPAIRED, plan.repair, left, plan.method, bool(identities.scoring(plan)))

    def produce(making: Making) -> None:
        _apply(ws, request, unlearned, work, making, None)

    return ws.get_one(REPAIRED.stage, {**identity, **identities.scoring(plan)}, produce, REPAIRED.curves)


def initial_training(ws: Workspace, request: Request) -> Artefact | None:
    """Return the model that the run's method trains before any request, or None if that is the original.

    The size of the trainings that it stores for later requests is logged as `record_bytes`.
    """
    method = ws.plan.method
    if not method.trains_before:
        return None

    def produce(folder: Path) -> None:
        others = len(ws.used)
        with ws.conditions(folder, INITIAL.curves, ws.streams("unlearn"), None) as conditions:
            given = problem(ws, request, method, pretrain(ws, request), conditions)
            with conditions.meter:
                made = method.initial_training(given)
                model = returned(method, "initial_training", made, nn.Module, MODEL_MADE)
            stored = sum(content_bytes(each) for each in ws.used[others:] if each.stage == SLICE)
            conditions.log({"record_bytes": stored})
            save(model, folder)

    identity = identities.initial_training(ws.plan)
    return ws.get(INITIAL.stage, identity, produce, INITIAL.curves)


@dataclass(frozen=True)
class Application:
    """One application of a method.

    `role` is that of the model that it makes, and `budget` its limit of gradient examples. `made_by` is
    the method that made the model it starts from, None for the original. With `scored_passes` the model
    is scored after its passes.
    """

    role: Role
    method: Method
    budget: int | None
    made_by: Method | None = None
    scored_passes: bool = False


def _unlearned(
    ws: Workspace,
    request: Request,
    original: Artefact | None,
    work: Application,
    identity: Mapping[str, Any],
) -> Artefact:
    name = ws.plan.record_of(work.method)
    made = None if name is None else record(ws, request, name)
    if made is not None and original and made.read(ORIGINAL_FILE)["weights"] != weights_of(original):
        ws.store.set_aside(made)
        raise UserError(
            f"recorder.{name} is of a training that ended in other weights than the stored "
            "original: it is set aside: run again, and it is made anew"
        )

    def produce(making: Making) -> None:
        try:
            _apply(ws, request, original, work, making, made)
        except Damaged as error:
            assert made is not None
            ws.store.set_aside(made)
            raise Damaged(f"{error}; it is set aside: run again, and it is made anew") from error

    return ws.get_one(work.role.stage, identity, produce, work.role.curves)


def _apply(
    ws: Workspace,
    request: Request,
    start: Artefact | None,
    work: Application,
    making: Making,
    recording: Artefact | None,
) -> None:
    """Let a method work on the model of `start`, None for a fresh one, and write the result into its
    folder."""
    stage = work.role.stage
    folder, curves, streams = making.folders[stage], work.role.curves, ws.streams(stage)
    with ws.conditions(folder, curves, streams, work.budget, making) as conditions:
        given = problem(ws, request, work.method, start, conditions, work.made_by, recording)
        if work.scored_passes:
            passed = _scoring(ws, request, given.model, conditions)
            given.conditions = replace(given.conditions, passed=passed)
        with conditions.meter:
            made = work.method.unlearn(given)
            model = returned(work.method, "unlearn", made, nn.Module, MODEL_MADE)
        if conditions.meter.cut:
            conditions.log({CUT: 1})
        if conditions.meter.clamped is not None:
            conditions.log({CLAMPED: conditions.meter.clamped})
        save(model, folder)


def problem(
    ws: Workspace,
    request: Request,
    method: Method,
    start: Artefact | None,
    conditions: Conditions,
    made_by: Method | None = None,
    recording: Artefact | None = None,
) -> Problem:
    """Return the problem for a method, with the data and the log that it declares and no other.

    `start` is the artefact of the model that it works on, None for a fresh model.
    """
    train, sees = ws.dataset.train, method.sees()
    return Problem(
        model=fresh(ws, ws.streams("load")) if start is None else load(ws, start, made_by),
        original=lambda: load(ws, pretrain(ws, request)),
        fresh=lambda streams: fresh(ws, streams),
        randomly_initialised=lambda streams: randomly_initialised(ws, streams),
        classes=ws.dataset.classes,
        conditions=replace(conditions, log=declared(method, conditions.log)),
        cached_training=_cached_training(ws, conditions.meter),
        forget_rows=request.rows,
        declared_forget=train.only(request.rows) if Access.FORGET in sees else None,
        declared_retain=retained(train, request) if Access.RETAIN in sees else None,
        declared_recording=None if recording is None else recording.path,
    )


def _scoring(
    ws: Workspace, request: Request, model: nn.Module, conditions: Conditions
) -> Callable[[nn.Module], None]:
    """Return a callback that scores `model` after every `evaluation.every` passes and logs the scores.

    Each point of the log has the number of passes as `pass`. Passes over other models, such as
    teachers, are not counted; neither are passes that the budget has left without a step.
    """
    every = ws.plan.evaluation.every
    assert every is not None
    so_far = Values(passes=0, spent=0)
    conditions.checkpoint.add("scoring", so_far)

    def passed(trained: nn.Module) -> None:
        before, spent = so_far["spent"], conditions.meter.cost.gradient_examples
        so_far["spent"] = spent
        if spent == before or all(part is not model for part in trained.modules()):
            return
        so_far["passes"] += 1
        if so_far["passes"] % every == 0:
            with conditions.meter.paused():
                found = predictions_now(ws, request, model)
                evidence = Evidence({Needs.PREDICTIONS: found})
                scores = numbers(scored(identities.LOOKS, evidence))
            conditions.log({PASS: so_far["passes"], **scores})

    return passed


def _cached_training(ws: Workspace, outer: Meter) -> CachedTraining:
    """Return a function that stores the trainings of a method, at the stage `SLICE`.

    It subtracts its own time from the outer meter: the caller adds the cost that it returns. Nothing of
    them is tracked: a dashboard has one line for a name, and which of its many trainings a method asks
    for depends on what is stored.
    """
    ws = ws.member(ws.plan)

    def cached(
        identity: Mapping[str, Any],
        make: Callable[[Conditions], nn.Module],
        shell: nn.Module,
        budget: int | None,
    ) -> Cost:
        def produce(making: Making) -> None:
            folder, streams = making.folders[SLICE], ws.streams("slice")
            with ws.conditions(folder, "slice", streams, budget, making) as conditions:
                with conditions.meter:
                    model = make(conditions)
                save(model, folder)

        started = now(outer.device)
        made = ws.get_one(SLICE, identities.cached_training(ws.plan, identity, budget), produce)
        shell.load_state_dict(weights(made.path))
        outer.cost.seconds -= now(outer.device) - started
        return Cost(**made.read(COST))

    return cached
