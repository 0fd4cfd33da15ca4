"""Extra training: what references and shadow models cost, refused if it is more than was asked for."""

from collections.abc import Callable, Iterable
from typing import Any

from data.errors import UserError
from data.requests import Request
from metrics.evidence import Needs
from runner import stages
from runner.plan import Plan
from runner.plan.checks import check_request
from runner.provenance import provenance
from runner.score.evidence import needs_of
from runner.stages.cell import member_plan, shadow_plan, wanted_trainings
from runner.stages.references import wanted_references
from runner.stages.workspace import Workspace, conditions_of
from runner.store import Artefact, Wanted


def has_shadows(plan: Plan) -> bool:
    """Return whether a metric of the plan needs shadow models."""
    return Needs.SHADOWS in needs_of(plan.metrics)


def check_shadows(plan: Plan, request: Request, facts: dict[str, Any]) -> None:
    """Raise UserError if a shadow cannot serve its half of the request. Trains nothing."""
    for number in (0, 1):  # an odd number of rows makes two sizes of halves
        member = shadow_plan(plan, request, number)
        assert member.share is not None
        left_out, forgotten = len(member.share.left_out), len(member.share.forgotten)
        if not left_out or not forgotten:
            raise UserError(
                "a request of one row has no half for shadow models: set evaluation.shadows=0"
            )
        check_request(member, {**facts, "all": facts["all"] - left_out, "forget": forgotten})


def require_time(ws: Workspace, request: Request, original: Artefact) -> None:
    """Raise UserError if the absent references and shadows take longer than `evaluation.seconds`.

    Each is estimated to take as long as the original took.
    """
    evaluation = ws.plan.evaluation
    if evaluation.confirm:
        return
    missing = missing_extras(ws, request)
    cost = stages.cost_of(original)
    seconds = sum(missing.values()) * (cost["seconds"] + cost["compile_seconds"])
    if seconds > evaluation.seconds:
        trainings = " and ".join(f"{n} for evaluation.{option}" for option, n in missing.items() if n)
        raise UserError(
            f"trainings are missing ({trainings}), which take about {seconds:,.0f} s, and "
            f"evaluation.seconds={evaluation.seconds:g} allows less: set evaluation.confirm=true to run "
            "them, or ask for fewer"
        )


def say_if_made_elsewhere(ws: Workspace, say: Callable[[str], None]) -> None:
    """Tell the user of stored models that were made on another device, or with other numbers of threads
    or processes."""
    plan = ws.plan
    here = provenance(plan.device, plan.threads)
    wanted = [*wanted_trainings(plan), *wanted_references(plan).values()]
    found = [conditions_of(ws.store.find(*each)) for each in wanted if ws.store.has(*each)]
    cures = {"device": "set device", "threads": "set threads", "processes": "start as many"}
    for option, cure in cures.items():
        others = {str(made[option]) for made in found if made[option] != here[option]}
        if others:
            say(
                f"stored models were made with {option}={' and '.join(sorted(others))}, and this run "
                f"has {option}={here[option]}: their scores may differ by more than by seed; "
                f"{cure}, or another paths.root to make them again"
            )


def missing_extras(ws: Workspace, request: Request) -> dict[str, int]:
    """Return the number of absent trainings by the option of `evaluation` that asks for them."""
    rows = stages.cell_request(ws, request) if has_shadows(ws.plan) else request
    wanted = wanted_extras(ws.plan, rows)
    return {option: sum(not ws.store.has(*each) for each in found) for option, found in wanted.items()}


def wanted_extras(plan: Plan, rows: Request) -> dict[str, list[Wanted]]:
    """Return the trainings by the option of `evaluation` that asks for them; `rows` is the cell's
    request, which only shadows depend on."""
    references = wanted_references(plan)
    wanted = {"references": [references[seed] for seed in references if seed != plan.seed]}
    if Needs.POPULATION in needs_of(plan.metrics):
        members = [member_plan(plan, seed) for seed in range(plan.evaluation.references)]
        wanted["references"] += [each for member in members for each in wanted_trainings(member)]
    if has_shadows(plan):
        wanted["shadows"] = wanted_shadows(plan, rows, range(plan.evaluation.shadows))
    return wanted


def wanted_shadows(plan: Plan, rows: Request, numbers: Iterable[int]) -> list[Wanted]:
    """Return the trainings of shadows by their numbers, for the cell's request."""
    plans = [shadow_plan(plan, rows, number) for number in numbers]
    return [each for member in plans for each in wanted_trainings(member)]
