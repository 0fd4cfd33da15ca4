"""Extra training: what references and shadow models cost, refused if it is more than was asked for."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from data.errors import UserError
from data.requests import Request
from runner import stages
from runner.plan import Plan
from runner.plan.checks import check_request
from runner.provenance import provenance
from runner.stages.cell import has_shadows, shadow_plan, wanted_trainings
from runner.stages.references import wanted_references
from runner.stages.workspace import Workspace, conditions_of
from runner.state.trainings import trainings
from runner.store import Artefact


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
        raise UserError(
            f"trainings are missing ({by_option(missing)}), which take about {seconds:,.0f} s, and "
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


def missing_extras(ws: Workspace, request: Request) -> Counter[str]:
    """Return the number of absent trainings by the option of `evaluation` that asks for them.

    Those that the run makes anyway are not among them.
    """
    if has_shadows(ws.plan):
        stages.cell_request(ws, request)  # whose halves the shadows forget
    return Counter(
        each.option
        for each in trainings(ws.plan, ws.store)
        if each.option is not None and not ws.store.has(*each.wanted)
    )


def by_option(missing: Mapping[str, int]) -> str:
    """Return the numbers of trainings with the options of `evaluation` that ask for them."""
    return " and ".join(f"{n} for evaluation.{option}" for option, n in missing.items())
