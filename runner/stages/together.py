"""Pretraining together: the originals of several plans that differ in their seeds and shares alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby

import torch

from methods.training.cost import Meter
from methods.training.loop import Conditions
from methods.training.together import Training, fit_together, stackable
from runner.plan import Plan, identities
from runner.processes import TEAM
from runner.stages.models import fresh, save
from runner.stages.pretrain import PRETRAIN
from runner.stages.workspace import COST, CURVES, TOGETHER, Points, Workspace, write
from runner.store import Making


def trains_together(device: torch.device) -> bool:
    """Return whether shadow originals train together on a device: on a GPU they do, unless several
    processes share each training.

    A CPU is busy with one model, and takes longer for stacked convolutions than for one after another.
    """
    return device.type == "cuda" and TEAM.processes.count == 1


def pretrain_together(ws: Workspace, plans: Sequence[Plan]) -> None:
    """Make the absent originals of shadows' plans, those with equally many rows in one training.

    They are the artefacts that `pretrain` makes one by one, with the same keys, and that it finds from
    then on. Left to `pretrain` are a single one, those that are recorded, and those that are not
    `stackable`.
    """
    absent = [plan for plan in plans if not ws.store.has(*identities.wanted_original(plan))]
    if len(absent) < 2 or not _can_share(ws.member(absent[0])):
        return
    for _, group in groupby(sorted(absent, key=_left_out), _left_out):
        _in_halves(ws, list(group))


def _left_out(plan: Plan) -> int:
    """Return the number of rows that the share of a plan leaves out."""
    assert plan.share is not None
    return len(plan.share.left_out)


def _can_share(ws: Workspace) -> bool:
    """Return whether a training of this plan can be one of several."""
    if ws.plan.recorders:
        return False
    images = next(ws.dataset.train.batches(2)).images
    return stackable(fresh(ws, ws.streams(PRETRAIN)), ws.plan.recipe, images)


def _in_halves(ws: Workspace, plans: Sequence[Plan]) -> None:
    """Train the originals together, or half of them at a time if all need more memory than there is."""
    if len(plans) < 2:
        return
    try:
        _make(ws, plans)
        return
    except torch.OutOfMemoryError:
        pass  # the error holds the tensors of the attempt until here
    _in_halves(ws, plans[: len(plans) // 2])
    _in_halves(ws, plans[len(plans) // 2 :])


def _make(ws: Workspace, plans: Sequence[Plan]) -> None:
    members = {f"{PRETRAIN} {plan.seed}": ws.member(plan) for plan in plans}
    wanted = {name: identities.wanted_original(each.plan) for name, each in members.items()}
    ws.get_many(wanted, lambda making: _train(members, making), PRETRAIN, {}, together=True)


def _train(members: Mapping[str, Workspace], making: Making) -> None:
    """Train the originals that are missing, and store each with its own cost and curves."""
    missing = {name: members[name] for name in making.folders}
    points = {name: Points(lambda values: None) for name in missing}
    first = next(iter(missing.values()))
    streams = first.streams(PRETRAIN)
    with first.conditions(None, PRETRAIN, streams, None, making) as whole:
        for name in missing:
            whole.checkpoint.add(f"points of {making.folders[name].name}", points[name])
        trainings = {name: _training(each, whole, points[name]) for name, each in missing.items()}
        fit_together(list(trainings.values()), first.plan.recipe, whole)
    for name, training in trainings.items():
        folder = making.folders[name]
        save(training.model, folder)
        write(folder / COST, asdict(training.conditions.meter.cost))
        write(folder / CURVES, points[name].all)
        missing[name].keep(making, name, {TOGETHER: len(trainings)})


def _training(ws: Workspace, whole: Conditions, points: Points) -> Training:
    """Return the training of one plan under the conditions of all; its curves go to `points`."""
    streams = ws.streams(PRETRAIN)
    own = replace(
        whole,
        streams=streams,
        meter=Meter(ws.plan.device),
        log=points.log,
    )
    return Training(fresh(ws, streams), ws.dataset.train, own)
