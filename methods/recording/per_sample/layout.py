"""The layout of a record: the place of each layer's numbers in an entry or in the sums of a slot."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import torch
from torch import Tensor, nn

from data.errors import UserError
from methods.weights.per_sample_gradients import layers_of

FACTORS, SUMS = "factors", "sums.bin"

Key = TypeVar("Key")


class Form(Enum):
    """The form of a layer in a record. `auto` takes factors, and the dense sum of a layer where it needs
    at most half of their bytes."""

    auto = "auto"
    factored = "factored"
    dense = "dense"
    masked = "masked"


class FactorType(Enum):
    """The type of factors on disk. Gradients for sums are computed in float32 for fp32 and in bfloat16
    for the others, and always summed in float32."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


TYPES = {FactorType.fp32: torch.float32, FactorType.bf16: torch.bfloat16, FactorType.int8: torch.int8}


@dataclass(frozen=True)
class Shape:
    """A layer in numbers: the shapes of its input `a` and of its output gradient `b` for one row, and
    the count of its own parameters."""

    a: tuple[int, ...]
    b: tuple[int, ...]
    parameters: int

    @property
    def factors(self) -> int:
        """Numbers of both factors of one row."""
        return math.prod(self.a) + math.prod(self.b)


def shapes_of(model: nn.Module, image: Tensor) -> dict[str, Shape]:
    """Return the shape of every layer by name, from a forward pass of one image (1, C, H, W).

    Raise UserError if a layer is used more than once.
    """
    found: dict[str, Shape] = {}

    def observe(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in found:
                raise UserError(
                    f"{name} is used more than once, which a record of per-sample gradients cannot "
                    "store: record batch updates (recorder=[batch_updates])"
                )
            a, b = tuple(inputs[0].shape[1:]), tuple(output.shape[1:])
            found[name] = Shape(a, b, parameters_in(layer))

        return note

    layers = layers_of(model)
    hooks = [layer.register_forward_hook(observe(name)) for name, layer in layers.items()]
    training = model.training
    model.eval()  # without dropout the pass draws no random numbers, so watching changes no weight
    try:
        with torch.no_grad():
            model(image.float())
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return {name: found[name] for name in layers}


def parameters_in(layer: nn.Module) -> int:
    """Return the count of a layer's own parameters."""
    return sum(parameter.numel() for parameter in layer.parameters(recurse=False))


@dataclass(frozen=True)
class Span:
    """Numbers of this shape, from the number `start` on, in an entry or in the sums of a slot."""

    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def numbers(self) -> slice:
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class Layout:
    """The place of every layer's numbers. A layer is either factored, and its two factors "a" and "b"
    have places in an entry, or it has one place in the sums of a slot (a tracked row or a group)."""

    shapes: Mapping[str, Shape]
    factors: Mapping[tuple[str, str], Span]
    sums: Mapping[str, Span]

    @staticmethod
    def of(shapes: Mapping[str, Shape], factored: Sequence[str], kept: Mapping[str, int]) -> "Layout":
        """Lay out the factored layers, and `kept` numbers of each of the others, in this order."""
        both = {(n, factor): getattr(shapes[n], factor) for n in factored for factor in ("a", "b")}
        sums = {name: (count,) for name, count in kept.items()}
        return Layout(shapes, _consecutive(both), _consecutive(sums))

    @property
    def factored(self) -> list[str]:
        """The names of the factored layers."""
        return [name for name, factor in self.factors if factor == "a"]

    @property
    def entry_numbers(self) -> int:
        """Numbers in an entry: the factors of one row at one step."""
        return sum(place.size for place in self.factors.values())

    @property
    def slot_numbers(self) -> int:
        """Numbers in the sums of one slot."""
        return sum(place.size for place in self.sums.values())


def _consecutive(shapes: Mapping[Key, tuple[int, ...]]) -> dict[Key, Span]:
    """Return places that follow one another without gaps, in the order of the shapes."""
    # start_j = Σ_{i<j} size_i
    starts = itertools.accumulate(map(math.prod, shapes.values()), initial=0)
    return {key: Span(start, shape) for (key, shape), start in zip(shapes.items(), starts, strict=False)}
