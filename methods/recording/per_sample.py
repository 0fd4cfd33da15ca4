"""Per-sample gradients: what each tracked row has added to the weights, at any later time.

Idea: keep the factors of every layer's gradient (see `methods.factors`) instead of the gradient itself.
Record: for each layer the form that takes fewer bytes. *Factored*: inputs and output gradients of
every tracked row at each of its steps, E·(|a| + |b|) numbers a row, in `dtype`; in int8 each input and
gradient of a row is scaled by its own largest number. *Dense*: one gradient per row, summed over its
steps, |W| numbers a row in float32. The sum over any rows comes back as one weight gradient per layer
and chunk.
Two more forms on request: *masked*, a random share `keep` of the dense sums (paper 004's), and, with
`group_by`, one dense sum per group (`class`, or a file that gives every training row a group number),
G·M numbers however many rows there are.
A row's share of the weights is Σ_t c_t·g_{i,t}/B_t; `attribution` chooses c_t. `exact` is SGD's own
(momentum, weight decay and schedule included): θ_T = A·θ_0 + Σ_t c_t·ḡ_t, from one recursion over the
steps; `step` is −lr_t, for the optimizers that have no exact share; `preconditioned` is Adam's
−lr_t / (√v̂_t + ε), number by number, which the dense forms alone can keep.
Reference: paper 004 (per-sample sums); the factored form and the coefficient are this project's.
"""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data.errors import UserError
from data.row_file import content, read_numbers
from data.split import Split
from data.streams import Streams
from methods.recording.files import Damaged, Entries, EntryFile
from methods.recording.random_mask import Mask, RandomMask
from methods.recording.recorder import ABOUT, ROWS, RecordedTraining, Recorder, close_record
from methods.training.checks import above_zero_to_one
from methods.training.descent import Optimizer, Recipe, Step
from methods.weights.per_sample_gradients import RULES, Capture, Factors, Gradients, layers_of

FACTORS, SUMS = "factors", "sums.bin"

Key = TypeVar("Key")

# Rows whose factors are in memory at once while a request is served.
CHUNK = 256


class Attribution(Enum):
    exact = "exact"
    step = "step"
    preconditioned = "preconditioned"


class Form(Enum):
    """`auto` takes for each layer what is smaller on disk, factored or dense."""

    auto = "auto"
    factored = "factored"
    dense = "dense"
    masked = "masked"


class FactorType(Enum):
    """The factors' type on disk. Gradients for sums are computed in bf16 but for fp32, and summed in
    float32."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


_TYPES = {FactorType.fp32: torch.float32, FactorType.bf16: torch.bfloat16, FactorType.int8: torch.int8}


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
    kind: ClassVar[str] = "methods.recorders.per_sample.PerSample"
    version: ClassVar[int] = 3  # 1 kept a file of sums for every layer, 2 compared numbers, not bytes

    dtype: FactorType
    attribution: Attribution
    form: Form
    keep: float
    mask: Mask
    group_by: str | None

    def identity(self) -> dict[str, Any]:
        found = super().identity()
        if self.group_by not in (None, "class"):
            found["group_by"] = content(self._listed_groups)
        return found

    @cached_property
    def _listed_groups(self) -> Any:
        assert self.group_by is not None
        return read_numbers(self.group_by, "recorder.group_by")

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        above_zero_to_one(option, self, "keep")
        if self.keep < 1 and self.form is not Form.masked:
            raise UserError(f"{option}.keep={self.keep} is for masked sums: set {option}.form=masked")
        summed = self.form in (Form.dense, Form.masked) or self.group_by is not None
        if self.attribution is Attribution.preconditioned and not summed:
            raise UserError(
                f"{option}.attribution=preconditioned needs sums: set {option}.form=dense or masked"
            )
        if self.group_by is not None and self.form is Form.factored:
            raise UserError(f"{option}.group_by keeps sums: set {option}.form=dense or masked")
        if self.group_by not in (None, "class"):
            if not Path(self.group_by).suffix:
                raise UserError(f"{option}.group_by={self.group_by}: set class, or a file of groups")
            read_numbers(self.group_by, f"{option}.group_by")

    def check(self, watched: RecordedTraining, option: str) -> None:
        recipe = watched.recipe
        needed = {
            Attribution.exact: (Optimizer.sgd,),
            Attribution.preconditioned: (Optimizer.adam, Optimizer.adamw),
        }.get(self.attribution, tuple(Optimizer))
        clipped = recipe.clip is not None and self.attribution is not Attribution.step
        if recipe.optimizer not in needed or clipped:
            raise UserError(
                f"{option}.attribution={self.attribution.name} is for "
                f"{' and '.join(optimizer.name for optimizer in needed)} without clipping: set "
                f"{option}.attribution=step"
            )
        if recipe.compile:
            raise UserError(f"{option} sees no layers of a compiled model: set training.compile=false")
        super().check(watched, option)

    def index(self, split: Split) -> dict[str, Tensor]:
        groups = self._groups(split)
        return super().index(split) | ({} if groups is None else {"groups": groups})

    def _groups(self, split: Split) -> Tensor | None:
        """(T,) each tracked row's group."""
        if self.group_by is None:
            return None
        tracked = self.tracked(split)
        if self.group_by == "class":
            return split.labels[torch.searchsorted(split.rows, tracked)].cpu()
        if len(self._listed_groups) <= int(tracked.max()):
            raise UserError(
                f"a recorder's group_by={self.group_by} has {len(self._listed_groups)} lines, but row "
                f"{int(tracked.max())} is tracked: give every training row a group"
            )
        return torch.from_numpy(self._listed_groups)[tracked.cpu()]

    def estimated_bytes(self, watched: RecordedTraining) -> int:
        epochs = watched.recipe.epochs
        index = self.index(watched.split)
        slots = len(index["groups"].unique()) if "groups" in index else len(index["tracked"])
        total = 0
        shapes = shapes_of(watched.model, watched.split.images[:1])
        for layer, shape in zip(layers_of(watched.model).values(), shapes.values(), strict=True):
            if self._is_factored(layer, shape, epochs):
                total += len(index["tracked"]) * epochs * self._bytes(shape)
            else:
                total += slots * max(1, round(self.keep * shape.parameters)) * 4
        return total

    def summary(self, watched: RecordedTraining, option: str, asked: int) -> str:
        layers = layers_of(watched.model)
        shapes = shapes_of(watched.model, watched.split.images[:1])
        epochs = watched.recipe.epochs
        factored = [n for n, layer in layers.items() if self._is_factored(layer, shapes[n], epochs)]
        forms = f"{len(factored)} of {len(layers)} layers as factors, the others as sums"
        return f"{super().summary(watched, option, asked)}; {forms}"

    def _bytes(self, shape: Shape) -> int:
        """Of one row's factors at one of its steps."""
        return shape.factors * _TYPES[self.dtype].itemsize

    def smaller(self, option: str) -> str:
        kept = f"{option}.form=masked with {option}.keep=0.01, or {option}.dtype=int8 for factors"
        return f"track fewer rows ({option}.classes=[…]) or store less ({kept})"

    def _is_factored(self, layer: nn.Module, shape: Shape, epochs: int) -> bool:
        """Whether a layer is kept as factors; those without an outer product never are."""
        if RULES[type(layer)].total is None or self.group_by is not None:
            return False
        smaller = epochs * self._bytes(shape) < shape.parameters * 4
        return {Form.auto: smaller, Form.factored: True}.get(self.form, False)

    def watch(self, steps: Iterator[Step], watched: RecordedTraining) -> Iterator[Step]:
        model, folder, recipe = watched.model, watched.folder, watched.recipe
        tracked = self.tracked(watched.split)
        index = self.index(watched.split)
        every = len(tracked) == len(watched.split)
        slots = index["groups"].unique(return_inverse=True)[1] if "groups" in index else None
        shares = coefficients(recipe, len(watched.split), self.attribution)
        shapes, layers = shapes_of(model, watched.split.images[:1]), layers_of(model)
        factored = [n for n in layers if self._is_factored(layers[n], shapes[n], recipe.epochs)]
        places = _places_of_factors(factored, shapes)
        width = sum(place.size for place in places.values())
        masks = {
            n: self._mask(watched.streams, n, shapes[n].parameters) for n in layers if n not in factored
        }
        kept = {n: shapes[n].parameters if mask is None else mask.kept for n, mask in masks.items()}
        columns = _places({n: (count,) for n, count in kept.items()})
        count = len(tracked) if slots is None else int(slots.max()) + 1
        sums = _Sums(folder, count, sum(place.size for place in columns.values()))
        file = EntryFile(folder, FACTORS)
        rows: list[Tensor] = []
        numbers: list[Tensor] = []
        scales: list[Tensor] = []
        with Capture(model) as capture, self.writer(folder) as writer:
            writer.do(sums.open)
            for step in steps:
                taken = capture.take()
                where = slice(None) if every else torch.isin(step.batch.rows, tracked).nonzero()[:, 0]
                found = step.batch.rows[where]
                if len(found) and not writer.lost:
                    rows.append(found.cpu())
                    numbers.append(torch.full((len(found),), step.number))
                    slot = torch.searchsorted(tracked, found).cpu()
                    slot = slot if slots is None else slots[slot]
                    entries = torch.empty(len(found), width, dtype=_TYPES[self.dtype])
                    added = torch.empty(len(found), sums.width)
                    largest: list[Tensor] = []
                    for name, uses in taken.items():
                        (use,) = uses
                        own = Factors(use.a[where], use.b[where])
                        if name in columns:
                            scale = self._scale(step, layers[name], shares.each[step.number])
                            each = self._flat(layers[name], own) * scale
                            if (mask := masks[name]) is not None:
                                each = mask.of_each(slot.tolist(), each)
                            added[:, columns[name].numbers] = each
                            continue
                        for part, value in (("a", own.a.flatten(1)), ("b", own.b.flatten(1))):
                            if self.dtype is FactorType.int8:
                                value, scale = _in_eight_bits(value)
                                largest.append(scale.cpu())
                            entries[:, places[name, part].numbers] = value
                    if largest:
                        scales.append(torch.stack(largest, 1))
                    if sums.width:
                        writer.do(partial(sums.add, slot, added))
                    if width:
                        writer.do(partial(file.append, entries))
                taken.clear()  # or the next step's activations would lie beside this one's
                yield step
            writer.do(sums.close)
            writer.do(file.close)
        about = {
            "dtype": self.dtype.name,
            "beginning": shares.beginning,
            "keep": self.keep,
            "mask": self.mask.name,
            "streams": [watched.streams.seed, watched.streams.scope],
            "sums": kept,
            "proof": {name: [] if mask is None else mask.proof for name, mask in masks.items()},
            "layers": {
                n: {"a": shapes[n].a, "b": shapes[n].b, "factored": n in factored} for n in layers
            },
        }
        none = torch.empty(0, dtype=torch.int64)
        entries_of = {
            **index,
            **({} if slots is None else {"slots": slots}),
            **({"scales": torch.cat(scales)} if scales else {}),
            "rows": torch.cat(rows) if rows else none,
            "steps": torch.cat(numbers) if numbers else none,
            "shares": torch.tensor(shares.each, dtype=torch.float64),
        }
        close_record(writer, folder, json.dumps(about), entries_of)

    def _mask(self, streams: Streams, layer: str, size: int) -> RandomMask | None:
        if self.form is not Form.masked:
            return None
        return RandomMask(size, self.keep, self.mask, streams, f"mask/{layer}")

    def _flat(self, layer: nn.Module, own: Factors) -> Tensor:
        """(n, parameters) every row's gradient of a layer, computed in `dtype`; in float32 where that is
        cheap, and delicate: in norms."""
        rule = RULES[type(layer)]
        exact = rule.total is None or self.dtype is FactorType.fp32
        dtype = torch.float32 if exact else torch.bfloat16
        each = rule.each(layer, Factors(own.a.to(dtype), own.b.to(dtype)))
        names = [name for name, _ in layer.named_parameters(recurse=False)]
        return torch.cat([each[name].flatten(1) for name in names], 1).float()

    def _scale(self, step: Step, layer: nn.Module, share: float) -> Tensor:
        """What a layer's flat gradients are multiplied by: the coefficient of the step; where that is
        asked for, divided by Adam's root mean square at the update that follows."""
        if self.attribution is not Attribution.preconditioned:
            return torch.tensor(share)
        group = step.optimizer.param_groups[0]
        decay = group["weight_decay"] if isinstance(step.optimizer, torch.optim.Adam) else 0
        decay = 0 if isinstance(step.optimizer, torch.optim.AdamW) else decay
        beta, roots = group["betas"][1], []
        for parameter in layer.parameters(recurse=False):
            assert parameter.grad is not None
            state = step.optimizer.state.get(parameter, {})
            gradient = parameter.grad + decay * parameter.detach()
            before = state.get("exp_avg_sq", torch.zeros_like(gradient))
            square = beta * before + (1 - beta) * gradient**2
            corrected = square / (1 - beta ** (step.number + 1))
            roots.append((corrected.sqrt() + group["eps"]).flatten())
        return share / torch.cat(roots)


def shapes_of(model: nn.Module, image: Tensor) -> dict[str, Shape]:
    """What one row gives and takes in every layer, by looking at a single image."""
    found: dict[str, Shape] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in found:
                raise UserError(f"{name} is used more than once, which a record on disk has no form for")
            found[name] = Shape(tuple(inputs[0].shape[1:]), tuple(output.shape[1:]), _size(layer))

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
    if attribution is not Attribution.exact:
        return Shares([-rate for rate in rates], 1.0)
    each, a, b = [], 1.0, 0.0
    for rate in reversed(rates):
        q = b - rate * a
        each.append(q)
        a, b = a + recipe.weight_decay * q, recipe.momentum * q
    return Shares(each[::-1], a)


@dataclass(frozen=True)
class Place:
    """Where in an entry, or in a row's sums, the numbers of this shape lie."""

    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def numbers(self) -> slice:
        return slice(self.start, self.start + self.size)


def _places(shapes: Mapping[Key, tuple[int, ...]]) -> dict[Key, Place]:
    """One behind the other."""
    starts = itertools.accumulate(map(math.prod, shapes.values()), initial=0)
    return {
        key: Place(start, shape) for (key, shape), start in zip(shapes.items(), starts, strict=False)
    }


def _in_eight_bits(values: Tensor) -> tuple[Tensor, Tensor]:
    """(n, m) numbers as whole ones from −127 to 127, and (n,) what to multiply each row by."""
    scale = torch.linalg.vector_norm(values, torch.inf, dim=1).float() / 127
    return (values / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round(), scale


def _places_of_factors(factored: list[str], shapes: Mapping[str, Shape]) -> dict[tuple[str, str], Place]:
    """By layer and factor, in the order in which an entry holds them."""
    both = {(n, part): getattr(shapes[n], part) for n in factored for part in ("a", "b")}
    return _places(both)


def _factor(block: Tensor, place: Place, scale: Tensor | None, device: torch.device) -> Tensor:
    """(n, *shape) in float32: what lies at this place of n entries."""
    values = block[:, place.numbers].to(device, torch.float32)
    if scale is not None:
        values *= scale.to(device)[:, None]
    return values.view(len(block), *place.shape)


class _Sums:
    """Gradients summed in float32 over the steps of every slot, which is a tracked row or a group:
    `width` numbers each, one layer's behind the other's."""

    def __init__(self, folder: Path, slots: int, width: int) -> None:
        self.width = width
        self._path, self._size = folder / SUMS, 4 * slots * width
        self._sum = np.empty(width, np.float32)

    def open(self) -> None:
        self._file = self._path.open("w+b", buffering=0)
        self._file.truncate(self._size)
        if hasattr(os, "posix_fallocate") and self._size:
            # A full disk is found now, not in the middle of training.
            os.posix_fallocate(self._file.fileno(), 0, self._size)

    def add(self, slots: Tensor, values: Tensor) -> None:
        """Adds (n, width) to the sums of their slots (n,)."""
        for slot, value in zip(slots.tolist(), values.numpy(), strict=True):
            # A mapping of the file would take a page fault for every page of a row.
            place = slot * value.nbytes
            os.preadv(self._file.fileno(), [self._sum.data], place)
            self._sum += value
            os.pwrite(self._file.fileno(), self._sum.data, place)

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class SampleRecord:
    """A record of per-sample gradients, read in chunks of rows. `about` is what its maker wrote."""

    folder: Path
    tracked: Tensor
    slots: Tensor  # (tracked,) which of the sums each tracked row is in
    rows: Tensor  # (entries,) which row each entry of the factored file is of
    shares: Tensor  # (entries,) the coefficient of the entry's step
    scales: Tensor | None  # (entries, factors) what each is multiplied by, in int8
    about: Mapping[str, Any]

    @staticmethod
    def open(folder: Path) -> "SampleRecord":
        about = json.loads((folder / ABOUT).read_text())
        stored = load_file(folder / ROWS)
        tracked, shares = stored["tracked"], stored["shares"][stored["steps"]]
        slots = stored.get("slots", torch.arange(len(tracked)))
        scales = stored.get("scales")
        return SampleRecord(folder, tracked, slots, stored["rows"], shares, scales, about)

    @property
    def beginning(self) -> float:
        """A: how much of the initial weights is in the final ones."""
        return float(self.about["beginning"])

    def share(self, model: nn.Module, rows: Tensor) -> Gradients:
        """Σ over `rows` and their steps of c_t·g/B, by the model's parameter names, in memory that does
        not grow with the number of rows. Raises Damaged where an entry is not what was written."""
        layers = layers_of(model)
        total = self._factored(layers, torch.isin(self.rows, rows.cpu()).nonzero()[:, 0])
        return total | self._summed(layers, self.slots[torch.isin(self.tracked, rows.cpu())].unique())

    def _factored(self, layers: Mapping[str, nn.Module], entries: Tensor) -> Gradients:
        factored = [name for name in layers if self.about["layers"][name]["factored"]]
        if not factored:
            return {}
        dtype = _TYPES[FactorType[self.about["dtype"]]]
        shapes = {
            name: Shape(tuple(layer["a"]), tuple(layer["b"]), 0)
            for name, layer in self.about["layers"].items()
        }
        places = _places_of_factors(factored, shapes)
        width = sum(place.size for place in places.values()) * dtype.itemsize
        stored = Entries.open(self.folder, FACTORS, width)
        total = {
            f"{name}.{own}": torch.zeros_like(value)
            for name in factored
            for own, value in layers[name].named_parameters(recurse=False)
        }
        for chunk in entries.split(CHUNK) if len(entries) else ():
            block = stored.read(chunk, dtype)
            scales = [None] * len(places) if self.scales is None else self.scales[chunk].T
            scale_of = dict(zip(places, scales, strict=True))
            for name in factored:
                device = next(layers[name].parameters()).device
                a, b = (
                    _factor(block, places[name, part], scale_of[name, part], device)
                    for part in ("a", "b")
                )
                share = self.shares[chunk].float().view(-1, *[1] * (b.dim() - 1)).to(device)
                rule = RULES[type(layers[name])].total
                assert rule is not None
                for own, value in rule(layers[name], Factors(a, b * share)).items():
                    total[f"{name}.{own}"] += value.detach()
        return total

    def _summed(self, layers: Mapping[str, nn.Module], slots: Tensor) -> Gradients:
        columns = _places({name: (kept,) for name, kept in self.about["sums"].items()})
        masks = {name: self._mask(name, layers[name]) for name in columns}
        totals = {name: torch.zeros(_size(layers[name]), dtype=torch.float64) for name in columns}
        row = np.empty(sum(place.size for place in columns.values()), np.float32)
        with (self.folder / SUMS).open("rb", buffering=0) as file:
            for slot in slots.tolist():
                if os.preadv(file.fileno(), [row.data], slot * row.nbytes) < row.nbytes:
                    raise Damaged(f"{self.folder / SUMS} is shorter than what was written")
                values = torch.from_numpy(row)
                for name, place in columns.items():
                    mask = masks[name]
                    where = slice(None) if mask is None else mask.positions(slot)
                    totals[name][where] += values[place.numbers]
        return {
            f"{name}.{own}": value
            for name, total in totals.items()
            for own, value in _as_parameters(layers[name], total.float()).items()
        }

    def _mask(self, name: str, layer: nn.Module) -> RandomMask | None:
        """The mask that a layer's sums were drawn with."""
        if not self.about["proof"][name]:
            return None
        size, streams = _size(layer), Streams(*self.about["streams"])
        mask = RandomMask(size, self.about["keep"], Mask[self.about["mask"]], streams, f"mask/{name}")
        if mask.proof != self.about["proof"][name]:
            raise Damaged("the record's masks were drawn by another torch: record again")
        return mask


def _size(layer: nn.Module) -> int:
    """Numbers of a layer's own parameters together."""
    return sum(parameter.numel() for parameter in layer.parameters(recurse=False))


def _as_parameters(layer: nn.Module, flat: Tensor) -> Gradients:
    """Numbers (parameters,) in the shapes of what a layer owns, on its device, by name."""
    named = dict(layer.named_parameters(recurse=False))
    parts = flat.split([parameter.numel() for parameter in named.values()])
    return {
        own: part.view_as(value).to(value.device)
        for (own, value), part in zip(named.items(), parts, strict=True)
    }
