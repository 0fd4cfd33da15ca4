"""The training loop beside a bare loop over preloaded tensors, and the gain of freed memory kept."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

import torch
import torch.nn.functional as F

from data.streams import Streams
from methods.training.cost import Meter
from methods.training.descent import Recipe
from methods.training.loop import Conditions, fit
from runner.bench import Figure, seconds
from runner.compose import composed
from runner.plan import Plan
from runner.process import prepare
from tests.bench.record import noise, parts

ROWS = 12800  # 200 steps: a fifth of an epoch is enough for a ratio
STEPS = 8


def figures() -> Iterator[Figure]:
    """Measure the training of a small network, and steps with and without freed memory kept."""
    prepare(torch.device("cpu"), threads=2)
    plan = Plan.of(*composed(["dataset=mnist", "model=small_cnn", "training.epochs=1"]))
    recipe = plan.recipe
    split = plan.source.load(plan.data_root, False).train.take(torch.arange(ROWS))
    model = plan.architecture.fresh(1, 28, 10, 0)
    images = split.pixels.normalise(split.images)

    def ours() -> None:
        fit(copy.deepcopy(model), split, recipe, conditions_of(recipe))

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
    yield from freed_memory_kept()


def freed_memory_kept() -> Iterator[Figure]:
    """Measure the same steps in a process that keeps freed memory and in one that does not."""
    spawn, threads = get_context("spawn"), 2
    with (
        spawn.Pool(1, prepare, (torch.device("cpu"), threads)) as keeping,
        spawn.Pool(1, torch.set_num_threads, (threads,)) as plain,
    ):
        for name, channels, size, batch in (
            ("small_cnn", 1, 28, 64),
            ("resnet18", 3, 32, 128),
            ("vit", 3, 32, 128),
        ):
            work = (name, channels, size, batch)
            kept, given = seconds(*(partial(pool.apply, steps, work) for pool in (keeping, plain)))
            where = f"{name}, {size} px, batch {batch}: {STEPS} steps, freed memory kept"
            yield Figure(where, kept, "s", "given back to the system", given)


def steps(name: str, channels: int, size: int, batch: int) -> None:
    """Take a few steps of training on noise."""
    model, recipe, _ = parts(name, channels, size, batch)
    split = noise(channels, size, batch * STEPS)
    fit(model, split, replace(recipe, epochs=1), conditions_of(recipe))


def conditions_of(recipe: Recipe) -> Conditions:
    meter = Meter(torch.device("cpu"))
    return Conditions(Streams(0, "bench"), meter, lambda values: None, recipe)
