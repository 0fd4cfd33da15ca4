"""What recording per-sample gradients costs: time of a step, numbers per row; beside torch's ways to
per-sample gradients, measured on the same steps."""

import copy
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils._per_sample_grad import call_for_per_sample_grads

from data.split import Pixels, Split
from data.streams import Streams
from methods.factors import RULES, layers_of
from methods.meter import Meter
from methods.recorders.per_sample import PerSample, shapes_of
from methods.recording import Watched
from methods.training import Conditions, Recipe, train
from models.architecture import Architecture
from runner.bench import Figure, seconds
from runner.compose import composed
from runner.plan import build

STEPS = 4


def figures() -> Iterator[Figure]:
    torch.set_num_threads(2)
    for name, channels, size, batch in (("small_cnn", 1, 28, 64), ("resnet18", 3, 32, 128)):
        recipe4 = [f"training.batch_size={batch}", "training.epochs=4"]  # paper 004's epochs
        cfg, _ = composed([f"model={name}", "recorder=[per_sample]", *recipe4])
        model = build(cfg.model, Architecture, "model").fresh(channels, size, 10, 0)
        recipe = build(cfg.training, Recipe, "training")
        recorder = build(cfg.recorder.per_sample, PerSample, "recorder.per_sample")
        split = noise(channels, size, batch * STEPS)
        with tempfile.TemporaryDirectory() as folder:
            plain, recorded = seconds(
                partial(run, model, split, recipe, None, Path(folder)),
                partial(run, model, split, recipe, recorder, Path(folder)),
                repeats=5,
            )
        where = f"{name}, {size} px, batch {batch}"
        each = "s per step"
        yield Figure(f"{where}: recorded, all rows", recorded / STEPS, each, "plain step", plain / STEPS)
        images, labels = split.pixels.normalise(split.images[:batch]), split.labels[:batch]
        (mapped,) = seconds(partial(by_vmap, model, images, labels), repeats=1)
        yield Figure(f"{where}: vmap(grad)", mapped, each, "plain step", plain / STEPS)
        (called,) = seconds(partial(by_call, copy.deepcopy(model), images, labels), repeats=1)
        name_ = f"{where}: call_for_per_sample_grads"
        yield Figure(name_, called, each, "plain step", plain / STEPS)
        dense, kept = numbers(model, split.images[:1])
        yield Figure(f"{where}: numbers per row and epoch", kept, "numbers", "dense gradient", dense)


def noise(channels: int, size: int, rows: int) -> Split:
    """Random images: what a step costs does not depend on what they show."""
    images = torch.randint(256, (rows, channels, size, size), dtype=torch.uint8)
    pixels = Pixels((0.5,) * channels, (0.25,) * channels)
    return Split(images, torch.randint(10, (rows,)), torch.arange(rows), pixels)


def run(
    model: nn.Module, split: Split, recipe: Recipe, recorder: PerSample | None, folder: Path
) -> None:
    model = copy.deepcopy(model)
    meter = Meter(torch.device("cpu"))
    conditions = Conditions(Streams(0, "bench"), meter, lambda values: None, recipe)
    steps = train(model, split, recipe, conditions)
    if recorder is not None:
        steps = recorder.watch(steps, Watched(model, split, recipe, Streams(0, "record"), folder))
    for _ in islice(steps, STEPS):
        pass


def by_vmap(model: nn.Module, images: Tensor, labels: Tensor) -> object:
    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (image[None],)), label[None])

    parameters = {name: value.detach() for name, value in model.named_parameters()}
    return vmap(grad(loss), (None, 0, 0))(parameters, images, labels)


def by_call(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    logits = call_for_per_sample_grads(model, loss_reduction="mean")(images)
    F.cross_entropy(logits, labels).backward()
    for parameter in model.parameters():
        del parameter.grad_sample  # type: ignore[attr-defined]


def numbers(model: nn.Module, image: Tensor) -> tuple[int, int]:
    """Numbers per row and epoch of a dense gradient, and of the smaller form layer by layer."""
    shapes, layers = shapes_of(model, image), layers_of(model)
    dense = sum(shape.parameters for shape in shapes.values())
    kept = sum(
        min(shape.factors, shape.parameters) if RULES[type(layers[name])].total else shape.parameters
        for name, shape in shapes.items()
    )
    return dense, kept
