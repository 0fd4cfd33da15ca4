"""The recorder of per-sample gradients."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from data.bounds import POSITIVE_SHARE
from data.errors import UserError
from data.row_file import content, read_numbers
from data.split import Split
from data.streams import Streams
from methods.recording.estimates import in_words, largest_count, largest_share
from methods.recording.files import EntryFile
from methods.recording.per_sample.gathered import Gathered
from methods.recording.per_sample.index import EntryIndex
from methods.recording.per_sample.layout import (
    FACTORS,
    TYPES,
    FactorType,
    Form,
    Layout,
    Shape,
    shapes_of,
)
from methods.recording.per_sample.packing import Packer
from methods.recording.per_sample.ring import Ring, buffer_bytes, buffers_that_fit
from methods.recording.per_sample.shares import Attribution, coefficients
from methods.recording.per_sample.sums import SumFile
from methods.recording.per_sample.timing import times_a_plain_step
from methods.recording.random_mask import Mask, RandomMask
from methods.recording.recorder import RecordedTraining, Recorder, close_record
from methods.training.descent import Optimizer, Step
from methods.training.memory import available_memory
from methods.weights.per_sample_gradients import RULES, layers_of

# The optimizers that each attribution is for.
OPTIMIZERS = {
    Attribution.exact: (Optimizer.sgd,),
    Attribution.preconditioned: (Optimizer.adam, Optimizer.adamw),
    Attribution.step: tuple(Optimizer),
}


@dataclass(frozen=True)
class PerSample(Recorder):
    """Records the gradients of every tracked row; the package's docstring describes the forms.

    `keep` is the share of a masked sum, above 0 and at most 1, and `mask` draws it anew for every row
    (`fresh`) or once (`fixed`). `group_by` is `class`, or a file with one group number per training row.
    """

    kind: ClassVar[str] = "methods.recorders.per_sample.PerSample"
    goes_on: ClassVar[bool] = True
    # 1 kept a file of sums for every layer, 2 compared numbers, 3 took the dense form for any byte less
    version: ClassVar[int] = 4

    dtype: FactorType
    attribution: Attribution
    form: Form
    keep: Annotated[float, POSITIVE_SHARE]
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

    def idle(self) -> Mapping[str, str]:
        return {} if self.form is Form.masked else {"mask": f"form={self.form.name} masks nothing"}

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
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

    def check(self, training: RecordedTraining, option: str) -> None:
        """Raise UserError if the attribution is for other optimizers, or the model is compiled."""
        recipe, optimizers = training.recipe, OPTIMIZERS[self.attribution]
        clipped = recipe.clip is not None and self.attribution is not Attribution.step
        if recipe.optimizer not in optimizers or clipped:
            raise UserError(
                f"{option}.attribution={self.attribution.name} is for "
                f"{' and '.join(optimizer.name for optimizer in optimizers)} without clipping: set "
                f"{option}.attribution=step"
            )
        if recipe.compile:
            raise UserError(
                f"{option} cannot see the layers of a compiled model: set training.compile=false"
            )
        super().check(training, option)
        self._check_memory(training, option)

    def _check_memory(self, training: RecordedTraining, option: str) -> None:
        """Raise UserError if the numbers of one batch do not fit into memory."""
        rows, layout = self._most_rows(training), self.layout(training)
        devices = {torch.device("cpu"), training.split.images.device}
        needed, free = buffer_bytes(layout, self.dtype, rows), min(map(available_memory, devices))
        if needed > free:
            fitting = largest_count(lambda n: buffer_bytes(layout, self.dtype, n) <= free, rows - 1)
            cure = f"training.batch_size={fitting} or less" if fitting else "a smaller model (model=…)"
            raise UserError(
                f"{option} would hold {in_words(needed)} in memory for a batch, but {in_words(free)} "
                f"are free: set {cure}"
            )

    def index(self, split: Split) -> dict[str, Tensor]:
        groups = self._groups(split, self.tracked(split))
        return super().index(split) | ({} if groups is None else {"groups": groups})

    def _groups(self, split: Split, tracked: Tensor) -> Tensor | None:
        """Return the group (T,) of each of these rows, or None if rows are recorded one by one."""
        if self.group_by is None:
            return None
        if self.group_by == "class":
            return split.labels[torch.searchsorted(split.rows, tracked)].cpu()
        if len(self._listed_groups) <= int(tracked.max()):
            raise UserError(
                f"a recorder's group_by={self.group_by} has {len(self._listed_groups)} lines, but row "
                f"{int(tracked.max())} is tracked: give every training row a group"
            )
        return torch.from_numpy(self._listed_groups)[tracked.cpu()]

    def layout(self, training: RecordedTraining) -> Layout:
        """Return the form and the place of every layer."""
        shapes = shapes_of(training.model, training.split.images[:1])
        layers, epochs = layers_of(training.model), training.recipe.epochs
        factored = [n for n in layers if self._is_factored(layers[n], shapes[n], epochs)]
        kept = {
            name: max(1, round(self.keep * shape.parameters))
            for name, shape in shapes.items()
            if name not in factored
        }
        return Layout.of(shapes, factored, kept)

    def _is_factored(self, layer: nn.Module, shape: Shape, epochs: int) -> bool:
        """Return true if a layer is kept as factors. A layer without an outer product never is."""
        if RULES[type(layer)].total is None or self.group_by is not None:
            return False
        # E·(|a| + |b|) numbers in `dtype` against |W| numbers of four bytes per row. Factors are written
        # once. A sum costs its arithmetic, a read and a write at every step, so it must save half.
        factors, dense = epochs * shape.factors * TYPES[self.dtype].itemsize, shape.parameters * 4
        return {Form.auto: 2 * dense > factors, Form.factored: True}.get(self.form, False)

    def estimated_bytes(self, training: RecordedTraining, tracked: Tensor | None = None) -> int:
        tracked = self.tracked(training.split) if tracked is None else tracked
        groups, layout = self._groups(training.split, tracked), self.layout(training)
        entries = len(tracked) * training.recipe.epochs
        slots = len(tracked) if groups is None else len(groups.unique())
        entry_bytes = layout.entry_numbers * TYPES[self.dtype].itemsize
        # E·T entries of factors, and one block of float32 sums for each slot
        return entries * entry_bytes + slots * layout.slot_numbers * 4

    def summary(self, training: RecordedTraining, option: str, asked: int) -> str:
        layout = self.layout(training)
        factored, layers = len(layout.factored), len(layout.factored) + len(layout.sums)
        size = buffer_bytes(layout, self.dtype, self._most_rows(training))
        buffers = buffers_that_fit(size)
        return (
            f"{super().summary(training, option, asked)}; {factored} of {layers} layers as factors, the "
            f"others as sums; {buffers} buffer{'s' if buffers > 1 else ''} of {in_words(size)} in memory"
            f"{self._beside_factors(training)}"
        )

    def _beside_factors(self, training: RecordedTraining) -> str:
        """Return the time of `auto` beside the time and the bytes of factors alone, in words."""
        if self.form is not Form.auto or self.group_by is not None or not training.steps:
            return ""
        factored = replace(self, form=Form.factored)
        packers = [each._packer(training, each.layout(training)) for each in (self, factored)]
        own, alone = times_a_plain_step(training, packers)
        return (
            f"; a step takes {own:.2f} times as long, without the disk "
            f"(form=factored: {in_words(factored.estimated_bytes(training))}, {alone:.2f} times)"
        )

    def cures(self, training: RecordedTraining, free: int, option: str) -> Iterator[str]:
        types = list(FactorType)  # from the widest to the narrowest
        for dtype in types[types.index(self.dtype) + 1 :]:
            if self.fits(training, free, dtype=dtype):
                yield f"{option}.dtype={dtype.name}"
                break
        masked, most = self.form is Form.masked, self.keep if self.form is Form.masked else 1
        # A masked record shrinks with `keep`, so the largest share that fits is found by bisection.
        keep = largest_share(lambda share: self.fits(training, free, form=Form.masked, keep=share), most)
        if keep is not None:
            yield f"{'' if masked else f'{option}.form=masked '}{option}.keep={keep:g}"
        if self.group_by is None or (self.group_by == "class" and self.rows is None):
            yield from super().cures(training, free, option)  # only then do fewer rows mean fewer groups

    def watch(self, steps: Iterator[Step], training: RecordedTraining) -> Iterator[Step]:
        layout, index = self.layout(training), self.index(training.split)
        packer = self._packer(training, layout)
        tracked, groups = self.tracked(training.split), index.get("groups")
        entries = EntryIndex(training.split, tracked, groups, factors=bool(layout.factors))
        width, checkpoint = layout.slot_numbers, training.checkpoint
        sums = SumFile(training.folder, entries.slot_count, width, checkpoint)
        file = EntryFile(training.folder, FACTORS)
        ring = Ring(layout, self.dtype, self._most_rows(training), training.split.images.device)
        capturing = training.processes.capture(training.model)
        with capturing as capture, self.writer(training.folder) as writer:
            gathered = Gathered(writer, entries, sums, file)
            training.keep(gathered)
            writer.do(sums.open)
            for step in steps:
                taken, where = capture.take(), entries.where(step.batch.rows)
                rows = step.batch.rows[where]
                if len(rows) and not writer.lost:
                    lease = ring.take(entries.count, len(rows))
                    slots = entries.add(rows, step.number)
                    entries.add_scales(packer.pack(step, taken, where, slots, lease.packed))
                    job = partial(gathered.write, lease.land(), slots)
                    writer.do(job, after=partial(ring.give_back, lease))
                taken.clear()  # frees this step's activations before the next step makes new ones
                yield step
            writer.do(sums.close)
            writer.do(file.close)
        shares = torch.tensor(packer.shares.each, dtype=torch.float64)
        about = json.dumps(self._about(training, packer))
        close_record(writer, training.folder, about, index | entries.tensors() | {"shares": shares})

    def _most_rows(self, training: RecordedTraining) -> int:
        """Return the largest number of tracked rows in a batch."""
        return min(training.recipe.batch_size, len(self.tracked(training.split)))

    def _packer(self, training: RecordedTraining, layout: Layout) -> Packer:
        shares = coefficients(training.recipe, len(training.split), self.attribution)
        masks = {
            name: self._mask(training.streams, name, layout.shapes[name].parameters)
            for name in layout.sums
        }
        layers = layers_of(training.model)
        return Packer(layers, layout, masks, self.dtype, self.attribution, shares)

    def _mask(self, streams: Streams, layer: str, size: int) -> RandomMask | None:
        if self.form is not Form.masked:
            return None
        return RandomMask(size, self.keep, self.mask, streams, f"mask/{layer}")

    def _about(self, training: RecordedTraining, packer: Packer) -> dict[str, Any]:
        """Return the values that `SampleRecord` needs to read the record, as JSON-like values."""
        layout, masks = packer.layout, packer.masks
        return {
            "dtype": self.dtype.name,
            "beginning": packer.shares.beginning,
            "keep": self.keep,
            "mask": self.mask.name,
            "streams": [training.streams.seed, training.streams.scope],
            "sums": {name: place.size for name, place in layout.sums.items()},
            "proof": {name: [] if mask is None else mask.proof for name, mask in masks.items()},
            "layers": {
                name: {"a": shape.a, "b": shape.b, "factored": (name, "a") in layout.factors}
                for name, shape in layout.shapes.items()
            },
        }
