"""Per-sample gradients: what each tracked row has added to the weights, at any later time.

Idea: keep the factors of every layer's gradient (see `methods.factors`) instead of the gradient itself.
Record: for each layer the smaller of two forms. *Factored*: inputs and output gradients of every tracked
row at each of its steps, E·(|a| + |b|) numbers a row. *Dense*: one gradient per row, summed over its
steps, |W| numbers a row. The sum over any rows comes back as one weight gradient per layer and chunk.
A row's share of the weights is Σ_t c_t·g_{i,t}/B_t; `attribution` chooses c_t. `exact` is SGD's own
(momentum, weight decay and schedule included): θ_T = A·θ_0 + Σ_t c_t·ḡ_t, from one recursion over the
steps; `step` is −lr_t, for the optimizers that have no exact share.
Reference: paper 004 (per-sample sums); the factored form and the coefficient are this project's.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.errors import UserError
from methods.factors import RULES, Capture, Factors, Gradients, layers_of
from methods.recording import Recorder, Watched
from methods.training import Optimizer, Recipe, Step

# Rows whose factors are in memory at once while a request is served.
CHUNK = 256


class Attribution(Enum):
    exact = "exact"
    step = "step"


class Form(Enum):
    """`auto` takes the smaller form for each layer."""

    auto = "auto"
    factored = "factored"
    dense = "dense"


class Kept(Enum):
    """The factors' type on disk; dense sums are float32."""

    fp32 = "fp32"
    bf16 = "bf16"


_TYPES = {Kept.fp32: torch.float32, Kept.bf16: torch.bfloat16}


@dataclass(frozen=True)
class Shape:
    """Numbers per row and use of a layer: input, output gradient; and of its parameters together."""

    a: tuple[int, ...]
    b: tuple[int, ...]
    parameters: int

    @property
    def factors(self) -> int:
        return math.prod(self.a) + math.prod(self.b)


@dataclass(frozen=True)
class PerSample(Recorder):
    dtype: Kept
    attribution: Attribution
    form: Form

    def check(self, watched: Watched, option: str) -> None:
        recipe = watched.recipe
        exact = recipe.optimizer is Optimizer.sgd and recipe.clip is None
        if self.attribution is Attribution.exact and not exact:
            raise UserError(
                f"{option}.attribution=exact is for SGD without clipping: set {option}.attribution=step"
            )
        if recipe.compile:
            raise UserError(f"{option} sees no layers of a compiled model: set training.compile=false")
        super().check(watched, option)

    def bill(self, watched: Watched) -> int:
        rows, epochs = len(self.tracked(watched.split)), watched.recipe.epochs
        shapes = shapes_of(watched.model, watched.split.images[:1])
        return rows * sum(
            epochs * shape.factors * _TYPES[self.dtype].itemsize
            if self._is_factored(layer, shape, epochs)
            else shape.parameters * 4
            for layer, shape in zip(layers_of(watched.model).values(), shapes.values(), strict=True)
        )

    def _is_factored(self, layer: nn.Module, shape: Shape, epochs: int) -> bool:
        """Whether a layer is kept as factors; those without an outer product never are."""
        if RULES[type(layer)].total is None:
            return False
        smaller = epochs * shape.factors < shape.parameters
        return {Form.auto: smaller, Form.factored: True, Form.dense: False}[self.form]

    def watch(self, steps: Iterator[Step], watched: Watched) -> Iterator[Step]:
        model, folder, recipe = watched.model, watched.folder, watched.recipe
        tracked = self.tracked(watched.split)
        shares = coefficients(recipe, len(watched.split), self.attribution)
        shapes = shapes_of(model, watched.split.images[:1])
        layers = layers_of(model)
        factored = {n for n in layers if self._is_factored(layers[n], shapes[n], recipe.epochs)}
        sums = {n: _Sums(folder, n, layers[n], len(tracked)) for n in layers if n not in factored}
        files = {n: _Files.create(folder, n) for n in factored}
        rows: list[Tensor] = []
        numbers: list[Tensor] = []
        with Capture(model) as capture:
            for step in steps:
                taken = capture.take()
                where = torch.isin(step.batch.rows, tracked).nonzero()[:, 0]
                if len(where):
                    share = shares.each[step.number]
                    found = step.batch.rows[where]
                    rows.append(found.cpu())
                    numbers.append(torch.full((len(where),), step.number))
                    for name, uses in taken.items():
                        own = [Factors(use.a[where], use.b[where]) for use in uses]
                        if name in factored:
                            files[name].append(own, _TYPES[self.dtype])
                        else:
                            sums[name].add(torch.searchsorted(tracked, found), own, share)
                yield step
        for file in files.values():
            file.close()
        for total in sums.values():
            total.close()
        about = {
            "dtype": self.dtype.name,
            "beginning": shares.beginning,
            "layers": {
                n: {"a": shapes[n].a, "b": shapes[n].b, "factored": n in factored} for n in layers
            },
        }
        (folder / "about.json").write_text(json.dumps(about))
        none = torch.empty(0, dtype=torch.int64)
        entries = {
            "tracked": tracked.cpu(),
            "rows": torch.cat(rows) if rows else none,
            "steps": torch.cat(numbers) if numbers else none,
            "shares": torch.tensor(shares.each, dtype=torch.float64),
        }
        save_file(entries, folder / "rows.safetensors")


def shapes_of(model: nn.Module, image: Tensor) -> dict[str, Shape]:
    """What one row gives and takes in every layer, by looking at a single image."""
    found: dict[str, Shape] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in found:
                raise UserError(f"{name} is used more than once, which a record on disk has no form for")
            size = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
            found[name] = Shape(tuple(inputs[0].shape[1:]), tuple(output.shape[1:]), size)

        return note

    layers = layers_of(model)
    hooks = [layer.register_forward_hook(look(name)) for name, layer in layers.items()]
    training = model.training
    model.eval()  # draws no random numbers: watching changes nothing
    try:
        with torch.no_grad():
            model(image.float())
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return {name: found[name] for name in layers}


@dataclass(frozen=True)
class Shares:
    """`each`: c_t of every step. `beginning`: A, how much of the initial weights is left."""

    each: list[float]
    beginning: float


def coefficients(recipe: Recipe, rows: int, attribution: Attribution) -> Shares:
    """How much of each step's mean gradient is in the final weights (RECORDS.md §3)."""
    per_epoch = math.ceil(rows / recipe.batch_size)
    rates = [recipe.rate(step, per_epoch) for step in range(recipe.epochs * per_epoch)]
    if attribution is Attribution.step:
        return Shares([-rate for rate in rates], 1.0)
    each, a, b = [], 1.0, 0.0
    for rate in reversed(rates):
        q = b - rate * a
        each.append(q)
        a, b = a + recipe.weight_decay * q, recipe.momentum * q
    return Shares(each[::-1], a)


@dataclass
class _Files:
    """The two files of a factored layer, written in the order of the steps."""

    a: BinaryIO
    b: BinaryIO

    @staticmethod
    def create(folder: Path, layer: str) -> "_Files":
        return _Files((folder / f"{layer}.a.bin").open("wb"), (folder / f"{layer}.b.bin").open("wb"))

    def append(self, uses: list[Factors], dtype: torch.dtype) -> None:
        (use,) = uses
        for file, value in ((self.a, use.a), (self.b, use.b)):
            file.write(value.to(dtype).cpu().flatten().view(torch.uint8).numpy().data)

    def close(self) -> None:
        self.a.close()
        self.b.close()


class _Sums:
    """The gradient of every tracked row, summed over its steps, of one layer."""

    def __init__(self, folder: Path, name: str, layer: nn.Module, rows: int) -> None:
        self.layer = layer
        size = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        path = folder / f"{name}.sums.bin"
        self.stored = np.memmap(path, np.float32, "w+", shape=(rows, size))

    def add(self, where: Tensor, uses: list[Factors], share: float) -> None:
        for use in uses:
            whole = Factors(use.a.float(), use.b.float())  # mixed precision leaves them of two types
            each = RULES[type(self.layer)].each(self.layer, whole)
            flat = torch.cat([each[name].flatten(1) for name in _names(self.layer)], 1)
            self.stored[where.cpu().numpy()] += (share * flat).cpu().numpy()

    def close(self) -> None:
        self.stored.flush()


def _names(layer: nn.Module) -> list[str]:
    return [name for name, _ in layer.named_parameters(recurse=False)]


@dataclass(frozen=True)
class SampleRecord:
    """A record of per-sample gradients, read in chunks of rows."""

    folder: Path
    tracked: Tensor
    rows: Tensor  # (entries,) which row each entry of the factored files is of
    shares: Tensor  # (entries,) the coefficient of the entry's step
    beginning: float
    dtype: torch.dtype
    layers: Mapping[str, Any]

    @staticmethod
    def open(folder: Path) -> "SampleRecord":
        about = json.loads((folder / "about.json").read_text())
        stored = load_file(folder / "rows.safetensors")
        shares = stored["shares"][stored["steps"]]
        dtype = _TYPES[Kept[about["dtype"]]]
        return SampleRecord(
            folder, stored["tracked"], stored["rows"], shares, about["beginning"], dtype, about["layers"]
        )

    def share(self, model: nn.Module, rows: Tensor) -> Gradients:
        """Σ over `rows` and their steps of c_t·g/B, by the model's parameter names, in memory that does
        not grow with the number of rows."""
        entries = torch.isin(self.rows, rows.cpu()).nonzero()[:, 0]
        found = torch.isin(self.tracked, rows.cpu()).nonzero()[:, 0]
        total: Gradients = {}
        for name, layer in layers_of(model).items():
            if self.layers[name]["factored"]:
                part = self._factored(name, layer, entries)
            else:
                part = self._summed(name, layer, found)
            total |= {f"{name}.{own}": value for own, value in part.items()}
        return total

    def _factored(self, name: str, layer: nn.Module, entries: Tensor) -> Gradients:
        total = {own: torch.zeros_like(value) for own, value in layer.named_parameters(recurse=False)}
        rule = RULES[type(layer)].total
        assert rule is not None
        device = next(layer.parameters()).device
        a, b = (self._stored(name, which) for which in ("a", "b"))
        for chunk in entries.split(CHUNK):
            share = self.shares[chunk].float().view(-1, *[1] * len(self.layers[name]["b"])).to(device)
            factors = Factors(
                self._numbers(a, chunk, name, "a", device),
                self._numbers(b, chunk, name, "b", device) * share,
            )
            for own, value in rule(layer, factors).items():
                total[own] = total[own] + value
        return {own: value.detach() for own, value in total.items()}

    def _stored(self, name: str, which: str) -> "np.ndarray[Any, Any]":
        size = math.prod(self.layers[name][which]) * self.dtype.itemsize
        path = self.folder / f"{name}.{which}.bin"
        return np.memmap(path, np.uint8, "r", shape=(len(self.rows), size))

    def _numbers(
        self, stored: "np.ndarray[Any, Any]", chunk: Tensor, name: str, which: str, device: torch.device
    ) -> Tensor:
        taken = torch.from_numpy(stored[chunk.numpy()]).view(self.dtype)
        return taken.view(len(chunk), *self.layers[name][which]).to(device).float()

    def _summed(self, name: str, layer: nn.Module, found: Tensor) -> Gradients:
        parameters = dict(layer.named_parameters(recurse=False))
        sizes = [value.numel() for value in parameters.values()]
        path = self.folder / f"{name}.sums.bin"
        stored = np.memmap(path, np.float32, "r", shape=(len(self.tracked), sum(sizes)))
        total = torch.zeros(sum(sizes), dtype=torch.float64)
        for chunk in found.split(CHUNK):
            total += torch.from_numpy(stored[chunk.numpy()]).double().sum(0)
        parts = total.float().split(sizes)
        return {
            own: part.view_as(value).to(value.device)
            for (own, value), part in zip(parameters.items(), parts, strict=True)
        }
