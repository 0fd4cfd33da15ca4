"""Reading a record of per-sample gradients: the sum of the shares of any tracked rows."""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data.streams import Streams
from methods.recording.files import Damaged, Entries
from methods.recording.per_sample.layout import (
    FACTORS,
    SUMS,
    TYPES,
    FactorType,
    Layout,
    Shape,
    parameters_in,
)
from methods.recording.random_mask import Mask, RandomMask
from methods.recording.recorder import ABOUT, ROWS
from methods.weights.per_sample_gradients import RULES, Factors, Gradients, layers_of

# Entries that are in memory at once while a request is served.
CHUNK = 128


@dataclass(frozen=True)
class SampleRecord:
    """A record of per-sample gradients, read in chunks of rows. `about` is what `about.json` holds."""

    folder: Path
    tracked: Tensor
    slots: Tensor  # (tracked,) the slot of the file of sums that each tracked row is in
    rows: Tensor  # (entries,) the row of each entry of the factored file
    shares: Tensor  # (entries,) the coefficient of the entry's step
    scales: Tensor | None  # (entries, factors) by which each factor is multiplied, in int8
    about: Mapping[str, Any]

    @staticmethod
    def open(folder: Path) -> "SampleRecord":
        """Open the record in a folder; factors and sums stay on the disk."""
        about = json.loads((folder / ABOUT).read_text())
        stored = load_file(folder / ROWS)
        tracked, shares = stored["tracked"], stored["shares"][stored["steps"]]
        slots = stored.get("slots", torch.arange(len(tracked)))
        scales = stored.get("scales")
        return SampleRecord(folder, tracked, slots, stored["rows"], shares, scales, about)

    @property
    def beginning(self) -> float:
        """A, the factor of the initial weights θ_0 in the final ones."""
        return float(self.about["beginning"])

    def layout(self) -> Layout:
        """Return the layout that the record was written with."""
        layers = self.about["layers"]
        shapes = {name: Shape(tuple(at["a"]), tuple(at["b"]), 0) for name, at in layers.items()}
        factored = [name for name, at in layers.items() if at["factored"]]
        return Layout.of(shapes, factored, self.about["sums"])

    def share(self, model: nn.Module, rows: Tensor) -> Gradients:
        """Return Σ_{i ∈ rows} Σ_t c_t·g_{i,t}/B_t by the model's parameter names.

        Memory does not grow with the number of rows. Raise Damaged if an entry was altered.
        """
        layers, layout = layers_of(model), self.layout()
        # the entries of these rows, one for each row and step at which it was recorded
        entries = torch.isin(self.rows, rows.cpu()).nonzero()[:, 0]
        total = self._factored(layers, layout, entries) if layout.factors else {}
        # unique: a group has one sum for all its rows
        slots = self.slots[torch.isin(self.tracked, rows.cpu())].unique()
        return total | self._summed(layers, layout, slots)

    def _factored(self, layers: Mapping[str, nn.Module], layout: Layout, entries: Tensor) -> Gradients:
        total: Gradients = {}
        dtype = TYPES[FactorType[self.about["dtype"]]]
        stored = Entries.open(self.folder, FACTORS, layout.entry_numbers * dtype.itemsize)
        for numbers in entries.split(CHUNK):
            # one chunk at a time: it ends with this loop, before the next is read
            for name, value in self._totals(layers, layout, numbers, stored.read(numbers, dtype)):
                total[name] = total[name].add_(value) if name in total else value
        return total

    def _totals(
        self, layers: Mapping[str, nn.Module], layout: Layout, numbers: Tensor, values: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield Σ_i c_i·g_i over the entries of these numbers (n,), whose `values` are (n, …), for each
        parameter of the factored layers, by name."""
        scales = [None] * len(layout.factors) if self.scales is None else self.scales[numbers].T
        chunk = _Chunk(values, dict(zip(layout.factors, scales, strict=True)))
        for name in layout.factored:
            device = next(layers[name].parameters()).device
            a, b = (chunk.factor(layout, name, factor, device) for factor in ("a", "b"))
            # c_t of each entry, (n,) to the number of dimensions of `b`
            b *= self.shares[numbers].float().view(-1, *[1] * (b.dim() - 1)).to(device)
            rule = RULES[type(layers[name])].total
            assert rule is not None  # a layer without one is never factored
            # Σ_i c_i·(b_i ⊗ a_i) = Σ_i (c_i·b_i) ⊗ a_i: one ordinary weight gradient.
            for own, value in rule(layers[name], Factors(a, b)).items():
                yield f"{name}.{own}", value.detach()

    def _summed(self, layers: Mapping[str, nn.Module], layout: Layout, slots: Tensor) -> Gradients:
        masks = [self._mask(name, layers[name]) for name in layout.sums]
        sizes = [parameters_in(layers[name]) for name in layout.sums]
        starts = list(itertools.accumulate(sizes, initial=0))
        total = torch.zeros(starts[-1], dtype=torch.float64)
        for slot, values in self._sums(layout.slot_numbers, slots.tolist()):
            # a record has masks for all layers or for none
            kept = [
                mask.positions(slot) + start
                for mask, start in zip(masks, starts, strict=False)
                if mask is not None
            ]
            # Σ_{i ∈ rows} of the sums; numbers that a mask did not keep add 0
            total[torch.cat(kept) if kept else slice(None)] += values
        return {
            f"{name}.{own}": value
            for name, part in zip(layout.sums, total.float().split(sizes), strict=True)
            for own, value in _as_parameters(layers[name], part).items()
        }

    def _sums(self, width: int, slots: list[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield each slot and its sums (width,), in memory that the next slot overwrites."""
        block = np.empty(width, np.float32)
        with (self.folder / SUMS).open("rb", buffering=0) as file:
            for slot in slots:
                if os.preadv(file.fileno(), [block.data], slot * block.nbytes) < block.nbytes:
                    raise Damaged(f"{self.folder / SUMS} is shorter than what was written")
                yield slot, torch.from_numpy(block)

    def _mask(self, name: str, layer: nn.Module) -> RandomMask | None:
        """Return the mask that a layer's sums were recorded with, if any.

        Raise Damaged if this version of torch draws another mask.
        """
        if not self.about["proof"][name]:
            return None
        size, streams = parameters_in(layer), Streams(*self.about["streams"])
        mask = RandomMask(size, self.about["keep"], Mask[self.about["mask"]], streams, f"mask/{name}")
        if mask.proof != self.about["proof"][name]:
            raise Damaged("another version of torch drew the record's masks: record again")
        return mask


@dataclass(frozen=True)
class _Chunk:
    """Some entries (n, entry_numbers) as stored, and the scales (n,) of each factor in int8."""

    entries: Tensor
    scales: Mapping[tuple[str, str], Tensor | None]

    def factor(self, layout: Layout, name: str, factor: str, device: torch.device) -> Tensor:
        """Return one factor of a layer, (n, *shape) float32 on the device."""
        place = layout.factors[name, factor]
        values = self.entries[:, place.numbers].to(device, torch.float32)
        scale = self.scales[name, factor]
        if scale is not None:
            # value ≈ whole·scale
            values *= scale.to(device)[:, None]
        return values.view(len(self.entries), *place.shape)


def _as_parameters(layer: nn.Module, flat: Tensor) -> Gradients:
    """Split numbers (parameters,) into a layer's own parameters, by name, on its device."""
    named = dict(layer.named_parameters(recurse=False))
    parts = flat.split([parameter.numel() for parameter in named.values()])
    return {
        own: part.view_as(value).to(value.device)
        for (own, value), part in zip(named.items(), parts, strict=True)
    }
