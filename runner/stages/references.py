"""References: the retrained models that scores are compared with. Each is a member of the run's plan."""

from collections.abc import Mapping

from data.errors import UserError
from data.requests import Request
from runner.plan import Plan, identities
from runner.stages.unlearn import reference
from runner.stages.workspace import Workspace, cost_of
from runner.store import Artefact


def other_references(ws: Workspace, request: Request) -> dict[int, Artefact]:
    """Return, by seed, the references of the other seeds for the same rows to forget.

    Runs of these seeds have the same ones, unless every seed draws a request of its own.
    """
    plan = ws.plan
    if plan.reference is None:
        return {}
    return {
        seed: reference(ws.member(member), request, plan.reference)
        for seed, member in _other_members(plan).items()
    }


def require_time(ws: Workspace, original: Artefact) -> None:
    """Raise UserError if training the other references takes longer than `evaluation.seconds`.

    A retraining is estimated to take as long as the original took.
    """
    plan, evaluation = ws.plan, ws.plan.evaluation
    if evaluation.confirm or plan.reference is None:
        return
    missing = [
        member
        for member in _other_members(plan).values()
        if not ws.store.has("unlearn", identities.unlearn(member, plan.reference, None))
    ]
    seconds = len(missing) * cost_of(original)["seconds"]
    if seconds > evaluation.seconds:
        raise UserError(
            f"evaluation.references={evaluation.references} needs {len(missing)} more retrained models, "
            f"about {seconds:,.0f} s, and evaluation.seconds={evaluation.seconds:g}: set "
            "evaluation.confirm=true to train them, or evaluation.references=1 to compare with one"
        )


def _other_members(plan: Plan) -> Mapping[int, Plan]:
    """Return the plans of the other references by seed."""
    seeds = range(plan.evaluation.references)
    return {seed: plan.member(seed) for seed in seeds if seed != plan.seed}
