"""What every architecture has in common: a fresh model from a stream, or from a file of weights."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from data.component import Component
from data.contracts import returned
from data.errors import UserError


@dataclass(frozen=True)
class Architecture(Component):
    """An architecture; its fields are its hyperparameters.

    `weights` is a local file to start from (.safetensors, or a state dict saved by torch), `sha256`
    its checksum; both null for a random initialisation. Images are resized to `input_size` pixels
    a side on their way in; null leaves them as they are.
    """

    weights: str | None
    sha256: str | None
    input_size: int | None

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        """A module from (B, channels, size, size) float32 to (B, classes) logits."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises UserError for sizes below 1, and where the file of weights is missing or is not the one
        asked for."""
        for name, value in vars(self).items():
            sizes = value if isinstance(value, list) else [value]
            if any(isinstance(size, int) and size < 1 for size in sizes):
                raise UserError(f"model.{name}={value}: sizes must be at least 1")
        if self.weights is not None:
            self._read(Path(self.weights))

    def randomly_initialised(self, channels: int, size: int, classes: int, seed: int) -> nn.Module:
        """A new model on the CPU, initialised from `seed` alone."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the GPU's
            model = self._built(channels, size, classes)
        return model if self.input_size is None else Resized(model, self.input_size)

    def fresh(self, channels: int, size: int, classes: int, seed: int) -> nn.Module:
        """What a training begins with: a model that is drawn, or one that holds the file's weights."""
        model = self.randomly_initialised(channels, size, classes, seed)
        if self.weights is not None:
            path = Path(self.weights)
            found = _weights(path, self._read(path))
            inner = model
            if isinstance(model, Resized):  # a store holds it with its resize
                inner = model.model
                found = {name.removeprefix("model."): value for name, value in found.items()}
            _fill(inner, path, self.renamed(found))
        return model

    def renamed(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A file's weights by the names of this module, where other libraries name them otherwise."""
        return weights

    def outline(self, channels: int, size: int, classes: int) -> nn.Module:
        """The layers and shapes of a model without its numbers, on torch's meta device."""
        with torch.device("meta"):
            return self._built(channels, size, classes)

    def _built(self, channels: int, size: int, classes: int) -> nn.Module:
        try:
            built = self.build(channels, self.input_size or size, classes)
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            raise UserError(f"no such model can be built ({error}): check model.*") from error
        return returned(self, "build", built, nn.Module, "a torch.nn.Module")

    def _read(self, path: Path) -> bytes:
        """The file of weights, checked: it may change while a run goes on."""
        if not path.is_file():
            raise UserError(f"model.weights={path} does not exist")
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if self.sha256 != found:
            raise UserError(
                f"model.weights={path} has sha256 {found}, but model.sha256 is {self.sha256}; "
                "set model.sha256 to it if this is the file you mean"
            )
        return content

    def identity(self) -> dict[str, Any]:
        """The fields that decide what the model is: the weights' checksum, not where they lie."""
        return {key: value for key, value in vars(self).items() if key != "weights"}


def _weights(path: Path, content: bytes) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            weights = load(content)
        else:
            weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not all(isinstance(value, Tensor) for value in weights.values()):
            raise ValueError("it holds more than tensors by name")
    except Exception as error:  # both readers raise many kinds
        reason = str(error).splitlines()[0]
        raise UserError(f"model.weights={path} is no safetensors or state dict ({reason})") from error
    return weights


def _fill(model: nn.Module, path: Path, weights: Mapping[str, Tensor]) -> None:
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        have = tuple(weights[name].shape) if name in weights else "absent"
        want = tuple(wanted[name].shape) if name in wanted else "absent"
        if have != want:
            raise UserError(
                f"model.weights={path} does not fit this model: {name} is {have} in the file and "
                f"{want} in the model; choose the model and data set that it was made for"
            )
    model.load_state_dict(weights)


class Resized(nn.Module):
    """A model behind a bilinear resize of its input to `size` × `size` pixels, on the device."""

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size,) * 2, mode="bilinear", antialias=True)
        logits: Tensor = self.model(images)
        return logits
