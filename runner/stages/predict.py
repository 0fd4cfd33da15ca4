"""Predictions: the logits of a model on whole splits, cut into the parts of a request."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from data.disk import save_tensors
from data.requests import Request
from methods.base import Method
from methods.training.divergence import Diverged
from metrics.predictions import Predictions, by_part, predict
from models.precision import Precision
from runner.plan import identities
from runner.progress import Bar
from runner.stages.models import load, weights_of
from runner.stages.workspace import Workspace
from runner.store import Artefact, Identity

TENSORS = "tensors.safetensors"

# Logits (N, K) float32, labels (N,) and rows (N,) int64 of a whole split, on the CPU.
Predicted = tuple[Tensor, Tensor, Tensor]


def predictions(
    ws: Workspace, request: Request, made: Artefact, made_by: Method | None = None
) -> Predictions:
    """Return the logits of an artefact's model by part of the request.

    `made_by` is the method that made the model, or None if it has the original's architecture. Training
    rows are predicted only if the evaluation asks for them.
    """

    def found(split: str) -> Predicted:
        identity = identities.predict(ws.plan, weights_of(made), split)
        return stored(ws, "predict", identity, split, lambda: load(ws, made, made_by))

    return in_parts(ws, request, found)


def predictions_now(ws: Workspace, request: Request, model: nn.Module) -> Predictions:
    """Return the logits of a model in memory, by part of the request, and store nothing."""
    return in_parts(ws, request, lambda split: _predict(ws, model, split))


def stored_predictions(artefact: Artefact) -> Predicted:
    """Return logits, labels and rows of stored predictions."""
    tensors = load_file(artefact.path / TENSORS)
    return tensors["logits"], tensors["labels"], tensors["rows"]


def logits_of(artefact: Artefact) -> Tensor:
    """Return the logits (N, K) of stored predictions."""
    return load_file(artefact.path / TENSORS)["logits"]


def in_parts(ws: Workspace, request: Request, found: Callable[[str], Predicted]) -> Predictions:
    """Return the predictions of the splits that the evaluation asks for, by part of the request.

    `found` returns those of a split by its name.
    """
    splits = ["train", "test"] if ws.plan.evaluation.train else ["test"]
    forget = {"train": request.rows, "test": request.test}
    return by_part({split: found(split) for split in splits}, forget, request.target)


def stored(
    ws: Workspace, stage: str, identity: Identity, split: str, model: Callable[[], nn.Module]
) -> Predicted:
    """Return the predictions of a split at a stage, made with the model if they are absent.

    Raise Diverged if a logit is not finite.
    """

    def produce(folder: Path) -> None:
        logits, labels, rows = _predict(ws, model(), split)
        if not logits.isfinite().all():
            raise Diverged(
                "the outputs are no longer finite: lower the learning rate, set clip, or choose "
                "smaller options of the method"
            )
        save_tensors({"logits": logits, "labels": labels, "rows": rows}, folder / TENSORS)

    return stored_predictions(ws.get(stage, identity, produce))


def _predict(ws: Workspace, model: nn.Module, name: str) -> Predicted:
    """Predict a whole split, keeping the first K logits of each row: a method may have added others."""
    plan, split = ws.plan, getattr(ws.dataset, name)
    with Bar(f"predict {name}") as bar:
        bar.expect(len(split))
        bf16 = plan.recipe.precision is Precision.bf16
        logits = predict(model, split, plan.evaluation.batch_size, bf16, bar.advance)
    return logits[:, : ws.dataset.classes], split.labels.cpu(), split.rows.cpu()
