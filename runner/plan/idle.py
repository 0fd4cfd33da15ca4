"""Idle settings: options that were given, and that the values of others leave without effect."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from conf import Until
from data.component import Component
from metrics.evidence import Needs
from metrics.metric import needs_of

if TYPE_CHECKING:
    from runner.plan.plan import Plan


def idle_settings(plan: "Plan", overrides: Sequence[str]) -> list[str]:
    """Return a sentence for each override of the command that has no effect on the run.

    Values that a file of the configuration sets are not told: they wait for other choices.
    """
    given = {text.partition("=")[0].lstrip("+"): text.lstrip("+") for text in overrides}
    idle = {**_of_components(plan), **_of_evaluation(plan)}
    if plan.public is None:
        of_checkpoint = (name for name in given if name.rpartition("@")[2].startswith("pretrained."))
        idle |= dict.fromkeys(of_checkpoint, "pretrained= names no data set")
    return [f"{text} has no effect: {idle[name]}" for name, text in given.items() if name in idle]


def _of_components(plan: "Plan") -> dict[str, str]:
    """Return the reasons by option, for the fields of components."""
    parts: dict[str, Component | None] = {
        "training": plan.recipe,
        "pretrained.training": None if plan.public is None else plan.public.recipe,
        "scenario": plan.scenario,
        "method": plan.method,
        "repair": plan.repair,
        **{f"recorder.{name}": recorder for name, recorder in plan.recorders.items()},
    }
    found = {
        f"{option}.{name}": reason
        for option, part in parts.items()
        if part is not None
        for name, reason in part.idle().items()
    }
    for name in plan.recipe.idle():  # the method and its repair may take the value over
        if any(_uses(part, name, getattr(plan.recipe, name)) for part in (plan.method, plan.repair)):
            del found[f"training.{name}"]
    return found


def _uses(part: Component | None, name: str, value: object) -> bool:
    """Return whether a component has a field of this name and value that has an effect."""
    return part is not None and getattr(part, name, None) == value and name not in part.idle()


def _of_evaluation(plan: "Plan") -> dict[str, str]:
    """Return the reasons by option, for the options of references, shadow models, curves and
    passes."""
    needs = needs_of(plan.metrics)
    found: dict[str, str] = {}
    if plan.reference is None:
        found["evaluation.references"] = "evaluation.reference is null"
    if plan.method == plan.reference:
        reason = "the method's model is the reference, too: evaluation.reference=null scores its passes"
        found["evaluation.every"] = reason
    elif plan.repair is None and not plan.method.makes_passes:
        found["evaluation.every"] = f"method={plan.names['method']} trains its model in no passes"
    if plan.reference_from is None:
        found |= dict.fromkeys(("reference.weights", "reference.sha256"), "no reference is retrained")
    elif plan.reference_architecture is None or plan.reference_architecture.weights is None:
        found["reference.sha256"] = "reference.weights names no file"
    if plan.until is not Until.shadow:
        found["shadow"] = "until=shadow is not set"
        if not needs & Needs.SHADOWS:
            reason = "no metric of this run needs shadow models"
            found |= dict.fromkeys(("evaluation.shadows", "evaluation.shadows_with_records"), reason)
    if not needs & (Needs.RELEARN | Needs.RECOVER):
        reason = "no metric of this run needs curves"
        found |= dict.fromkeys(("evaluation.curve_batches", "evaluation.curve_look"), reason)
    if plan.evaluation.confirm:
        found["evaluation.seconds"] = "evaluation.confirm=true allows any number"
    return found
