"""Predictions: the logits of a model on whole splits, cut into the parts of a request."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.requests import Request
from data.split import Split
from methods.base import Method
from methods.training.loop import Diverged
from metrics.predictions import Predictions, by_part, predict
from models.precision import Precision
from runner.plan import identities
from runner.progress import Bar
from runner.stages.models import load, weights_of
from runner.stages.workspace import Workspace
from runner.store import Artefact

TENSORS = "tensors.safetensors"

# Logits (N, K) float32, labels (N,) and rows (N,) int64 of a whole split, on the CPU.
Predicted = tuple[Tensor, Tensor, Tensor]


def predictions(
    ws: Workspace, request: Request, made: Artefact, maker: Method | None = None
) -> Predictions:
    """Return the logits of an artefact's model by part of the request.

    `maker` is the method that made the model, or None if it has the original's architecture. Training
    rows are predicted only if the evaluation asks for them.
    """
    found = {split: stored(ws, made, maker, split) for split in _splits(ws)}
    return _parts(request, found)


def predictions_now(ws: Workspace, request: Request, model: nn.Module) -> Predictions:
    """Return the logits of a model in memory, by part of the request, and store nothing."""
    return _parts(request, {split: _predict(ws, model, split) for split in _splits(ws)})


def logits_of(artefact: Artefact) -> Tensor:
    """Return the logits (N, K) of stored predictions."""
    return load_file(artefact.path / TENSORS)["logits"]


def _splits(ws: Workspace) -> list[str]:
    return ["train", "test"] if ws.plan.evaluation.train else ["test"]


def _parts(request: Request, found: Mapping[str, Predicted]) -> Predictions:
    return by_part(found, {"train": request.rows, "test": request.test}, request.target)


def stored(
    ws: Workspace, made: Artefact, maker: Method | None, split: str, shown: Split | None = None
) -> Predicted:
    """Return the logits of an artefact's model on a split of this name, predicting it if absent.

    `shown` are the rows of a split that the data set does not have.
    """

    def produce(folder: Path) -> None:
        logits, labels, rows = _predict(ws, load(ws, made, maker), split, shown)
        if not logits.isfinite().all():
            raise Diverged(
                "the outputs are no longer finite: lower the learning rate, set clip, or choose "
                "smaller options of the method"
            )
        save_file({"logits": logits, "labels": labels, "rows": rows}, folder / TENSORS)

    identity = identities.predict(ws.plan, weights_of(made), split)
    tensors = load_file(ws.get("predict", identity, produce).path / TENSORS)
    return tensors["logits"], tensors["labels"], tensors["rows"]


def _predict(ws: Workspace, model: nn.Module, name: str, shown: Split | None = None) -> Predicted:
    """Predict a whole split, keeping the first K logits of each row: a method may have added others."""
    plan, split = ws.plan, getattr(ws.dataset, name) if shown is None else shown
    with Bar(f"predict {name}") as bar:
        bar.expect(len(split))
        bf16 = plan.recipe.precision is Precision.bf16
        logits = predict(model, split, plan.evaluation.batch_size, bf16, bar.advance)
    return logits[:, : ws.dataset.classes], split.labels.cpu(), split.rows.cpu()
