"""Checks of a plan: first of the configuration alone, then of the rows that the request selects."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from conf import Until
from data.classes import check_classes
from data.errors import UserError
from methods.base import Facts, Method
from methods.training.checks import batch_fits
from methods.weights.layers import refuse_strides_over_a_pixel
from metrics.evidence import Needs
from models.precision import Precision
from runner.tracking import check_settings

# The fewest shadow models: three pairs, of which two estimate a mean and a variance for the third.
FEWEST_SHADOWS = 6

if TYPE_CHECKING:
    from runner.plan.plan import Plan


def check(plan: "Plan") -> None:
    """Raise UserError if the parts of a plan contradict each other. Reads no data."""
    check_settings(plan.tracking)
    plan.source.check()
    plan.recipe.check_parameters("training")
    _check_public(plan)
    for option, method in _methods(plan).items():
        _check_method(plan, option, method)
    _check_recorders(plan)
    _check_shadows(plan)
    plan.scenario.check(plan.source)
    plan.architecture.check()
    _check_weights(plan)


def check_request(plan: "Plan", facts: Mapping[str, Any]) -> None:
    """Raise UserError if a training, the method, its repair or the reference cannot serve the request.

    `facts` are the fields of `Facts` that the request decides. Called once, before any training.
    """
    known = Facts(**facts, classes=plan.source.classes, recipe=plan.recipe, outline=plan.outline)
    batch_fits("training", plan.recipe, known.all, "the training set")
    if plan.device.type == "cpu" and plan.recipe.precision is Precision.bf16:
        size = plan.architecture.input_size or plan.source.size
        image = torch.empty(1, plan.source.channels, size, size, device="meta")
        refuse_strides_over_a_pixel(plan.outline(), image)
    for method in _methods(plan).values():
        method.check(known)


def _methods(plan: "Plan") -> dict[str, Method]:
    """Return the methods that this run applies, by option."""
    each = {"method": plan.method, "repair": plan.repair, "evaluation.reference": plan.reference}
    return {option: method for option, method in each.items() if method is not None}


def _check_public(plan: "Plan") -> None:
    """Raise UserError if the checkpoint is of other images than the run's."""
    public, own = plan.public, plan.source
    if public is None:
        return
    public.source.check()
    public.recipe.check_parameters("pretrained.training")
    size = plan.architecture.input_size is None and public.source.size != own.size
    if size or public.source.channels != own.channels:
        raise UserError(
            f"the images of pretrained.dataset have {public.source.channels} channels and "
            f"{public.source.size} pixels a side, and those of the run {own.channels} and {own.size}: "
            "choose another pretrained="
        )


def _check_method(plan: "Plan", option: str, method: Method) -> None:
    method.check_parameters(option)
    if method.records is None or plan.record_of(method) is not None:
        return
    name = method.records.kind.split(".")[-2]  # the module, whose name conf/recorder shares
    chosen = plan.names.get(option, type(method).__name__)
    cure = f"add recorder=[{name}]"
    if option == "method" and plan.reads is not None:
        cure = f"name the experiment= of this variant, which makes the record {plan.reads}, or {cure}"
        cure += " and set reads=null"
    raise UserError(f"{option}={chosen} reads a record of the training: {cure}")


def _check_recorders(plan: "Plan") -> None:
    for name, recorder in plan.recorders.items():
        recorder.check_parameters(f"recorder.{name}")
        if recorder.classes is not None:
            check_classes(f"recorder.{name}.classes", recorder.classes, plan.source.classes)
    if plan.until is Until.record and not plan.recorders:
        raise UserError("until=record has no recorder: add recorder=[…], or set until=pretrain")
    read_by_method = plan.record_of(plan.method)
    if plan.reads is not None and plan.reads != read_by_method:
        raise UserError(
            f"reads={plan.reads} is no record that method={plan.names['method']} reads: set "
            f"reads={'null' if read_by_method is None else read_by_method}"
        )


def _check_shadows(plan: "Plan") -> None:
    shadows = plan.evaluation.shadows
    needing = [metric for metric in plan.metrics if Needs.SHADOWS in metric.needs]
    asked = plan.until is Until.shadow or bool(needing)
    if shadows == 0 and (asked or plan.shadow is not None):
        named = "until=shadow" if asked else f"shadow={plan.shadow}"
        what = f"metric=[{needing[0].option}]" if needing else named
        raise UserError(f"{what} needs shadow models: set evaluation=privacy or evaluation.shadows=16")
    if shadows and (shadows % 2 or shadows < FEWEST_SHADOWS):
        raise UserError(
            f"evaluation.shadows={shadows}: shadow models come in pairs, and {FEWEST_SHADOWS} are the "
            "fewest that a likelihood ratio can be estimated from: set evaluation.shadows=16"
        )
    if plan.shadow is not None and plan.shadow >= shadows:
        raise UserError(
            f"shadow={plan.shadow}: evaluation.shadows={shadows} has the numbers 0 to {shadows - 1}"
        )
    recorded = plan.method.records is not None or plan.method.trains_before
    if asked and recorded and not plan.evaluation.shadows_with_records:
        raise UserError(
            f"method={plan.names['method']} stores a record of each of the {shadows} shadow trainings: "
            "set evaluation.shadows_with_records=true to allow them, or evaluation=standard"
        )


def _check_weights(plan: "Plan") -> None:
    unchanged = plan.architecture.weights is not None and plan.recipe.epochs == 0
    if unchanged and plan.reference is not None:
        raise UserError(
            "training.epochs=0 leaves model.weights as they are, and would retrain no reference: set "
            "evaluation=quick, or train with training.epochs=1 or more"
        )
    made, source = plan.of_reference(), plan.source
    if made is not plan and made.architecture.weights is not None:
        made.architecture.fresh(source.channels, source.size, source.classes, 0, made.start)
