"""The training loop, against the bare loop anybody would write over preloaded tensors."""

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from data.streams import Streams
from methods.meter import Meter
from methods.training import Conditions, fit
from runner.bench import Figure, seconds
from runner.compose import composed
from runner.plan import Plan

ROWS = 12800  # 200 steps: a fifth of an epoch is enough for a ratio


def figures() -> Iterator[Figure]:
    torch.set_num_threads(2)
    plan = Plan.of(*composed(["dataset=mnist", "model=small_cnn", "training.epochs=1"]))
    recipe = plan.recipe
    split = plan.source.load(plan.data_root, False).train.take(torch.arange(ROWS))
    model = plan.architecture.fresh(1, 28, 10, 0)
    images = split.pixels.normalise(split.images)

    def ours() -> None:
        meter = Meter(torch.device("cpu"))
        conditions = Conditions(Streams(0, "bench"), meter, lambda values: None, recipe)
        fit(copy.deepcopy(model), split, recipe, conditions)

    def bare() -> None:
        net = copy.deepcopy(model)
        optimizer = torch.optim.SGD(
            net.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        order = torch.randperm(ROWS)
        for at in range(0, ROWS, recipe.batch_size):
            rows = order[at : at + recipe.batch_size]
            optimizer.zero_grad()
            F.cross_entropy(net(images[rows]), split.labels[rows]).backward()
            optimizer.step()

    mine, plain = seconds(ours, bare, repeats=7)
    name = f"small_cnn, {ROWS} rows of mnist, batches of {recipe.batch_size}"
    yield Figure(name, mine, "s", "bare loop over preloaded float tensors", plain)
