"""The conversion of one step's factors into the numbers that a record stores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.recording.per_sample.layout import FactorType, Layout, parameters_in
from methods.recording.per_sample.ring import Packed
from methods.recording.per_sample.shares import Attribution, Shares, adam_roots
from methods.recording.random_mask import RandomMask
from methods.training.descent import Step
from methods.weights.per_sample_gradients import RULES, Factors


@dataclass(frozen=True)
class Packer:
    """Packs the tracked rows of each step. `masks` holds the mask of every summed layer, or None."""

    layers: Mapping[str, nn.Module]
    layout: Layout
    masks: Mapping[str, RandomMask | None]
    dtype: FactorType
    attribution: Attribution
    shares: Shares

    def pack(
        self,
        step: Step,
        taken: Mapping[str, list[Factors]],
        where: slice | Tensor,
        slots: Tensor,
        packed: Packed,
    ) -> Tensor | None:
        """Pack the rows at `where` in the batch, which belong to `slots` (n,).

        Return the scales (n, factors) that multiply the entries in int8, otherwise None.
        """
        scales: list[Tensor] = []
        for name, (use,) in taken.items():
            factors = Factors(use.a[where], use.b[where])
            if name in self.layout.sums:
                self._write_summands(packed.sums, step, name, factors, slots)
            else:
                scales += self._write_factors(packed.entries, name, factors)
        return torch.stack(scales, 1).cpu() if scales else None

    def _write_summands(
        self, sums: Tensor, step: Step, name: str, factors: Factors, slots: Tensor
    ) -> None:
        """Write (n, kept) c_t·g_{i,t}/B of a layer, or the masked part of it."""
        place, mask = sums[:, self.layout.sums[name].numbers], self.masks[name]
        layer = self.layers[name]
        each = place if mask is None else place.new_empty(len(place), parameters_in(layer))
        start = 0
        for gradients in self._gradients(layer, factors):
            part = each[:, start : start + gradients.shape[1]]
            part.copy_(gradients)  # converts
            start += gradients.shape[1]
        # c_t·g_{i,t}/B: the factor 1/B is in `b`, because the loss is a mean over the batch
        each.mul_(self._coefficient(step, layer))
        if mask is not None:
            place.copy_(mask.of_each(slots.tolist(), each))

    def _gradients(self, layer: nn.Module, factors: Factors) -> Iterator[Tensor]:
        """Yield (n, size) every row's gradient of each of a layer's parameters. Norms are computed in
        float32 in any case: their gradients are cheap, and sensitive to rounding."""
        rule = RULES[type(layer)]
        # bfloat16 halves the bytes of the products; the sums over steps stay float32
        exact = rule.total is None or self.dtype is FactorType.fp32
        dtype = torch.float32 if exact else torch.bfloat16
        each = rule.each(layer, Factors(factors.a.to(dtype), factors.b.to(dtype)))
        return (each[name].flatten(1) for name, _ in layer.named_parameters(recurse=False))

    def _coefficient(self, step: Step, layer: nn.Module) -> Tensor:
        """Return c_t: one number, or one for each of the layer's parameters if preconditioned."""
        share = self.shares.each[step.number]
        if self.attribution is not Attribution.preconditioned:
            return torch.tensor(share)
        # c_t = −lr_t/(√v̂_t + ε), (parameters,)
        return share / adam_roots(step, layer)

    def _write_factors(self, entries: Tensor, name: str, factors: Factors) -> list[Tensor]:
        """Write both factors of a layer into the entries; return their scales (n,), in int8 only."""
        scales = []
        for factor, value in (("a", factors.a.flatten(1)), ("b", factors.b.flatten(1))):
            if self.dtype is FactorType.int8:
                value, scale = _in_eight_bits(value)
                scales.append(scale)
            entries[:, self.layout.factors[name, factor].numbers] = value
        return scales


def _in_eight_bits(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (n, m) whole numbers from −127 to 127, and (n,) the scale of each row: value ≈ whole·scale.

    The scale is max_j |v_j| / 127, so that the largest number of a row becomes ±127.
    """
    scale = torch.linalg.vector_norm(values, torch.inf, dim=1).float() / 127
    # v/scale, rounded; the clamp turns the 0/0 of a row of zeros into 0
    return (values / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round(), scale
