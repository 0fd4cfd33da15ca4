"""Per-sample Fisher information of a split, beside an ordinary pass of forward and backward over the
same rows without optimizer steps, and beside the loop of batches of one."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from data.split import Split
from data.streams import Streams
from methods.importance import per_sample_fisher
from methods.meter import Meter
from methods.training import Conditions, Recipe
from models.architecture import Architecture
from runner.bench import Figure, seconds
from runner.bench.record import noise
from runner.compose import composed
from runner.plan import build

FEW = 8  # rows of the slow loop


def figures() -> Iterator[Figure]:
    torch.set_num_threads(2)
    for overrides, rows, batch in (
        (["model=resnet18"], 128, 128),
        (["model=resnet18", "model.stem=cifar"], 32, 32),
    ):
        cfg, _ = composed(overrides)
        model = build(cfg.model, Architecture, "model").fresh(3, 32, 10, 0).eval()
        recipe = build(cfg.training, Recipe, "training")
        split = noise(3, 32, rows)
        ours, plain, loop = seconds(
            partial(by_factors, model, split, batch, recipe),
            partial(one_pass, model, split, batch),
            partial(row_by_row, model, split.take(torch.arange(FEW))),
            repeats=2,
        )
        where = f"per-sample Fisher, {' '.join(overrides)}, 32 px, batch {batch}"
        each = "s per row"
        yield Figure(where, ours / rows, each, "forward and backward alone", plain / rows)
        yield Figure(where, ours / rows, each, "batches of one", loop / FEW)


def by_factors(model: nn.Module, split: Split, batch: int, recipe: Recipe) -> None:
    meter = Meter(torch.device("cpu"))
    conditions = Conditions(Streams(0, "bench"), meter, lambda values: None, recipe)
    per_sample_fisher(model, split, batch, conditions)


def one_pass(model: nn.Module, split: Split, size: int) -> None:
    for batch in split.batches(size):
        model.zero_grad()
        F.cross_entropy(model(batch.images), batch.labels).backward()


def row_by_row(model: nn.Module, split: Split) -> None:
    total = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for batch in split.batches(1):
        model.zero_grad()
        F.cross_entropy(model(batch.images), batch.labels).backward()
        for squares, parameter in zip(total, model.parameters(), strict=True):
            assert parameter.grad is not None
            squares += parameter.grad.square()
