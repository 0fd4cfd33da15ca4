"""Remarks: warnings about a model that learned, forgot or kept nothing.

Such a model looks finished: its losses are finite and its weights have moved.
"""

import math
from collections.abc import Callable, Mapping

import torch

from metrics.predictions import Predictions
from models.precision import is_emulated
from runner.flags import AT_CHANCE, CLAMPED, SAME, UNMOVED
from runner.plan import Plan
from runner.roles import ORIGINAL, REPAIRED, UNLEARNED, Role

Say = Callable[[str], None]

# A processor that emulates bfloat16, and the cure.
EMULATED = (
    "this processor has no AVX-512 and emulates training.precision=bf16, so that a step takes many "
    "times as long",
    "add training.precision=fp32",
)


def warn_if_emulated(plan: Plan, say: Say) -> None:
    """Warn before a training if its precision makes it slow on this processor."""
    if is_emulated(plan.recipe.precision, plan.device):
        say(": ".join(EMULATED))


def warn_if_untrained(original: Predictions, say: Say) -> None:
    """Warn if the original predicts the same class for every test row, as a collapsed network does."""
    if len(original.logits["test"].argmax(1).unique()) == 1:
        say(
            "the original gives every test row the same class, so there is nothing to forget: lower "
            "training.lr, or raise training.warmup or training.epochs"
        )


def warn_if_references_may_know(plan: Plan, say: Say) -> None:
    """Warn before any training if the reference, or a shadow model, starts where the original does."""
    same = plan.reference_from is not None and plan.of_reference() is plan
    for start, seen in _starts(plan).items():
        if same:
            say(
                f"the reference is retrained from {start}, too: if {seen} the rows to forget, it is no "
                "reference: set reference.weights=null to retrain from scratch, or reference.weights=… "
                "and reference.sha256=… to weights that have not seen them"
            )
        if plan.evaluation.shadows:
            say(
                f"the shadow models start at {start}, too: if {seen} the rows to forget, no shadow "
                "model is without them: set evaluation.shadows=0"
            )


def _starts(plan: Plan) -> dict[str, str]:
    """Return the weights at which the original starts that may know the rows to forget, with the words
    for it."""
    found = {}
    if plan.architecture.weights is not None:
        found[f"model.weights={plan.architecture.weights}"] = "these weights have seen"
    if plan.public_may_know:
        found["the checkpoint of pretrained="] = "its rows, images of the run's own data set, hold"
    return found


def remarks(
    plan: Plan, original: Predictions, unlearned: Predictions, same: bool, say: Say
) -> dict[str, float]:
    """Return the remarks on the unlearned model, for the result, and warn the user of each.

    `is_the_original` is 1 if its weights are the original's, bit for bit, which `same` tells.
    `moved_no_prediction` is 1 if the method changed no predicted class that is scored. `at_chance` is 1
    if the model is no better than chance on the retained rows, and the original was. The method that
    repeats the original is not expected to move anything.
    """
    found: dict[str, float] = {}
    method = plan.method
    chosen = plan.names["method"]
    works = chosen != ORIGINAL.label
    if works and same:
        found[SAME] = 1
        say(f"method={chosen} changed no weight: the model is the original, bit for bit")
    if works and _same_classes(original, unlearned):
        found[UNMOVED] = 1
        row = "row" if plan.evaluation.train else "test row"  # others are not predicted
        if not same:
            say(
                f"method={chosen} changed the predicted class of no {row}: the model answers as the "
                "original"
            )
    if at_chance(unlearned) and not at_chance(original):
        found[AT_CHANCE] = 1
        cure = "choose other options of the method or of the training"
        if hasattr(method, "lr"):
            cure = "lower method.lr, or choose smaller options of the method"
        say(
            f"method={chosen} took the model to chance on the retained rows, so its forgetting means "
            f"nothing: {cure}"
        )
    return found


def warn_of_clamped_batches(plan: Plan, costs: Mapping[Role, Mapping[str, float]], say: Say) -> None:
    """Warn if a method's batch was larger than the rows that it was drawn from."""
    for role, option in ((UNLEARNED, "method"), (REPAIRED, "repair")):
        if rows := costs.get(role, {}).get(CLAMPED):
            say(
                f"{option}={plan.names[option]} has a batch that is larger than a part of the rows: its "
                f"batches are of the {rows:.0f} rows of that part"
            )


def at_chance(predictions: Predictions) -> bool:
    """Return true if a model's accuracy on the retained test rows is that of a constant answer.

    A constant answer has the accuracy p, the share of the most frequent class, with a standard error
    of √(p(1 − p)/n) for n rows. A model is at chance up to two standard errors above p.
    """
    part = "test_retain" if "test_retain" in predictions.logits else "test"
    labels = predictions.labels[part]
    p = labels.bincount().max().item() / len(labels)
    # accuracy ≤ p + 2·√(p(1 − p)/n)
    return predictions.accuracy(part) <= p + 2 * math.sqrt(p * (1 - p) / len(labels))


def _same_classes(first: Predictions, second: Predictions) -> bool:
    return all(
        torch.equal(first.logits[part].argmax(1), second.logits[part].argmax(1)) for part in first.logits
    )
