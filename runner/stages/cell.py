"""The models of a whole cell: shadow models, and the population of its seeds.

They are the same for every seed of a run. A request that each seed draws anew is that of seed 0 here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from data.requests import Request
from metrics.evidence import Needs
from metrics.metric import needs_of
from runner.plan import Plan, identities
from runner.plan.share import share_of
from runner.stages.pretrain import pretrain
from runner.stages.request import request as request_of
from runner.stages.together import pretrain_together, trains_together
from runner.stages.unlearn import reference, unlearn
from runner.stages.workspace import Workspace
from runner.store import Artefact, Wanted


class Shadow(NamedTuple):
    """A shadow model: trained on its share, and what the method makes of it."""

    original: Artefact
    unlearned: Artefact


def has_shadows(plan: Plan) -> bool:
    """Return whether a metric of the plan needs shadow models."""
    return Needs.SHADOWS in needs_of(plan.metrics)


def shadow_numbers(plan: Plan) -> Sequence[int]:
    """Return the numbers of the shadows that a run to shadows makes: the one that it names, or all."""
    return range(plan.evaluation.shadows) if plan.shadow is None else [plan.shadow]


def cell_request(ws: Workspace, request: Request) -> Request:
    """Return the request of the cell: the run's own, or that of seed 0 if every seed draws one."""
    plan = request_plan(ws.plan)
    return request if plan is ws.plan else request_of(ws.member(plan))[0]


def request_plan(plan: Plan) -> Plan:
    """Return the plan of the cell's request: the run's own, or that of seed 0 if every seed draws
    one."""
    return _of_seed_0(plan) if plan.scenario.drawn else plan


def shadows(ws: Workspace, request: Request, numbers: Sequence[int]) -> list[Shadow]:
    """Return shadow models of the cell's request by their numbers, each with the model that forgot its
    half. Their originals train together on a GPU."""
    if trains_together(ws.plan.device):
        pretrain_together(ws, [shadow_plan(ws.plan, request, number) for number in numbers])
    return [_shadow(ws, request, number) for number in numbers]


def _shadow(ws: Workspace, request: Request, number: int) -> Shadow:
    plan = shadow_plan(ws.plan, request, number)
    assert plan.share is not None
    member = ws.member(plan)
    own = Request(plan.share.forgotten, request.test, request.target)
    original = pretrain(member, own)
    return Shadow(original, unlearn(member, own, original))


def unlearned_member(ws: Workspace, request: Request, seed: int) -> Artefact:
    """Return the model that the method makes from the original of another seed, for the cell's request.

    It is that of the run with this seed, unless every seed draws a request.
    """
    member = ws.member(member_plan(ws.plan, seed))
    return unlearn(member, request, pretrain(member, request))


def retrained_member(ws: Workspace, request: Request, seed: int) -> Artefact:
    """Return the reference of another seed for the cell's request."""
    return reference(ws.member(_of_seed_0(ws.plan).member(seed)), request)


def shadow_plan(plan: Plan, request: Request, number: int) -> Plan:
    """Return the plan of a shadow: its number is its seed, and its share a half of the request.

    It keeps only the record that the method reads, and is not scored while it unlearns.
    """
    name = plan.record_of(plan.method)
    recorders = {} if name is None else {name: plan.recorders[name]}
    share = share_of(request.rows, number)
    return replace(_unscored(_of_seed_0(plan)).member(number), share=share, recorders=recorders)


def member_plan(plan: Plan, seed: int) -> Plan:
    """Return the plan of another seed for the cell's request. It is not scored while it unlearns."""
    return _unscored(_of_seed_0(plan)).member(seed)


def wanted_trainings(plan: Plan) -> list[Wanted]:
    """Return the original and the unlearned model of a plan, as the store finds them."""
    return [identities.wanted_original(plan), ("unlearn", identities.own(plan))]


def wanted_shadows(plan: Plan, rows: Request, numbers: Iterable[int]) -> list[Wanted]:
    """Return the trainings of shadows by their numbers, for the cell's request."""
    plans = [shadow_plan(plan, rows, number) for number in numbers]
    return [each for member in plans for each in wanted_trainings(member)]


def _of_seed_0(plan: Plan) -> Plan:
    return replace(plan, seed=0, request_seed=None)


def _unscored(plan: Plan) -> Plan:
    return replace(plan, evaluation=replace(plan.evaluation, every=None))
