"""Identities: for every stage, a nested dictionary of all that its result depends on, and nothing else.

The fingerprint of an identity is the key of an artefact. Two runs whose identities agree share it.
"""

from typing import TYPE_CHECKING, Any

from data.component import identity_of
from methods.base import Method
from methods.recording.recorder import Recorder
from runner.store import Identity

if TYPE_CHECKING:
    from runner.plan.plan import Plan

# The version of each stage. Raise it when a stage makes something else of the same inputs: artefacts of
# earlier versions are then left alone. A test pins the keys that follow.
VERSIONS = {
    "request": 2,
    "pretrain": 1,
    "record": 2,  # 1 did not say whose training it is of
    "before": 2,  # 1 did not say what it keeps
    "slice": 1,
    "unlearn": 1,
    "repair": 1,
    "predict": 2,
}


def data(plan: "Plan") -> Identity:
    """The data set as it is used: its preparation, its limit and its rare classes."""
    rare = {"rare": {str(label): rows for label, rows in sorted(plan.rare.items())}}
    return {
        "source": identity_of(plan.source),
        "limit": plan.data.limit,
        **(rare if plan.rare else {}),
    }


def request(plan: "Plan") -> Identity:
    """The rows to forget."""
    return {
        "version": VERSIONS["request"],
        "data": data(plan),
        "scenario": identity_of(plan.scenario),
        "seed": plan.seed,
    }


def pretrain(plan: "Plan") -> Identity:
    """The original. No recorder is part of it: watching changes no bit of the weights."""
    return {
        "version": VERSIONS["pretrain"],
        "data": data(plan),
        "model": identity_of(plan.architecture),
        "training": identity_of(plan.recipe),
        "seed": plan.seed,
    }


def setting(plan: "Plan") -> Identity:
    """The original and the request: what methods are compared on."""
    return {"pretrain": pretrain(plan), "scenario": identity_of(plan.scenario)}


def record(plan: "Plan", recorder: Recorder) -> Identity:
    """The record that a recorder writes during pretraining."""
    return {
        "version": VERSIONS["record"],
        "pretrain": pretrain(plan),
        "recorder": identity_of(recorder),
    }


def unlearn(plan: "Plan", method: Method, budget: int | None) -> Identity:
    """The model that a method makes of the original within a budget."""
    name = plan.record_of(method)
    return {
        "version": VERSIONS["unlearn"],
        **setting(plan),
        "method": identity_of(method),
        "budget": budget,
        "seed": plan.seed,
        **({} if name is None else {"recorder": identity_of(plan.recorders[name])}),
    }


def own(plan: "Plan") -> Identity:
    """The model that the run's own method makes within its budget."""
    return unlearn(plan, plan.method, plan.budget)


def repair(plan: "Plan") -> Identity | None:
    """That model, repaired; None if the run repairs nothing."""
    if plan.repair is None:
        return None
    return {**own(plan), "repair": {"stage": VERSIONS["repair"], **identity_of(plan.repair)}}


def scoring(plan: "Plan") -> Identity:
    """The scores that are logged while the run's own method unlearns (`evaluation.every`).

    The weights are the same without them, so they belong to the artefact and to no result. The
    reference, which runs share, has none.
    """
    evaluation = plan.evaluation
    if evaluation.every is None or plan.method == plan.reference:
        return {}
    metrics = [identity_of(metric) for metric in plan.metrics]
    return {"looks": {"every": evaluation.every, "train": evaluation.train, "metrics": metrics}}


def initial_training(plan: "Plan", method: Method) -> Identity:
    """The model that a method trains before any request."""
    return {**pretrain(plan), "version": VERSIONS["before"], "method": identity_of(method)}


def cached_training(plan: "Plan", identity: Identity, budget: int | None) -> Identity:
    """A training that a method stores for later requests."""
    own_part = {"version": VERSIONS["slice"], "slice": identity, "budget": budget}
    return {**pretrain(plan), **own_part}


def predict(plan: "Plan", weights: str, split: str) -> Identity:
    """The predictions of a split. They belong to the weights of this checksum, whatever made these."""
    return {
        "version": VERSIONS["predict"],
        "data": data(plan),
        "model": identity_of(plan.architecture),
        "precision": plan.recipe.precision.name,
        "weights": weights,
        "split": split,
    }


def flat(identity: Identity, prefix: str = "") -> dict[str, Any]:
    """Return a nested identity as one level of dotted names."""
    found: dict[str, Any] = {}
    for name, value in identity.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
