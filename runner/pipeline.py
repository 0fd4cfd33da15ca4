"""One run, top to bottom: pretrain → unlearn → repair → retrain the reference → evaluate."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from conf import Until
from methods.training.loop import Diverged
from metrics.predictions import Predictions, Scores, matrices, numbers, scored
from runner import process
from runner.plan import Plan
from runner.provenance import provenance
from runner.results import Results, Row
from runner.stages import Stages, cost_of, remarks, weights_of
from runner.store import Artefact, Store, fingerprint
from runner.tracking import flat, track

# The models that a run's own method makes: of all rows, of the request, and that one repaired.
OWN = ("before", "unlearned", "repaired")

# The choices that label a row.
NAMED = ("dataset", "model", "scenario", "method", "variant")


def run(plan: Plan, overrides: Sequence[str] = ()) -> Row | None:
    """Does what is not done yet and writes the run's row; None where `until` ended it earlier.

    `overrides` are kept in the row: the command that made it. A run whose loss diverges leaves a row
    that says so, and raises.
    """
    process.prepare(plan.device, plan.threads)
    results = Results(plan.root / "results")
    results.require_writable()
    with track(plan) as tracker:
        stages = Stages(plan, Store(plan.root / "store", say), tracker)
        try:
            _ = stages.request  # refuses what cannot be before the expensive part
            original = stages.pretrain()  # and the records of it
            if plan.until is not Until.end:
                return None
            models = {"original": original}
            predictions = {"original": stages.predictions(original)}
            _tell_if_untrained(predictions["original"])
            before = stages.before(plan.method)
            if before is not None:
                models["before"] = before
            models["unlearned"] = stages.unlearn(original)
            if plan.repair is not None:
                models["repaired"] = stages.repair(plan.repair, models["unlearned"])
            if plan.reference is not None:
                models["reference"] = stages.reference(plan.reference, original)
            makers = dict.fromkeys(OWN, plan.method) | {"reference": plan.reference}
            for role, model in models.items():
                if role not in predictions:
                    predictions[role] = stages.predictions(model, makers.get(role))
        except Diverged as error:
            results.write(_row(plan, overrides, stages, {}, status="diverged", error=str(error)), {})
            raise
        scores = score(plan, predictions)
        costs = {role: cost_of(model) for role, model in models.items()}
        if "repaired" in costs:
            costs["repaired"] = together(costs["unlearned"], costs["repaired"])
        for role, model in models.items():
            costs[role] |= remarks(model)
        paid = paid_before(plan, stages, costs)
        for role in {"unlearned", "repaired"} & costs.keys():
            costs[role] |= paid
        plain = {role: numbers(found) for role, found in scores.items()}
        row = _row(plan, overrides, stages, models, status="done", scores=plain, costs=costs)
        results.write(row, {role: matrices(found) for role, found in scores.items()})
        tracker.result(scores, costs)
        return row


def score(plan: Plan, predictions: Mapping[str, Predictions]) -> dict[str, Scores]:
    """Every metric of every model."""
    reference = predictions.get("reference")
    return {role: scored(plan.metrics, model, reference) for role, model in predictions.items()}


def paid_before(
    plan: Plan, stages: Stages, costs: Mapping[str, Mapping[str, float]]
) -> Mapping[str, float]:
    """What the method's model owes to work done before the request, in bytes kept and in seconds beyond
    the original's training: a record of that, or trainings of the method's own."""
    record = plan.record_of(plan.method)
    if record is not None:
        return stages.record_cost(record)
    if "before" not in costs:
        return {}
    before, original = costs["before"], costs["original"]
    return {
        "record_bytes": before["record_bytes"],
        "record_seconds": before["seconds"] - original["seconds"],
    }


def together(first: Mapping[str, float], then: Mapping[str, float]) -> dict[str, float]:
    """The cost of one thing after another: sums, and the higher of the peaks."""
    return {
        name: max(value, then[name]) if name == "peak_bytes" else value + then[name]
        for name, value in first.items()
    }


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _tell_if_untrained(predictions: Predictions) -> None:
    """A network that has collapsed gives every row the same class, and its losses stay finite."""
    if len(predictions.logits["test"].argmax(1).unique()) == 1:
        say(
            "the original gives every test row the same class, so there is nothing to forget: lower "
            "training.lr, or raise training.warmup or training.epochs"
        )


def _row(
    plan: Plan,
    overrides: Sequence[str],
    stages: Stages,
    models: Mapping[str, Artefact],
    **outcome: Any,
) -> Row:
    shared = plan.without_seed()
    cells = {"unlearned": fingerprint(shared.own_identity)}
    if "before" in models:
        cells["before"] = fingerprint(shared.before_identity(plan.method))
    if shared.repair_identity is not None:
        cells["repaired"] = fingerprint(shared.repair_identity)
    return Row(
        name=plan.name,
        key=plan.key,
        seed=plan.seed,
        names={part: plan.names[part] for part in NAMED if part in plan.names},
        setting=fingerprint(shared.setting_identity),
        cells=cells,
        parameters=flat(shared.repair_identity or shared.own_identity),
        overrides=list(overrides),
        artefacts=sorted({(made.stage, made.key) for made in stages.used}),
        weights={role: weights_of(model) for role, model in models.items()},
        provenance={
            "row": provenance(plan.device, plan.threads),
            **{role: model.read("provenance.json") for role, model in models.items()},
        },
        **outcome,
    )
