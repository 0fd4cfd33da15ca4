"""Records of a training: what is written while a model trains, so that it can be taken out later.

A recorder wraps the loop's steps and changes nothing: the weights are the same bits with and without it.
Several recorders can watch one training.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from data.component import Component
from data.errors import UserError
from data.split import Split
from methods.training import Recipe, Step


@dataclass(frozen=True)
class Watched:
    """A training that is about to begin: the model on its device, the rows, the recipe, and the folder
    that the record is to be written to."""

    model: nn.Module
    split: Split
    recipe: Recipe
    folder: Path

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


@dataclass(frozen=True)
class Recorder(Component):
    """Something that watches a training. `classes` are those whose rows are tracked; null for all."""

    classes: list[int] | None

    def tracked(self, split: Split) -> Tensor:
        """(T,) the rows that can be asked for later."""
        if self.classes is None:
            return split.rows
        return split.rows[torch.isin(split.labels, torch.tensor(self.classes).to(split.labels))]

    def bill(self, watched: Watched) -> int:
        """Bytes that the record will take, expected before the first step."""
        raise NotImplementedError

    def watch(self, steps: Iterator[Step], watched: Watched) -> Iterator[Step]:
        """Passes the steps on, writing the record into the folder."""
        raise NotImplementedError

    def check(self, watched: Watched, option: str) -> None:
        """Raises UserError where the record cannot fit on its disk, before training."""
        free = shutil.disk_usage(watched.folder).free
        bill = self.bill(watched)
        if bill > free:
            raise UserError(
                f"{option} would write {bill / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free: "
                f"track fewer rows ({option}.classes=[…]) or store less ({option}.dtype=bf16)"
            )


def share_of_batches_hit(rows: int, tracked: int, batch_size: int) -> float:
    """Probability that a batch of `batch_size` out of `rows` holds at least one of `tracked` rows
    (hypergeometric): what a request of this size makes of an amnesiac record.

    >>> round(share_of_batches_hit(60000, 6131, 64), 3)
    0.999
    """
    others = rows - tracked
    if others < batch_size:
        return 1.0
    ways = math.lgamma(others + 1) - math.lgamma(others - batch_size + 1)
    return 1 - math.exp(ways - math.lgamma(rows + 1) + math.lgamma(rows - batch_size + 1))
