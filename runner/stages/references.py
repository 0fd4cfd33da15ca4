"""References: the retrained models that scores are compared with. Each is a member of the run's plan."""

from collections.abc import Mapping

from data.requests import Request
from runner.plan import Plan, identities
from runner.stages.unlearn import reference
from runner.stages.workspace import Workspace
from runner.store import Artefact, Wanted


def other_references(ws: Workspace, request: Request) -> dict[int, Artefact]:
    """Return, by seed, the references of the other seeds for the same rows to forget.

    Runs of these seeds have the same ones, unless every seed draws a request of its own.
    """
    plan = ws.plan
    if plan.reference is None:
        return {}
    return {seed: reference(ws.member(member), request) for seed, member in _other_members(plan).items()}


def wanted_references(plan: Plan) -> dict[int, Wanted]:
    """Return the references of a plan by seed, as the store finds them: the run's own, and the
    others."""
    if plan.reference is None:
        return {}
    return {
        seed: ("unlearn", identities.unlearn(member.of_reference(), plan.reference, None))
        for seed, member in members(plan).items()
    }


def members(plan: Plan) -> Mapping[int, Plan]:
    """Return the plans of all references by seed: the run's own, and the others."""
    assert plan.seed is not None
    return {plan.seed: plan, **_other_members(plan)}


def _other_members(plan: Plan) -> Mapping[int, Plan]:
    """Return the plans of the other references by seed."""
    seeds = range(plan.evaluation.references)
    return {seed: plan.member(seed) for seed in seeds if seed != plan.seed}
