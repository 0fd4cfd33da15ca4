"""Methods beside the plain loop of the same passes, and the copies of the model that they hold.

Per-sample Fisher information of a split, beside one pass of forward and backward over the same rows, and
beside the loop of batches of one.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.profiler import ProfilerActivity, profile

from data.split import Split
from data.streams import Streams
from methods.base import Access, Method, Problem
from methods.recording.bayesian import DEVIATION, Bayesian
from methods.training.cost import Cost, Meter
from methods.training.descent import Descent, Recipe
from methods.training.loop import Conditions
from methods.weights.importance import per_sample_fisher
from methods.weights.layers import last_layers, thaw_only
from models.architecture import Architecture
from runner.bench import Figure, seconds
from runner.compose import composed
from runner.plan import build
from runner.process import prepare
from tests.bench.record import noise

FEW = 8  # rows in the slow loop
SMALL = 2  # rows in a batch: so few that the weights take nearly all memory

# Batches of the part to forget and of the retained part.
FORGET, RETAIN = 5, 20

# Copies of the model that a method may hold beyond what its plain loop does: the model that is trained,
# its gradients and the optimizer's state.
ALLOWED = 2


@dataclass(frozen=True)
class Steps:
    """A number of equal steps.

    Each takes `gradients` forward and backward passes over a batch, and `forwards` forward passes alone.
    Without `moves` the weights stay as they are. `of_images` takes the gradient of the images instead of
    the weights. `layers` counts the trained layers from the last one; None trains all.
    """

    number: int
    gradients: int = 1
    forwards: int = 0
    moves: bool = True
    of_images: bool = False
    layers: int | None = None


@dataclass(frozen=True)
class Work:
    """The work of a method with these options: the plain loop that takes the same passes.

    `change` alters the gradients before an update, `before` the weights before each pass. `relabels` is
    true if the request is to relabel.
    """

    options: list[str]
    steps: list[Steps]
    change: Callable[[nn.Module], None] = lambda model: None
    before: Callable[[nn.Module], None] = lambda model: None
    relabels: bool = False


def no_cache(*_: object) -> Cost:
    """Stand in for cached trainings, which no method here asks for."""
    raise AssertionError("no method of the bench caches a training")


def shrink(model: nn.Module) -> None:
    """Add the gradient of an l1 penalty."""
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.add_(parameter.detach().sign(), alpha=1e-4)


def mask(model: nn.Module) -> None:
    """Keep about half of the gradient."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(parameter.detach() > 0)


def part(model: nn.Module) -> None:
    """Keep a random tenth of the gradient."""
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.mul_(torch.rand(parameter.shape) < 0.1)


@torch.no_grad()
def shake(model: nn.Module) -> None:
    """Draw weights around the current ones."""
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape), alpha=1e-4)


# The plain loop of each measured method. A method without one is not measured here.
WORKS = {
    "finetune": Work(["epochs=1"], [Steps(RETAIN)]),
    "random_labels": Work(["epochs=1"], [Steps(FORGET + RETAIN)]),
    "negative_gradient": Work(["epochs=4", "stop_loss=1e9"], [Steps(4 * FORGET)]),
    "negative_gradient_partial": Work(["epochs=4", "stop_loss=1e9"], [Steps(4 * FORGET)], part),
    "label_flip": Work(["epochs=4"], [Steps(4 * FORGET)]),
    "label_flip_partial": Work(["epochs=4"], [Steps(4 * FORGET)], part),
    "bad_teacher": Work(
        ["epochs=2", "retain_fraction=0.25"], [Steps(2 * (FORGET + RETAIN // 4), forwards=2)]
    ),
    "scrub": Work(
        ["epochs=1", "ascent_epochs=1", "forget_batch_size=${method.batch_size}"],
        [Steps(FORGET + RETAIN, forwards=1)],
    ),
    "salun": Work(["epochs=1"], [Steps(FORGET, moves=False), Steps(FORGET + RETAIN)], mask),
    "negative_gradient_plus": Work(["epochs=1"], [Steps(RETAIN, gradients=2)]),
    "l1_sparse": Work(["epochs=1"], [Steps(RETAIN)], shrink),
    "boundary_expand": Work(["epochs=4"], [Steps(4 * FORGET)]),
    "reverse_kl": Work(
        ["epochs=3", "strengthen_epochs=1"], [Steps(FORGET), Steps(3 * FORGET, forwards=2)]
    ),
    "dual_phase_ascent": Work(["epochs=1"], [Steps(FORGET + RETAIN)]),
    "uniform_labels": Work(["epochs=1"], [Steps(FORGET + RETAIN)]),
    "catastrophic_k": Work(["epochs=2"], [Steps(2 * RETAIN, layers=2)]),
    "exact_k": Work(["epochs=2"], [Steps(2 * RETAIN, layers=2)]),
    "boundary_shrink": Work(
        ["epochs=4"], [Steps(FORGET, forwards=1, moves=False, of_images=True), Steps(4 * FORGET)]
    ),
    "just_in_time": Work(["epochs=4", "samples=2"], [Steps(4 * FORGET, forwards=2)]),
    "forgetting_layers": Work(
        ["epochs=1", "rounds=2"],
        [Steps(2 * FORGET, gradients=0, forwards=1, moves=False), Steps(2 * RETAIN)],
    ),
    # the noise's own steps; nine batches of retained rows and four of noise; the nine again
    "unsir": Work(
        [
            "noise_steps=10",
            "noise_copies=4",
            *(f"{name}=${{method.batch_size}}" for name in ("noise_batch_size", "repair_batch_size")),
            "retain_per_class=${method.batch_size}",
        ],
        [Steps(10, moves=False, of_images=True), Steps(13), Steps(9)],
    ),
    "selective_finetune": Work(
        ["epochs=2"], [Steps(2 * (FORGET + RETAIN), layers=2)], mask, relabels=True
    ),
    # a teacher of the student's size, so that one loop does for both
    "distillation_guided": Work(
        [
            "epochs=1",
            "teacher_epochs=1",
            "teacher_widths=${model.widths}",
            "teacher_hidden=${model.hidden}",
        ],
        [Steps(FORGET + RETAIN), Steps(FORGET + RETAIN, forwards=1, layers=2)],
        mask,
        relabels=True,
    ),
    "distruction": Work(["epochs=1"], [Steps(FORGET, gradients=10)], before=shake),
}

# Methods that take no steps of descent.
WITHOUT_STEPS = ("ssd", "lfssd", "assd", "fisher_forgetting")

# Copies that a method needs beyond those: a teacher, here as large as the student; two distributions of
# the weights, each a mean and a deviation, and two moments of the loss.
NEEDED = {"distillation_guided": 1, "distruction": 6}


def figures() -> Iterator[Figure]:
    """Measure every method of `WORKS`, those without steps, and the Fisher information."""
    prepare(torch.device("cpu"), threads=2)
    for name, work in WORKS.items():
        yield from beside_its_loop(name, work)
    yield from without_descent()
    yield from fisher()


def beside_its_loop(name: str, work: Work) -> Iterator[Figure]:
    """Measure the time and the memory of a method beside its plain loop."""
    trial = Trial(name, work, 64)
    ours, plain = seconds(trial.ours, trial.plain)
    where = f"{name}, small_cnn, 28 px"
    yield Figure(f"{where}, batch 64", ours, "s", "plain loop of the same passes", plain)
    few = Trial(name, work, SMALL)
    yield copies(name, peak(few.ours) - peak(few.plain), few.size)


def copies(name: str, more: int, size: int) -> Figure:
    what = f"{name}, small_cnn, 28 px: extra copies of the model at the peak"
    return Figure(what, more / size, "copies", "allowed", ALLOWED + NEEDED.get(name, 0))


def without_descent() -> Iterator[Figure]:
    """Measure the memory of methods without steps, beyond the plain loop of fine-tuning."""
    plain = peak(Trial("finetune", WORKS["finetune"], SMALL).plain)
    for name in WITHOUT_STEPS:
        trial = Trial(name, Work([], []), SMALL)
        yield copies(name, peak(trial.ours) - plain, trial.size)


class Trial:
    """A method with the options of a work, and the plain loop that does the work, on noise."""

    def __init__(self, name: str, work: Work, batch: int) -> None:
        options = [f"method.{option}" for option in [f"batch_size={batch}", *work.options]]
        cfg, _ = composed([f"method={name}", "model=small_cnn", *options])
        self.method = build(cfg.method, Method, "method")
        self.recipe = build(cfg.training, Recipe, "training")
        self.fresh = partial(build(cfg.model, Architecture, "model").fresh, 1, 28, 10)
        self.model = self.fresh(0)
        drawn = noise(1, 28, batch * (FORGET + RETAIN))
        # class 0 is what is forgotten, the others take turns
        turns = 1 + torch.arange(len(drawn)) % 9
        self.split = drawn.relabelled(turns.masked_fill(drawn.rows < batch * FORGET, 0))
        self.images = self.split.pixels.normalise(self.split.images)
        self.work, self.batch = work, batch

    @property
    def size(self) -> int:
        """The bytes of the weights."""
        return sum(parameter.nbytes for parameter in self.model.parameters())

    def ours(self) -> None:
        """Unlearn with the method."""
        with TemporaryDirectory() as folder:
            if self.method.records is Bayesian:
                deviation = {n: torch.full_like(p, 0.01) for n, p in self.model.named_parameters()}
                save_file(deviation, Path(folder) / DEVIATION)
                del deviation
            self.unlearn(Path(folder))

    def drawn(self, streams: Streams) -> nn.Module:
        """Return a randomly initialised model."""
        return self.fresh(streams.number("fresh"))

    def unlearn(self, recording: Path) -> None:
        meter = Meter(torch.device("cpu"))
        forget = self.split.take(torch.arange(self.batch * FORGET))
        renamed = self.split.relabelled(self.split.labels.clamp(min=1))
        retain = renamed if self.work.relabels else self.split.without(forget.rows)
        self.method.unlearn(
            Problem(
                model=copy.deepcopy(self.model),
                original=partial(copy.deepcopy, self.model),
                fresh=self.drawn,
                randomly_initialised=self.drawn,
                classes=10,
                conditions=Conditions(Streams(0, "bench"), meter, lambda values: None, self.recipe),
                declared_forget=forget if Access.FORGET in self.method.sees() else None,
                declared_retain=retain if Access.RETAIN in self.method.sees() else None,
                declared_recording=recording,
                forget_rows=forget.rows,
                cached_training=no_cache,
            )
        )

    def plain(self) -> None:
        """Do the same passes in a plain loop."""
        model = copy.deepcopy(self.model)
        for steps in self.work.steps:
            if steps.layers is not None:
                thaw_only(model, last_layers(model, steps.layers))
            self.step(model, steps)

    def step(self, model: nn.Module, steps: Steps) -> None:
        """Take equal steps on random batches."""
        descent = self.method if isinstance(self.method, Descent) else self.recipe
        optimizer = descent.optimizer_for(model)
        for _ in range(steps.number):
            optimizer.zero_grad()
            rows = torch.randint(len(self.split), (self.batch,))
            images, target = self.images[rows], self.split.labels[rows]
            with torch.no_grad():
                seen = [model(images) for _ in range(steps.forwards)]
            if seen:
                target = sum(seen).softmax(1)
            for _ in range(steps.gradients):
                self.work.before(model)
                loss = F.cross_entropy(model(images.requires_grad_(steps.of_images)), target)
                if steps.of_images:
                    torch.autograd.grad(loss, images)
                else:
                    loss.backward()
            if not steps.moves:
                continue
            self.work.change(model)
            if descent.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), descent.clip)
            optimizer.step()


def peak(body: Callable[[], None]) -> int:
    """Return the peak bytes of a body's tensors, with the temporary ones inside torch's operations."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        body()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    # what is freed is counted below zero
    taken: list[int] = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(accumulate(taken))


def fisher() -> Iterator[Figure]:
    """Measure per-sample Fisher information per row."""
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
