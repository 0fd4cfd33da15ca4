"""The cost of recording per-sample gradients: seconds per step and numbers per row, beside torch's
own ways to per-sample gradients on the same steps, on a GPU if there is one. Also the error of the
record, the time to serve a request from it, and the speed of writing it, on the CPU."""

import copy
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils._per_sample_grad import call_for_per_sample_grads

from data.split import Pixels, Split
from data.streams import Streams
from methods.recording.files import EntryFile, Writer
from methods.recording.per_sample import (
    Attribution,
    FactorType,
    Form,
    PerSample,
    SampleRecord,
)
from methods.recording.recorder import RecordedTraining
from methods.training.cost import Cost, Meter, now
from methods.training.descent import Optimizer, Recipe, Schedule, Step
from methods.training.loop import Conditions, train
from models.architecture import Architecture
from runner.bench import Figure, seconds
from runner.compose import composed
from runner.plan import build
from runner.process import prepare

CPU = torch.device("cpu")
DEVICE = torch.device("cuda") if torch.cuda.is_available() else CPU

# Epochs of every training, as in paper 004.
EPOCHS = 4

# Rows of a request: one class of CIFAR-100.
ROWS = 500

# The speed of writing: bytes per entry, entries per block, and blocks.
ENTRY, AT_ONCE, BLOCKS = 190_000, 128, 20


def figures() -> Iterator[Figure]:
    prepare(DEVICE, threads=2)
    # Enough batches per epoch that opening and closing a record take little time beside them.
    for name, channels, size, batch, batches, repeats in (
        ("small_cnn", 1, 28, 64, 16, 7),
        ("resnet18", 3, 32, 128, 4, 7),
        ("vit", 3, 32, 128, 3, 3),
    ):
        yield from recorded_step(name, channels, size, batch, batches, repeats)
    yield from errors()
    yield from exactness()
    yield from serving()
    yield from writing()


def recorded_step(
    name: str, channels: int, size: int, batch: int, batches: int, repeats: int
) -> Iterator[Figure]:
    """Time a step with all rows recorded, in each layer's smallest form and in factors, with one class
    of ten recorded, and with torch's own ways to per-sample gradients."""
    model, recipe, every = parts(name, channels, size, batch)
    model, split = model.to(DEVICE), noise(channels, size, batch * batches).to(DEVICE)
    steps = batches * EPOCHS
    with tempfile.TemporaryDirectory() as folder:
        plain, *recorded = seconds(
            *(
                partial(run, model, split, recipe, recorder, Path(folder))
                for recorder in (
                    None,
                    every,
                    replace(every, form=Form.factored),
                    replace(every, classes=[3]),
                )
            ),
            repeats=repeats,
        )
    where, each, plain = f"{name}, {size} px, batch {batch}, {DEVICE}", "s per step", plain / steps
    for which, taken in zip(
        ("all rows", "all rows as factors", "one class of ten"), recorded, strict=True
    ):
        yield Figure(f"{where}: recorded, {which}", taken / steps, each, "plain step", plain)
    if name != "vit":  # vmap falls back to a loop over samples there
        images, labels = split.pixels.normalise(split.images[:batch]), split.labels[:batch]
        (mapped,) = seconds(partial(by_vmap, model, images, labels), repeats=1)
        yield Figure(f"{where}: vmap(grad)", mapped, each, "plain step", plain)
        (called,) = seconds(partial(by_call, copy.deepcopy(model), images, labels), repeats=1)
        yield Figure(f"{where}: call_for_per_sample_grads", called, each, "plain step", plain)
    dense, kept = numbers(every, RecordedTraining(model, split, recipe, Streams(0, "record"), Path()))
    yield Figure(f"{where}: numbers per row and epoch", kept, "numbers", "dense gradient", dense)


def parts(name: str, channels: int, size: int, batch: int) -> tuple[nn.Module, Recipe, PerSample]:
    """Return a model, its recipe with paper 004's epochs, and the configured recorder."""
    overrides = [f"training.batch_size={batch}", f"training.epochs={EPOCHS}", "training.clip=null"]
    cfg, _ = composed([f"model={name}", "recorder=[per_sample]", "training.warmup=0", *overrides])
    model = build(cfg.model, Architecture, "model").fresh(channels, size, 10, 0)
    recipe = build(cfg.training, Recipe, "training")
    return model, recipe, build(cfg.recorder.per_sample, PerSample, "recorder.per_sample")


def errors() -> Iterator[Figure]:
    """Compare the share of every third row of one batch, from the record and from vmap."""
    model, recipe, recorder = parts("small_cnn", 1, 28, 64)
    split = noise(1, 28, 64)
    chosen = torch.arange(0, 64, 3)
    images, labels = split.pixels.normalise(split.images), split.labels
    each = by_vmap(model, images, labels)
    wanted = torch.cat([-recipe.lr * each[n][chosen].sum(0).flatten() / 64 for n in each])
    for dtype, allowed in ((FactorType.fp32, 1e-5), (FactorType.bf16, 5e-3), (FactorType.int8, 2e-2)):
        with tempfile.TemporaryDirectory() as folder:
            own = replace(recorder, dtype=dtype)
            run(model, split, replace(recipe, epochs=1), own, Path(folder))
            share = SampleRecord.open(Path(folder)).share(model, chosen)
        found = torch.cat([share[name].flatten() for name in each])
        error = float((found - wanted).norm() / wanted.norm())
        name = f"small_cnn: error of a sum over rows, {dtype.name}"
        yield Figure(name, error, "of the norm", "allowed, against vmap(grad)", allowed)


def exactness() -> Iterator[Figure]:
    """Compare A·θ₀ + Σ shares of all rows with the trained weights θ_T, for SGD with momentum, weight
    decay and a schedule."""
    model, recipe, recorder = parts("small_cnn", 1, 28, 64)
    split = noise(1, 28, 64 * 4)
    own = replace(recorder, dtype=FactorType.fp32, attribution=Attribution.exact)
    descent = replace(
        recipe,
        optimizer=Optimizer.sgd,
        momentum=0.9,
        weight_decay=5e-4,
        schedule=Schedule.cosine,
        lr=0.02,
    )
    with tempfile.TemporaryDirectory() as folder:
        trained = run(model, split, descent, own, Path(folder)).state_dict()
        record = SampleRecord.open(Path(folder))
        share = record.share(model, split.rows)
    apart = {
        name: record.beginning * start.detach() + share[name] - trained[name]
        for name, start in model.named_parameters()
    }
    error = _norm(apart.values()) / _norm(trained.values())
    yield Figure(
        "small_cnn: A·θ₀ + all shares, fp32", error, "of the norm", "allowed, against θ_T", 1e-5
    )


def serving() -> Iterator[Figure]:
    """Time the share of 500 rows of 4 epochs from a record of ResNet-18, and measure its memory."""
    model, recipe, recorder = parts("resnet18", 3, 32, 125)
    split = noise(3, 32, ROWS)
    with tempfile.TemporaryDirectory() as folder:
        run(model, split, recipe, recorder, Path(folder))
        # One process each: memory that another has freed would hide what this one takes.
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            quarter, whole = (pool.apply(served, (folder, split.rows[:n])) for n in (ROWS // 4, ROWS))
    where = f"resnet18: {ROWS} rows × {EPOCHS} epochs from the record"
    yield Figure(where, whole.seconds, "s", "allowed", 0.8)
    few, all_rows = quarter.peak_bytes / 2**20, whole.peak_bytes / 2**20
    yield Figure(f"{where}, memory", all_rows, "MiB", "a quarter of the rows", few)


def served(folder: str, rows: Tensor) -> Cost:
    """Return the cost of serving a request for these rows, beyond the model and a first row."""
    prepare(CPU, threads=2)
    model, _, _ = parts("resnet18", 3, 32, 125)
    record, meter = SampleRecord.open(Path(folder)), Meter(CPU)
    record.share(model, rows[:1])
    with meter:
        record.share(model, rows)
    return meter.cost


def writing() -> Iterator[Figure]:
    """Time entries through the recorder's thread, and the same bytes by dd."""
    block = torch.randint(256, (AT_ONCE, ENTRY), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        target = f"of={folder}/dd"
        command = ["dd", "if=/dev/zero", target, f"bs={block.numel()}", f"count={BLOCKS}"]

        def ours() -> None:
            with Writer(Path(folder), go_on=False) as writer:
                file = EntryFile(Path(folder), "bench")
                for _ in range(BLOCKS):
                    writer.do(partial(file.append, block.clone()))
                writer.do(file.close)

        plain = partial(subprocess.run, command, check=True, capture_output=True)
        taken, dd = seconds(ours, plain, repeats=3)
    size = BLOCKS * block.numel() / 2**20
    yield Figure("writing a record", size / taken, "MiB/s", "dd", size / dd)


def noise(channels: int, size: int, rows: int) -> Split:
    """Return random images: the cost of a step does not depend on their content."""
    images = torch.randint(256, (rows, channels, size, size), dtype=torch.uint8)
    pixels = Pixels((0.5,) * channels, (0.25,) * channels)
    return Split(images, torch.randint(10, (rows,)), torch.arange(rows), pixels)


def run(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    recorder: PerSample | None,
    folder: Path,
) -> nn.Module:
    """Train, recorded or not, and return the trained model."""
    model = copy.deepcopy(model)
    meter = Meter(split.images.device)
    conditions = Conditions(Streams(0, "bench"), meter, lambda values: None, recipe)
    steps: Iterator[Step] = train(model, split, recipe, conditions)
    if recorder is not None:
        training = RecordedTraining(model, split, recipe, Streams(0, "record"), folder)
        steps = recorder.watch(steps, training)
    for _ in steps:
        pass
    now(split.images.device)  # a GPU is done
    return model


def _norm(values: Iterable[Tensor]) -> float:
    return float(torch.cat([value.flatten() for value in values]).norm())


def by_vmap(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (image[None],)), label[None])

    parameters = {name: value.detach() for name, value in model.named_parameters()}
    each: dict[str, Tensor] = vmap(grad(loss), (None, 0, 0))(parameters, images, labels)
    return each


def by_call(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    logits = call_for_per_sample_grads(model, loss_reduction="mean")(images)
    F.cross_entropy(logits, labels).backward()
    for parameter in model.parameters():
        del parameter.grad_sample  # type: ignore[attr-defined]


def numbers(recorder: PerSample, training: RecordedTraining) -> tuple[int, float]:
    """Return the numbers of a row's gradient, and those that its record keeps per epoch."""
    layout = recorder.layout(training)
    # factors at each of the E epochs, and one sum for all of them
    return training.parameters, layout.entry_numbers + layout.slot_numbers / EPOCHS
