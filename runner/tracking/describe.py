"""Descriptions of a run for people: its title, and its configuration as the options are nested."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.component import Component, plain
from runner.roles import OF_METHOD

if TYPE_CHECKING:  # a plan checks its settings in this package
    from runner.plan import Plan


def title(plan: "Plan", overrides: Sequence[str]) -> str:
    """Return the name of a run, such as `digits-small_cnn · whole class 3 · scrub lr=0.01 · seed 1`.

    The method stands with its options that the command set, so that the runs of a sweep differ.
    """
    names = plan.names
    method = names.get("variant", names["method"])
    repaired = f"repair {names['repair']}" if plan.repair is not None and "repair" in names else ""
    options = [text.removeprefix("method.") for text in overrides if text.startswith(OF_METHOD)]
    done = " ".join(filter(None, [method, repaired, *options]))
    parts = [f"{names['dataset']}-{names['model']}", _request(plan), done, f"seed {plan.seed}"]
    return " · ".join(parts)


def _request(plan: "Plan") -> str:
    """Return the request in words: the scenario, its classes, and its other options that are set."""
    words = [plan.names["scenario"].replace("_", " ")]
    for field in fields(plan.scenario):  # type: ignore[arg-type]
        value = getattr(plan.scenario, field.name)
        if isinstance(value, list):
            words += map(str, value)
        elif value is not None:
            shown = Path(value).name if isinstance(value, str) else value
            words.append(f"{field.name}={shown}")
    return " ".join(words)


def described(plan: "Plan", overrides: Sequence[str], made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run, nested as its options are, with the names of its choices.

    `made_by` is the provenance: the commit, the versions, the device and the threads.
    """
    names, evaluation = plan.names, plan.evaluation
    parts = {
        "dataset": plan.source,
        "model": plan.architecture,
        "training": plan.recipe,
        "scenario": plan.scenario,
        "method": plan.method,
        "repair": plan.repair,
    }
    return {
        "key": plan.key,
        "name": plan.name,
        "variant": names.get("variant", names["method"]),
        **{part: _options(value, names.get(part)) for part, value in parts.items()},
        "recorder": {name: _options(recorder, None) for name, recorder in plan.recorders.items()},
        "evaluation": {
            "reference": _options(plan.reference, None),
            "references": evaluation.references,
            "shadows": evaluation.shadows,
            "train": evaluation.train,
            "every": evaluation.every,
            "metrics": list(evaluation.metrics),
        },
        "data": {"limit": plan.data.limit, "rare": {str(k): rows for k, rows in plan.rare.items()}},
        "budget": {"gradient_examples": plan.budget},
        "seed": plan.seed,
        "overrides": list(overrides),
        **{name: value for name, value in made_by.items() if name != "date"},
    }


def _options(part: Component | None, name: str | None) -> dict[str, Any] | None:
    """Return the options of a component, after the name of the choice."""
    if part is None:
        return None
    options = {field.name: plain(getattr(part, field.name)) for field in fields(part)}  # type: ignore[arg-type]
    return options if name is None else {"name": name, **options}
