"""Joining: two results of one key as one, so that a row never loses scores."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.roles import REFERENCE, ROLE, UNLEARNED, Role

if TYPE_CHECKING:
    from runner.results import Result


def of_the_same_models(earlier: "Result", later: "Result") -> bool:
    """Return whether the weights of two results agree in every role, and in every other retrained model
    by its seed, that both have."""
    one, other = _weights(earlier), _weights(later)
    return all(one[model] == other[model] for model in one.keys() & other.keys())


def _weights(result: "Result") -> dict[str, str]:
    others = {seed: str(each["weights"]) for seed, each in result.references.items()}
    return {**result.weights, **others}


def lost(earlier: "Result", later: "Result") -> set[str]:
    """Return the scores that the earlier result has and the later one lacks, as "role score"."""
    return _scored(earlier) - _scored(later)


def joined(earlier: "Result", later: "Result") -> "Result":
    """Return the later result of two of the same models, with what it lacks from the earlier one. A
    score that the later one found to be no finite number is not lacking.

    `overrides` are those of the command that makes all scores. If neither does, they are the later
    one's, and `also` holds the earlier one's. The provenance of the row is of the same run as they are.
    """
    earlier = _without_not_finite(earlier, later)
    referring = earlier if later.reference_from is None else later
    commanding = earlier if _is_fuller(earlier, later) else later
    return replace(
        later,
        overrides=commanding.overrides,
        also=_also(earlier, later),
        setting=referring.setting,
        parameters=referring.parameters,
        reference_from=referring.reference_from,
        reference_may_know=referring.reference_may_know,
        artefacts=sorted({(stage, key) for stage, key in (*earlier.artefacts, *later.artefacts)}),
        weights={**earlier.weights, **later.weights},
        provenance={**earlier.provenance, **later.provenance, "row": commanding.provenance["row"]},
        scores=inner_joined(earlier.scores, later.scores),
        costs={**earlier.costs, **later.costs, **_fuller_costs(earlier, later)},
        references={
            seed: inner_joined(earlier.references.get(seed, {}), later.references.get(seed, {}))
            for seed in {**earlier.references, **later.references}
        },
        cell_scores={**earlier.cell_scores, **later.cell_scores},
        about={**earlier.about, **later.about},
        undefined=_undefined(earlier, later),
        not_finite=_not_finite(earlier, later),
    )


def _without_not_finite(earlier: "Result", later: "Result") -> "Result":
    """Return the earlier result without the scores that are no finite number in the later one."""

    def rest(role: Role, scores: Mapping[str, Any]) -> dict[str, Any]:
        gone = later.not_finite.get(role.name, ())
        return {name: value for name, value in scores.items() if name not in gone}

    rests = {
        seed: {**each, "scores": rest(REFERENCE, each.get("scores", {}))}
        for seed, each in earlier.references.items()
        if seed in later.references
    }
    return replace(
        earlier,
        scores={role: rest(ROLE[role], found) for role, found in earlier.scores.items()},
        references={**earlier.references, **rests},
        cell_scores=rest(UNLEARNED, earlier.cell_scores),
    )


def _undefined(earlier: "Result", later: "Result") -> dict[str, str]:
    """Return why metrics have no score, but for those of which either result has one by now."""
    made = {said.get("metric") for each in (earlier, later) for said in each.about.values()}
    return {
        metric: reason
        for metric, reason in {**earlier.undefined, **later.undefined}.items()
        if metric not in made
    }


def _not_finite(earlier: "Result", later: "Result") -> dict[str, list[str]]:
    """Return, by role, the scores that were no finite number, but for those that are one by now."""
    found = {role: {*names} for role, names in later.not_finite.items()}
    for role, names in earlier.not_finite.items():
        made = {**later.scores.get(role, {}), **later.cell_scores}
        found.setdefault(role, set()).update(name for name in names if name not in made)
    return {role: sorted(names) for role, names in found.items() if names}


def _scored(result: "Result") -> set[str]:
    """Return what a result has scores of, as "role score"; other references count by their seeds."""
    models = {**result.scores, "cell": result.cell_scores}
    models |= {f"reference {seed}": each.get("scores", {}) for seed, each in result.references.items()}
    return {f"{model} {name}" for model, found in models.items() for name in found}


def _is_fuller(earlier: "Result", later: "Result") -> bool:
    return not lost(later, earlier) and bool(lost(earlier, later))


def _also(earlier: "Result", later: "Result") -> list[list[str]]:
    """Return the commands of which the joined result has further scores."""
    if _is_fuller(earlier, later):
        return earlier.also
    if not lost(earlier, later):
        return later.also
    found: list[list[str]] = []
    for each in (*earlier.also, earlier.overrides, *later.also):
        if each not in (later.overrides, *found):
            found.append(each)
    return found


def _fuller_costs(earlier: "Result", later: "Result") -> Mapping[str, Mapping[str, float]]:
    """Return the costs of the roles that the earlier result has more scores of, by role.

    They hold remarks on the predictions that were scored, and more predictions tell more.
    """
    return {
        role: earlier.costs[role]
        for role in earlier.costs.keys() & later.costs.keys()
        if earlier.scores.get(role, {}).keys() > later.scores.get(role, {}).keys()
    }


def inner_joined(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Join mappings, and the mappings in them; where both have a value, the later one counts."""
    whole = {**earlier, **later}
    for name in earlier.keys() & later.keys():
        if isinstance(later[name], Mapping):
            whole[name] = {**earlier[name], **later[name]}
    return whole
