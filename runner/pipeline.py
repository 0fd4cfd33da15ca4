"""One run, top to bottom: pretrain and record → unlearn → repair → retrain the reference → evaluate."""

from collections.abc import Mapping, Sequence
from typing import Any

from conf import Until
from data.component import plain
from data.requests import Request
from methods.training.divergence import Diverged
from metrics.metric import glossary, matrices, numbers, of_cells
from runner import process, stages
from runner.extra import check_shadows, require_time, say_if_made_elsewhere
from runner.naming import TUNED
from runner.own_code import digests
from runner.plan import Plan, identities
from runner.plan.checks import check_request
from runner.plan.idle import idle_settings
from runner.processes import TEAM
from runner.provenance import provenance
from runner.remarks import (
    remarks,
    warn_if_references_may_know,
    warn_if_untrained,
    warn_of_clamped_batches,
)
from runner.results import Result, Results
from runner.roles import INITIAL, ORIGINAL, REFERENCE, REPAIRED, UNLEARNED, Role
from runner.say import say
from runner.score.evidence import ScoredModels, score_models, without_scores
from runner.score.live import LivePieces
from runner.signals import ENDING
from runner.stages.cell import has_shadows, shadow_numbers
from runner.stages.models import weights_of
from runner.stages.workspace import PROVENANCE, Workspace
from runner.store import Artefact, Store, fingerprint
from runner.tracking import track
from runner.tracking.replay import track_curves
from runner.tracking.sections import CELL

Models = Mapping[Role, Artefact]

# The choices that label a result.
NAMED = ("dataset", "model", "scenario", "method", "variant")


def run(plan: Plan, overrides: Sequence[str] = ()) -> Result | None:
    """Make the artefacts that are not stored yet, write the run's result, and return it.

    Return None if `until` ends the run earlier. The result holds `overrides`, the command that made it.
    If a loss diverges, write a result that says so, and raise Diverged.
    """
    for sentence in idle_settings(plan, overrides):
        say(sentence)
    if TUNED in plan.names:
        say(f"method={plan.names['method']} takes the numbers of a search: tuned={plan.names[TUNED]}")
    process.prepare(plan.device, plan.threads)
    TEAM.begin(plan.device, plan.threads, plan.recipe.compile)
    results = Results(plan.root / "results")
    results.require_writable()
    with ENDING.handling(), track(plan, overrides, say) as tracker:
        ws = Workspace(plan, Store(plan.root / "store", say), tracker)
        try:
            made = make(ws)
            if made is None:
                return None
            scores = score_models(plan.metrics, made)
        except Diverged as error:
            results.write(_result(ws, overrides, {}, status="diverged", error=str(error)), {})
            raise
        costs = _costs(ws, made.request, made.by_role)
        warn_of_clamped_batches(plan, costs, say)
        costs[UNLEARNED] |= _remarks(made)
        costs_by_name = {role.name: found for role, found in costs.items()}
        outcome = _scores(plan, made, scores)
        result = _result(ws, overrides, made.by_role, status="done", costs=costs_by_name, **outcome)
        scores_by_name = {role.name: found for role, found in scores.roles.items()}
        found = {name: matrices(each) for name, each in scores_by_name.items()}
        found |= {CELL: cell} if (cell := matrices(scores.cell)) else {}
        results.write(result, found)
        if plan.tracking.enabled:
            _track_stored(ws, results, result)
        return result


def make(ws: Workspace) -> LivePieces | None:
    """Return every model of the run, or None if `until` ends after pretraining.

    Raise UserError before the first training if the request cannot be served, and before the first
    retraining if the references take too long.
    """
    plan = ws.plan
    request = checked_request(ws)
    warn_if_references_may_know(plan, say)
    stages.make_public(ws)
    if plan.until is Until.shadow:
        _make_shadows(ws, request)
        return None
    original = stages.pretrain(ws, request)
    if plan.until is not Until.end:
        return None
    require_time(ws, request, original)
    say_if_made_elsewhere(ws, say)
    made = LivePieces(ws, request, {ORIGINAL: original})
    warn_if_untrained(made.predicted(ORIGINAL), say)
    models = made.models
    initial = stages.initial_training(ws, request)
    if initial is not None:
        models[INITIAL] = initial
    models[UNLEARNED] = stages.unlearn(ws, request, original)
    if plan.repair is not None:
        models[REPAIRED] = stages.repair(ws, request, models[UNLEARNED])
    if plan.reference is not None:
        models[REFERENCE] = stages.reference(ws, request)
    for seed, other in stages.other_references(ws, request).items():
        models[seed] = other
    return made


def checked_request(ws: Workspace) -> Request:
    """Return the rows to forget. Raise UserError if the run cannot serve them."""
    request, facts = stages.request(ws)
    ws.tracker.request(facts)
    check_request(ws.plan, facts)
    if has_shadows(ws.plan) or ws.plan.until is Until.shadow:
        check_shadows(ws.plan, request, facts)
    return request


def _track_stored(ws: Workspace, results: Results, result: Result) -> None:
    """Track the result as it is stored: with the scores that it keeps of earlier runs, and the curves of
    models that these have made and this run has not."""
    stored = results.find(result.name, result.key) or result
    others = [name for name in stored.weights if name not in result.weights]
    track_curves(ws.tracker, stored, others, ws.plan.root, say)
    ws.tracker.result(stored, results.sound_matrices(stored))


def _make_shadows(ws: Workspace, request: Request) -> None:
    """Make the shadow that the run names, or all shadows of its cell."""
    stages.shadows(ws, stages.cell_request(ws, request), shadow_numbers(ws.plan))


def _remarks(made: LivePieces) -> dict[str, float]:
    """Return the remarks on the unlearned model, and say them."""
    original, unlearned = made.predicted(ORIGINAL), made.predicted(UNLEARNED)
    same = weights_of(made.models[ORIGINAL]) == weights_of(made.models[UNLEARNED])
    return remarks(made.ws.plan, original, unlearned, same, say)


def _scores(plan: Plan, made: LivePieces, scores: ScoredModels) -> dict[str, Any]:
    """Return the scores as fields of a result: of the roles, of the other references and of the cell."""
    plain = {role.name: numbers(found) for role, found in scores.roles.items()}
    references = {
        str(seed): {
            "weights": weights_of(made.models[seed]),
            "scores": numbers(found),
            "costs": stages.cost_of(made.models[seed]),
            "provenance": made.models[seed].read(PROVENANCE),
        }
        for seed, found in scores.references.items()
    }
    named = {name for found in plain.values() for name in found} | set(scores.cell)
    return {
        "scores": plain,
        "references": references,
        "cell_scores": of_cells(scores.cell),
        "about": glossary(plan.metrics, named),
        "undefined": without_scores(plan.metrics, made, scores),
        "not_finite": scores.not_finite,
        "test_rows": len(made.predicted(ORIGINAL).labels["test"]),
    }


def _costs(ws: Workspace, request: Request, models: Models) -> dict[Role, dict[str, float]]:
    """Return, by role, the costs of every model and the values that were logged once in its making."""
    costs = {role: stages.cost_of(model) for role, model in models.items()}
    if REPAIRED in costs:
        costs[REPAIRED] = _sum(costs[UNLEARNED], costs[REPAIRED])
    for role, model in models.items():
        costs[role] |= stages.remarks_of(model)
    paid = _paid_before_the_request(ws, request, costs)
    for role in {UNLEARNED, REPAIRED} & costs.keys():
        costs[role] |= paid
    return costs


def _paid_before_the_request(
    ws: Workspace, request: Request, costs: Mapping[Role, Mapping[str, float]]
) -> Mapping[str, float]:
    """Return the bytes stored and the seconds spent before the request, beyond the original's training.

    They belong to the record that the method reads, or to the method's initial training: of its seconds
    the share of the gradient examples that the original's training does not take. The seconds of two
    trainings differ by the load of the machine, and their numbers of examples do not.
    """
    record = ws.plan.record_of(ws.plan.method)
    if record is not None:
        return stages.record_cost(ws, request, record)
    if INITIAL not in costs:
        return {}
    initial, taken = costs[INITIAL], costs[INITIAL]["gradient_examples"]
    beyond = max(0, taken - costs[ORIGINAL]["gradient_examples"])
    return {
        "record_bytes": initial["record_bytes"],
        "record_seconds": initial["seconds"] * beyond / max(1, taken),
    }


def _sum(first: Mapping[str, float], then: Mapping[str, float]) -> dict[str, float]:
    """Return the cost of two pieces of work in turn: the sums, and the higher of the memory peaks."""
    return {
        name: max(value, then[name]) if name == "peak_bytes" else value + then[name]
        for name, value in first.items()
    }


def _result(ws: Workspace, overrides: Sequence[str], models: Models, **outcome: Any) -> Result:
    plan = ws.plan
    shared = plan.without_seed()
    return Result(
        name=plan.name,
        key=plan.key,
        seed=plan.seed,
        names={part: plan.names[part] for part in NAMED if part in plan.names},
        titles=plan.titles,
        setting=fingerprint(identities.compared_on(shared)),
        cells=_cells(shared, models),
        parameters={**shared.parameters, **identities.flat(identities.start_of_reference(shared))},
        overrides=list(overrides),
        artefacts=sorted({(made.stage, made.key) for made in ws.used}),
        drawn=plan.scenario.drawn,
        reference_from=plan.reference_from,
        reference_may_know=plan.reference_may_know,
        weights={role.name: weights_of(model) for role, model in models.items()},
        provenance={
            "row": provenance(plan.device, plan.threads) | digests(plain(plan.metrics)),
            **{role.name: model.read(PROVENANCE) for role, model in models.items()},
        },
        **outcome,
    )


def _cells(shared: Plan, models: Models) -> dict[str, str]:
    """Return the fingerprint of the table line that each of the run's models belongs to, by role.

    The lines do not depend on the seed.
    """
    cells = {UNLEARNED.name: fingerprint(identities.own(shared))}
    if INITIAL in models:
        cells[INITIAL.name] = fingerprint(identities.initial_training(shared))
    repaired = identities.repair(shared)
    if repaired is not None:
        cells[REPAIRED.name] = fingerprint(repaired)
    return cells
