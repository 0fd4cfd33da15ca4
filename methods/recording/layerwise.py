"""Layer-wise updates: a part of every batch update, chosen layer by layer.

Idea: a part of an update is enough to forget. It takes fewer bytes and harms the other rows less.
Record: P_l ⊙ Δ_t for every layer l and every step whose batch holds a tracked row (see `batch_updates`).
Layer l = 0 … L − 1, counted from the input, keeps the share k_first + (k_last − k_first)·l/(L − 1).
Paper 002 prunes early layers most; k_first = k_last is the uniform p of paper 004. A layer is a module
that owns parameters. `mask: fresh` draws P_l anew for every update, and `fixed` draws it once; neither
stores positions. `magnitude` keeps the largest numbers, with four more bytes for the position of each.
Reference: Gogineni & Nadimi 2024 (paper 002), who give no schedule and no code; paper 004.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from data.bounds import POSITIVE_SHARE
from data.errors import UserError
from data.streams import Streams
from methods.recording.batch_updates import TYPES, Packing, Stored, UpdateRecorder
from methods.recording.estimates import largest_share
from methods.recording.files import Damaged
from methods.recording.random_mask import Mask, RandomMask
from methods.recording.recorder import RecordedTraining
from methods.weights.layers import owners, rising


class Choice(Enum):
    """The numbers of a layer that are kept."""

    fresh = "fresh"
    fixed = "fixed"
    magnitude = "magnitude"


@dataclass(frozen=True)
class Layerwise(UpdateRecorder):
    """Keeps a share of every layer's update, from `keep_first` in the first layer to `keep_last` in the
    last, both above 0 and at most 1."""

    kind: ClassVar[str] = "methods.recorders.layerwise.Layerwise"
    dtype: Stored
    mask: Choice
    keep_first: Annotated[float, POSITIVE_SHARE]
    keep_last: Annotated[float, POSITIVE_SHARE]

    def cures(self, training: RecordedTraining, free: int, option: str) -> Iterator[str]:
        if self.dtype is Stored.fp32 and self.fits(training, free, dtype=Stored.bf16):
            yield f"{option}.dtype=bf16"
        # Lowering keep_last alone may be enough. Otherwise all layers keep the same, lower share.
        last = largest_share(lambda share: self.fits(training, free, keep_last=share), self.keep_last)
        if last is not None:
            yield f"{option}.keep_last={last:g}"
        else:
            yield from self._uniform(training, free, option)
        yield from super().cures(training, free, option)

    def _uniform(self, training: RecordedTraining, free: int, option: str) -> Iterator[str]:
        """Yield the largest share that fits if all layers keep the same."""
        below = min(self.keep_first, self.keep_last)
        share = largest_share(
            lambda share: self.fits(training, free, keep_first=share, keep_last=share), below
        )
        if share is not None:
            yield f"{option}.keep_first={share:g} {option}.keep_last={share:g}"

    def packing(self, training: RecordedTraining) -> Packing:
        layers = owners(training.model)
        sizes = [sum(p.numel() for p in layer.parameters(recurse=False)) for layer in layers]
        if sum(sizes) != training.parameters:
            raise UserError("a parameter is used by two layers: record batch_updates instead")
        keeps = rising(self.keep_first, self.keep_last, len(sizes))
        streams = training.streams
        return Part(sizes, keeps, self.mask.name, self.dtype.name, streams.seed, streams.scope)


class Part:
    """Keeps a part of each layer of an update, in which the layers' numbers follow one another."""

    def __init__(
        self,
        sizes: list[int],
        keeps: list[float],
        mask: str,
        dtype: str,
        seed: int,
        scope: str,
        proof: list[list[int]] | None = None,
        parameters: int = 0,
    ) -> None:
        """`sizes` and `keeps` are each layer's numbers and share, `seed` and `scope` the masks' streams.

        Raise Damaged if `proof`, the beginning of the masks of a record, differs from today's masks.
        """
        self.sizes, self.keeps = sizes, keeps
        self.mask, self.dtype = Choice[mask], TYPES[Stored[dtype]]
        self._named = {"mask": mask, "dtype": dtype, "seed": seed, "scope": scope}
        self._streams = Streams(seed, scope)
        # the start of each layer in the update (M,), and the count of its numbers that are kept
        self.starts = [sum(sizes[:layer]) for layer in range(len(sizes))]
        self.kept = [max(1, round(k * size)) for k, size in zip(keeps, sizes, strict=True)]
        index = 4 if self.mask is Choice.magnitude else 0
        self.width = sum(self.kept) * (self.dtype.itemsize + index)
        if proof is not None and proof != self._proof():
            raise Damaged("another version of torch drew the record's masks: record again")

    @cached_property
    def _masks(self) -> list[RandomMask]:
        mask = Mask[self.mask.name]
        return [
            RandomMask(size, keep, mask, self._streams, f"mask/{layer}")
            for layer, (size, keep) in enumerate(zip(self.sizes, self.keeps, strict=True))
        ]

    def _proof(self) -> list[list[int]]:
        return [] if self.mask is Choice.magnitude else [mask.proof for mask in self._masks]

    def _drawn(self, number: int) -> Tensor:
        """Return the positions (kept,) that the masks of the number-th update keep."""
        parts = zip(self._masks, self.starts, strict=True)
        return torch.cat([mask.positions(number) + start for mask, start in parts])

    def _largest(self, update: Tensor) -> Tensor:
        """Return the positions (kept,) of each layer's largest numbers."""
        layers = zip(update.split(self.sizes), self.kept, self.starts, strict=True)
        # the k numbers with the largest |Δ| of every layer
        return torch.cat([part.abs().topk(k, sorted=False).indices + start for part, k, start in layers])

    def pack(self, number: int, update: Tensor) -> Tensor:
        if self.mask is not Choice.magnitude:
            return update[self._drawn(number)].to(self.dtype).view(torch.uint8)
        where = self._largest(update)
        values = update[where].to(self.dtype).view(torch.uint8)
        return torch.cat([where.to(torch.int32).view(torch.uint8), values])

    def add(self, total: Tensor, number: int, entry: Tensor) -> None:
        if self.mask is not Choice.magnitude:
            where, values = self._drawn(number), entry
        else:
            entry = entry.clone()  # aligned: in a block of entries it may begin at an odd byte
            index, values = entry.split([4 * sum(self.kept), len(entry) - 4 * sum(self.kept)])
            where = index.view(torch.int32).long()
        # total += P_l ⊙ Δ_t: numbers that were not kept add 0
        total[where] += values.view(self.dtype).to(total.dtype)

    def about(self) -> dict[str, Any]:
        found = {**self._named, "sizes": self.sizes, "keeps": self.keeps, "proof": self._proof()}
        return found | {"parameters": sum(self.sizes)}
