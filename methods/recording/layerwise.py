"""Layer-wise updates: a part of every batch update, chosen layer by layer.

Idea: a fraction of an update undoes what matters, at a fraction of the bytes and of the damage.
Record: P_l ⊙ Δ_t for every layer l and every step whose batch holds a tracked row (see `batch_updates`).
Layer l of L, counted from the input, keeps the share k_first + (k_last − k_first)·l/(L − 1): paper 002
prunes early layers most; k_first = k_last is the uniform p of paper 004. A layer is a module that owns
parameters. `mask: fresh` draws P_l anew for every update and `fixed` once, both without stored indices;
`magnitude` keeps the largest numbers, with four more bytes each for their positions.
Reference: Gogineni & Nadimi 2024 (paper 002), who give no schedule and no code; paper 004.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from data.errors import UserError
from data.streams import Streams
from methods.recording.batch_updates import TYPES, Packing, Stored, UpdateRecorder
from methods.recording.files import Damaged
from methods.recording.random_mask import Mask, RandomMask
from methods.recording.recorder import RecordedTraining
from methods.training.checks import above_zero_to_one
from methods.weights.layers import owners, rising


class Choice(Enum):
    """Which numbers of a layer are kept."""

    fresh = "fresh"
    fixed = "fixed"
    magnitude = "magnitude"


@dataclass(frozen=True)
class Layerwise(UpdateRecorder):
    kind: ClassVar[str] = "methods.recorders.layerwise.Layerwise"
    dtype: Stored
    mask: Choice
    keep_first: float
    keep_last: float

    def check_parameters(self, option: str) -> None:
        super().check_parameters(option)
        above_zero_to_one(option, self, "keep_first", "keep_last")

    def smaller(self, option: str) -> str:
        kept = f"{option}.keep_last=0.1, {option}.dtype=bf16"
        return f"track fewer rows ({option}.classes=[…]) or store less ({kept})"

    def packing(self, watched: RecordedTraining) -> Packing:
        layers = owners(watched.model)
        sizes = [sum(p.numel() for p in layer.parameters(recurse=False)) for layer in layers]
        if sum(sizes) != watched.parameters:
            raise UserError("a parameter is used by two layers: record batch_updates instead")
        keeps = rising(self.keep_first, self.keep_last, len(sizes))
        streams = watched.streams
        return Part(sizes, keeps, self.mask.name, self.dtype.name, streams.seed, streams.scope)


class Part:
    """The kept part of each of the layers that follow one another in an update."""

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
        """Raises Damaged where `proof` says that masks were drawn otherwise when the record was made."""
        self.sizes, self.keeps = sizes, keeps
        self.mask, self.dtype = Choice[mask], TYPES[Stored[dtype]]
        self._named = {"mask": mask, "dtype": dtype, "seed": seed, "scope": scope}
        self._streams = Streams(seed, scope)
        self.starts = [sum(sizes[:layer]) for layer in range(len(sizes))]
        self.kept = [max(1, round(k * size)) for k, size in zip(keeps, sizes, strict=True)]
        index = 4 if self.mask is Choice.magnitude else 0
        self.width = sum(self.kept) * (self.dtype.itemsize + index)
        if proof is not None and proof != self._proof():
            raise Damaged("the record's masks were drawn by another torch: record again")

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
        parts = zip(self._masks, self.starts, strict=True)
        return torch.cat([mask.positions(number) + start for mask, start in parts])

    def _largest(self, update: Tensor) -> Tensor:
        layers = zip(update.split(self.sizes), self.kept, self.starts, strict=True)
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
            entry = entry.clone()  # in a block of entries it may begin at an odd byte
            index, values = entry.split([4 * sum(self.kept), len(entry) - 4 * sum(self.kept)])
            where = index.view(torch.int32).long()
        total[where] += values.view(self.dtype).to(total.dtype)

    def about(self) -> dict[str, Any]:
        found = {**self._named, "sizes": self.sizes, "keeps": self.keeps, "proof": self._proof()}
        return found | {"parameters": sum(self.sizes)}
