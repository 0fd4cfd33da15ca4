"""One pass of shuffled, prepared batches, beside torchvision's data set behind a DataLoader."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from data.split import Split
from data.streams import Streams
from runner.bench import Figure, seconds
from runner.compose import composed
from runner.plan import Plan
from runner.process import prepare


def figures() -> Iterator[Figure]:
    """Measure a pass over MNIST and over CIFAR-10."""
    prepare(torch.device("cpu"), threads=2)
    for name, size, reader in (("mnist", 64, datasets.MNIST), ("cifar10", 128, datasets.CIFAR10)):
        plan = Plan.of(*composed([f"dataset={name}"]))
        split = plan.source.load(plan.data_root, False).train
        steps: list[Any] = [transforms.ToTensor()]
        steps.append(transforms.Normalize(plan.source.mean, plan.source.std))
        if plan.source.flip:
            steps.insert(0, transforms.RandomHorizontalFlip())
            steps.insert(0, transforms.RandomCrop(plan.source.size, plan.source.crop))
        theirs = reader(plan.data_root, train=True, transform=transforms.Compose(steps))
        loaders = [DataLoader(theirs, size, shuffle=True, num_workers=n) for n in (0, 2)]
        ours, none, two = seconds(
            partial(one_pass, split, size),
            partial(exhaust, loaders[0]),
            partial(exhaust, loaders[1]),
            repeats=3,
        )
        yield Figure(
            f"one pass over {name}, batches of {size}",
            ours,
            "s",
            "torchvision + DataLoader, best of 0 and 2 workers",
            min(none, two),
        )


def one_pass(split: Split, size: int) -> None:
    streams = Streams(0, "bench")
    exhaust(split.batches(size, streams("order"), streams("augment")))


def exhaust(batches: Iterable[Any]) -> None:
    for _ in batches:
        pass
