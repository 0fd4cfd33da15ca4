"""Exporting: a model of the store as a file of its own, with its configuration beside it."""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from data.component import Component, plain
from data.disk import replacing
from data.errors import UserError
from runner.figure.runs import Model
from runner.naming import checked_name, command_of
from runner.results import Result, Results, models
from runner.roles import REPAIRED, UNLEARNED

NAME = "name="


def export(root: Path, asked: str, file: Path) -> Path:
    """Copy the weights of a model to `file`, and write its configuration beside it; return its path.

    `asked` is the key of a result or of a model in the store, or `name=` and the name of a single
    result. The model of a result is the unlearned one, repaired if the run repairs. Raise UserError if
    there is no such model, or several.
    """
    if file.suffix != ".safetensors":
        raise UserError(f"{file} is to hold weights: give it the suffix .safetensors")
    named = asked.startswith(NAME)
    model = _of_name(root, asked.removeprefix(NAME)) if named else _of_key(root, asked)
    about = file.with_suffix(".json")
    text = json.dumps(_configuration(model), indent=1) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as weights, replacing(about) as scratch:
        shutil.copyfile(_weights(model), weights)
        scratch.write_text(text)
    return about


def _of_name(root: Path, name: str) -> Model:
    """Return the model of a name's only result."""
    found = list(_last_models(root, Results(root / "results").named(checked_name(name))))
    if not found:
        raise UserError(f"every run of {name} diverged, and no model was made: export another name's")
    if len(found) != 1:
        keys = "".join(f"\n  {each.result.key}  {' '.join(each.result.overrides)}" for each in found)
        raise UserError(f"{name} has {len(found)} models: export one by its key:{keys}")
    return found[0]


def _last_models(root: Path, results: Iterable[Result]) -> Iterator[Model]:
    for result in results:
        for role in (REPAIRED, UNLEARNED):
            if role in result.roles:
                yield Model(result, role, root)
                break


def _of_key(root: Path, key: str) -> Model:
    """Return the model of the result with this key, or the model of a result that is stored under it."""
    results = _of_all_names(root)
    for model in _last_models(root, results):
        if model.result.key == key:
            return model
    used = [
        Model(result, role, root)
        for _, result, role in models(results)
        if [role.stage, key] in map(list, result.artefacts)
    ]
    for model in used:
        if model.is_stored_as(key):
            return model
    for model in used:
        if not (root / "store" / model.role.stage / key).is_dir():
            again = command_of(model.result.overrides)
            raise UserError(f"model {key} is no longer in the store: run `{again}` again")
    raise UserError(f"no result in {root / 'results'} has a model {key}: `export name=…` lists the keys")


def _of_all_names(root: Path) -> list[Result]:
    """Return the results of every name, but those of names whose results are all damaged."""
    stored, found = Results(root / "results"), []
    for folder in sorted(stored.root.glob("*/")):
        with suppress(UserError):
            found += stored.named(folder.name)
    return found


def _weights(model: Model) -> Path:
    from runner.stages.models import MODEL

    return model.artefact.path / MODEL


def _configuration(model: Model) -> dict[str, Any]:
    """Return what `runner.exported.load` builds the model from, and what it was made with."""
    from runner.score.live import method_of
    from runner.stages import weights_of

    plan = model.workspace.plan
    method, source = method_of(plan, model.role), plan.source
    return {
        "model": {**_node(plan.architecture), "weights": None, "sha256": None},
        "method": None if method is None else _node(method),
        "channels": source.channels,
        "size": source.size,
        "classes": source.classes,
        "pixels": {"mean": list(source.mean), "std": list(source.std)},
        "sha256": weights_of(model.artefact),
        "role": model.role.name,
        "command": ["python", "-m", "runner", *model.result.overrides],
        "provenance": model.result.provenance[model.role.name],
    }


def _node(component: Component) -> dict[str, Any]:
    """Return a component as a configuration file names it."""
    cls = type(component)
    values = {field.name: plain(getattr(component, field.name)) for field in fields(component)}  # type: ignore[arg-type]
    return {"_target_": f"{cls.__module__}.{cls.__qualname__}", **values}
