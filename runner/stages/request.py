"""The request: the rows to forget, and the facts that decide whether a run can work with them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from data.disk import save_tensors
from data.loading import select
from data.requests import Request
from data.split import Dataset, Split
from runner.plan import identities
from runner.stages.workspace import Workspace, write
from runner.store import Artefact

ABOUT, TENSORS = "request.json", "tensors.safetensors"


def request(ws: Workspace) -> tuple[Request, dict[str, Any]]:
    """Return the rows to forget, and the fields of `Facts` that they decide."""

    def produce(folder: Path) -> None:
        dataset = ws.dataset.to(torch.device("cpu"))
        found = select(ws.plan.scenario, dataset, ws.streams("request"))
        save_tensors({"rows": found.rows, "test": found.test}, folder / TENSORS)
        write(folder / ABOUT, {"target": found.target, "facts": _facts(dataset, found)})

    made = ws.get("request", identities.request(ws.plan), produce)
    return stored_request(made), stored_facts(made)


def stored_request(made: Artefact) -> Request:
    """Return the request of an artefact."""
    tensors = load_file(made.path / TENSORS)
    return Request(tensors["rows"], tensors["test"], made.read(ABOUT)["target"])


def stored_facts(made: Artefact) -> dict[str, Any]:
    """Return the fields of `Facts` that the request of an artefact decides."""
    facts: dict[str, Any] = made.read(ABOUT)["facts"]
    return facts


def retained(train: Split, request: Request) -> Split:
    """Return the rows that may still be used: those not to be forgotten.

    In a request to relabel these are all rows, the forgotten ones under their new label.
    """
    if request.target is None:
        return train.without(request.rows)
    labels = train.labels.clone()
    labels[torch.isin(train.rows, request.rows.to(train.rows.device))] = request.target
    return train.relabelled(labels)


def _facts(dataset: Dataset, request: Request) -> dict[str, Any]:
    rest = retained(dataset.train, request)
    present = set(rest.labels.unique().tolist())
    return {
        "all": len(dataset.train),
        "forget": len(request.rows),
        "retain": len(rest),
        "gone": [label for label in range(dataset.classes) if label not in present],
        "relabels": request.target is not None,
    }
