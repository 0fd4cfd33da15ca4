"""The logits of one model on every part of the data, computed once and scored by every metric."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data.component import Component
from data.contracts import returned_scores
from data.split import Split
from models.precision import autocast

Matrix = list[list[int]]
Scores = dict[str, float | Matrix]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits (N, K) float32 and true labels (N,) int64, by part.

    The parts are `test`, the whole test set, and those of `train_forget`, `train_retain`, `test_forget`
    and `test_retain` that have rows. `classes` is K. `target` is the new class of the forgotten rows in
    a request to relabel, else None.
    """

    logits: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    classes: int
    target: int | None = None


class Metric(Component):
    """A pure function of predictions. It is a frozen dataclass, whose fields are its parameters."""

    def __call__(self, predictions: Predictions, reference: Predictions | None) -> Scores:
        """Return scores by name.

        `reference` holds the retrained model's predictions of the same rows, or is None.
        """
        raise NotImplementedError


def scored(metrics: Sequence[Metric], predictions: Predictions, reference: Predictions | None) -> Scores:
    """Return the scores of all metrics together."""
    found = [returned_scores(metric, metric(predictions, reference)) for metric in metrics]
    return {name: value for scores in found for name, value in scores.items()}


def numbers(scores: Scores) -> dict[str, float]:
    """Return the scores that are single numbers."""
    return {name: value for name, value in scores.items() if not isinstance(value, list)}


def matrices(scores: Scores) -> dict[str, Matrix]:
    """Return the scores that are matrices."""
    return {name: value for name, value in scores.items() if isinstance(value, list)}


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    batch_size: int,
    bf16: bool,
    advance: Callable[[int], None] = lambda rows: None,
) -> Tensor:
    """Return the logits (N, K) float32 of all rows in their order, on the CPU.

    The model is put into evaluation mode, and images are not augmented. `advance` is called with the
    number of rows after each batch.
    """
    model.eval()
    logits = []
    for batch in split.batches(batch_size):
        with autocast(bf16, batch.images.device):
            # (B, K); float32 also under autocast, because metrics need the digits
            logits.append(model(batch.images).float())
        advance(len(batch.rows))
    return torch.cat(logits).cpu()


def by_part(
    splits: Mapping[str, Sequence[Tensor]], forget: Mapping[str, Tensor], target: int | None
) -> Predictions:
    """Return the predictions of whole splits, cut into the rows to forget and to retain.

    `splits` holds `(logits, labels, rows)` by name of the split, and must hold `test`. `forget` holds
    the rows to forget by name of the split.
    """
    logits, labels = {}, {}
    for name, split in splits.items():
        # (N,): true for the rows to forget
        gone = torch.isin(split[2], forget[name])
        for part, mask in (("forget", gone), ("retain", ~gone)):
            if mask.any():
                logits[f"{name}_{part}"] = split[0][mask]
                labels[f"{name}_{part}"] = split[1][mask]
    test = splits["test"]
    logits["test"], labels["test"] = test[0], test[1]
    return Predictions(logits, labels, classes=test[0].shape[1], target=target)
