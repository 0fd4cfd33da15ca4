"""Joining: two results of the same models as one, so that a row never loses scores."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.results import Result


def of_the_same_models(earlier: "Result", later: "Result") -> bool:
    """Return whether the weights of two results agree in every role that both have."""
    return all(
        earlier.weights[role] == later.weights[role] for role in earlier.weights if role in later.weights
    )


def joined(earlier: "Result", later: "Result") -> "Result":
    """Return the later result of two of the same models, with what it lacks from the earlier one."""
    return replace(
        later,
        artefacts=sorted({(stage, key) for stage, key in (*earlier.artefacts, *later.artefacts)}),
        weights={**earlier.weights, **later.weights},
        provenance={**earlier.provenance, **later.provenance},
        scores=inner_joined(earlier.scores, later.scores),
        costs=inner_joined(earlier.costs, later.costs),
        references={
            seed: inner_joined(earlier.references.get(seed, {}), later.references.get(seed, {}))
            for seed in {**earlier.references, **later.references}
        },
        cell_scores={**earlier.cell_scores, **later.cell_scores},
        about={**earlier.about, **later.about},
        undefined={**earlier.undefined, **later.undefined},
    )


def inner_joined(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Join mappings, and the mappings in them; where both have a value, the later one counts."""
    whole = {**earlier, **later}
    for name in earlier.keys() & later.keys():
        if isinstance(later[name], Mapping):
            whole[name] = {**earlier[name], **later[name]}
    return whole
