"""The identity of every stage: a nested dictionary of exactly the inputs that decide its result.

The fingerprint of an identity is the key of an artefact. Two runs whose identities agree share it.
"""

from typing import TYPE_CHECKING, Any

from data.component import identity_of
from methods.base import Method
from methods.recording.recorder import Recorder
from methods.training.descent import Recipe
from metrics.accuracy import Accuracy
from metrics.class_accuracy import ClassAccuracy
from metrics.confusion import Confusion
from metrics.loss import Loss
from runner.store import Identity, Wanted

if TYPE_CHECKING:
    from runner.plan.plan import Plan

# The version of each stage. Raise it if a stage makes another result from the same inputs: artefacts of
# earlier versions are then no longer found. A test pins the keys.
VERSIONS = {
    "request": 2,
    "pretrain": 1,
    "record": 2,  # 1 did not name the original of the recorded training
    "before": 2,  # 1 did not log the bytes that it stores
    "slice": 1,
    "budget": 2,  # 1 went on with smaller batches; no stage, but a part of those that have a budget
    "unlearn": 1,
    "repair": 1,
    "predict": 2,
    "random": 1,
    "features": 1,
    "relearn": 1,
    "recover": 1,
    "attack": 1,
    "poison_test": 1,
}

# The metrics of `evaluation.every`, whatever others a run has: they are in the keys of trainings.
LOOKS = (Accuracy(), Loss(), ClassAccuracy(), Confusion())


def data(plan: "Plan") -> Identity:
    """Identify the data set in use: its preparation, its limit, its rare classes and its corruption."""
    corruption = plan.scenario.corruption()
    rare = {"rare": {str(label): rows for label, rows in sorted(plan.rare.items())}}
    return {
        "source": identity_of(plan.source),
        "limit": plan.data.limit,
        **(rare if plan.rare else {}),
        **({} if corruption is None else {"corruption": corruption}),
        **({} if plan.share is None else {"share": plan.share.identity()}),
    }


def request(plan: "Plan") -> Identity:
    """Identify the request: the rows to forget."""
    return {
        "version": VERSIONS["request"],
        "data": data(plan),
        "scenario": identity_of(plan.scenario),
        "seed": plan.seed if plan.request_seed is None else plan.request_seed,
    }


def pretrain(plan: "Plan") -> Identity:
    """Identify the original. Recorders are no part of it, because they change no bit of the weights."""
    return {
        "version": VERSIONS["pretrain"],
        "data": data(plan),
        "model": identity_of(plan.architecture),
        "training": identity_of(plan.recipe),
        "seed": plan.seed,
        **({} if plan.public is None else {"public": pretrain(plan.public)}),
    }


def wanted_original(plan: "Plan") -> Wanted:
    """Return the original as the store finds it."""
    return "pretrain", pretrain(plan)


def setting(plan: "Plan") -> Identity:
    """Identify the original and the scenario, on which methods are compared."""
    return {"pretrain": pretrain(plan), "scenario": identity_of(plan.scenario)}


def compared_on(plan: "Plan") -> Identity:
    """Identify what the lines of a table are compared on: the setting, and the weights at which the
    reference starts if they are not the original's."""
    return {**setting(plan), **start_of_reference(plan)}


def start_of_reference(plan: "Plan") -> Identity:
    """Identify the weights at which the reference starts, if they are not the original's."""
    made = plan.of_reference()
    start = made.architecture.sha256
    same = made.public is plan.public and start == plan.architecture.sha256
    return {} if same else {"reference": {"sha256": start}}


def record(plan: "Plan", recorder: Recorder) -> Identity:
    """Identify the record that a recorder writes during pretraining."""
    return {
        "version": VERSIONS["record"],
        "pretrain": pretrain(plan),
        "recorder": identity_of(recorder),
    }


def unlearn(plan: "Plan", method: Method, budget: int | None) -> Identity:
    """Identify the model that a method makes from the original within a budget."""
    name = plan.record_of(method)
    return {
        "version": VERSIONS["unlearn"],
        **setting(plan),
        "method": identity_of(method),
        "budget": None if budget is None else {"version": VERSIONS["budget"], "examples": budget},
        "seed": plan.seed,
        **_request_of_another_seed(plan),
        **({} if name is None else {"recorder": identity_of(plan.recorders[name])}),
    }


def _request_of_another_seed(plan: "Plan") -> Identity:
    """Identify the request where the seed does not: in a member of a drawn request."""
    if plan.request_seed in (None, plan.seed):
        return {}
    return {"request_seed": plan.request_seed}


def own(plan: "Plan") -> Identity:
    """Identify the model that the run's method makes within the run's budget."""
    return unlearn(plan, plan.method, plan.budget)


def repair(plan: "Plan") -> Identity | None:
    """Identify the repaired model; return None if the run repairs nothing."""
    if plan.repair is None:
        return None
    return {**own(plan), "repair": {"stage": VERSIONS["repair"], **identity_of(plan.repair)}}


def scoring(plan: "Plan") -> Identity:
    """Identify the scores that are logged while the run's method unlearns (`evaluation.every`).

    They change no weight, so they are part of the artefact's identity and not of the result's. The
    reference has none, because runs with different scores share it.
    """
    evaluation = plan.evaluation
    if evaluation.every is None or plan.method == plan.reference:
        return {}
    metrics = [identity_of(metric) for metric in LOOKS]
    return {"looks": {"every": evaluation.every, "train": evaluation.train, "metrics": metrics}}


def initial_training(plan: "Plan") -> Identity:
    """Identify the model that the run's method trains before any request."""
    return {**pretrain(plan), "version": VERSIONS["before"], "method": identity_of(plan.method)}


def cached_training(plan: "Plan", identity: Identity, budget: int | None) -> Identity:
    """Identify a training that a method stores for later requests."""
    own_part = {"version": VERSIONS["slice"], "slice": identity, "budget": budget}
    return {**pretrain(plan), **own_part}


def predict(plan: "Plan", weights: str, split: str) -> Identity:
    """Identify the predictions of a split. They depend on the weights' checksum, not on their method."""
    return {
        "version": VERSIONS["predict"],
        **_forward(plan),
        "weights": weights,
        "split": split,
    }


def random(plan: "Plan", split: str) -> Identity:
    """Identify the predictions of a split by a model with random weights, one for each seed."""
    return {
        "version": VERSIONS["random"],
        **_forward(plan),
        "seed": plan.seed,
        "split": split,
    }


def features(plan: "Plan", weights: str, rows: Identity) -> Identity:
    """Identify the inputs of the last linear layer. `rows` holds checksums of the rows to forget."""
    return {
        "version": VERSIONS["features"],
        **_forward(plan),
        "weights": weights,
        "layer": "head input",
        "rows": rows,
    }


def curve(plan: "Plan", stage: str, weights: str, recipe: Recipe, probes: Identity) -> Identity:
    """Identify the looks at a training by `recipe` that begins at `weights`.

    `stage` is its stage, and `probes` holds the largest numbers of rows that a look predicts.
    """
    return {
        "version": VERSIONS[stage],
        "data": data(plan),
        "model": identity_of(plan.architecture),
        "request": request(plan),
        "weights": weights,
        "kind": stage,
        "recipe": identity_of(recipe),
        "probes": probes,
        "batches": plan.evaluation.curve_batches,
        "look": plan.evaluation.curve_look,
        "seed": plan.seed,
    }


def corrupted(plan: "Plan", stage: str, weights: str) -> Identity:
    """Identify what a stage (`attack` or `poison_test`) finds in a model of corrupted data."""
    return {"version": VERSIONS[stage], **_forward(plan), "weights": weights}


def _forward(plan: "Plan") -> Identity:
    """Identify what decides a forward pass, apart from weights and rows."""
    return {
        "data": data(plan),
        "model": identity_of(plan.architecture),
        "precision": plan.recipe.precision.name,
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
