"""The base class of architectures: new models, from a seed or from a file of weights."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from data.bounds import SIZE
from data.component import Component
from data.contracts import named, returned
from data.errors import UserError, reason

# What stands before every name in the state dict of a wrapped model: DataParallel's, torch.compile's.
WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Architecture(Component):
    """An architecture, whose fields are its hyperparameters.

    `weights` is the path of a local file with initial weights (.safetensors, or a state dict saved by
    torch, also within a checkpoint and of a wrapped model), and `sha256` its checksum; both are None for
    a random initialisation. Images are resized to `input_size` × `input_size` pixels before the model;
    None leaves their size. Every size is at least 1 and at most 65,536. `public_file` names the files of
    others that fit.
    """

    public_file: ClassVar[str] = "the file"

    weights: str | None
    sha256: str | None
    input_size: Annotated[int, SIZE] | None

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        """Return a module from images (B, channels, size, size) float32 to logits (B, classes).

        Initialise it from torch's global generator, which the caller seeds. Raise UserError, naming the
        options, if the hyperparameters do not fit each other or the image size.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Raise UserError if the file of weights is missing or has another checksum."""
        if self.weights is None and self.sha256 is not None:
            raise UserError(
                "model.sha256 is the checksum of model.weights, which is not set: set both, or neither"
            )
        if self.weights is not None:
            self._read(Path(self.weights), "model")

    def randomly_initialised(self, channels: int, size: int, classes: int, seed: int) -> nn.Module:
        """Return a new model on the CPU, with random weights that depend on `seed` alone.

        The global generator keeps its state.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed the GPU
            model = self._built(channels, size, classes)
        return model if self.input_size is None else Resized(model, self.input_size)

    def fresh(
        self, channels: int, size: int, classes: int, seed: int, option: str = "model"
    ) -> nn.Module:
        """Return the model at the start of training: randomly initialised, or with the file's weights.

        The last linear layer stays as initialised if the file's is for other classes, or absent. Raise
        UserError if the file of weights, which `option` names, is unreadable or does not fit the model,
        or if the model gives an image anything but K logits.
        """
        model = self.randomly_initialised(channels, size, classes, seed)
        logits = self._logits(model, torch.zeros(1, channels, size, size), classes)
        self._require_own_weights(model, logits)
        if self.weights is not None:
            path = Path(self.weights)
            found = _weights(path, self._read(path, option), option)
            inner = model
            if isinstance(model, Resized):  # stored weights include the prefix of `Resized`
                inner = model.model
                found = {name.removeprefix("model."): value for name, value in found.items()}
            _fill(inner, _with_head(inner, self.renamed(found)), f"{option}.weights={path}")
        return model

    def renamed(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a file's weights under this module's names. Override it for other libraries' files."""
        return weights

    def outline(self, channels: int, size: int, classes: int) -> nn.Module:
        """Return the layers and shapes of a model without its weights, on torch's meta device."""
        with torch.device("meta"):
            return self._built(channels, size, classes)

    def _logits(self, model: nn.Module, image: Tensor, classes: int) -> Tensor:
        """Return the logits (1, K) of an image. Raise UserError if the model gives anything else."""
        training = [module for module in model.modules() if module.training]
        try:
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                logits = model.eval()(image)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{named(self, 'build')} returned a model that fails on an image of shape "
                f"{tuple(image.shape)} ({reason(error)}): check model.*"
            ) from error
        for module in training:
            module.training = True
        found: Tensor = returned(self, "build", logits, Tensor, "a model that returns a tensor")
        shape = tuple(found.shape)
        if shape != (1, classes):
            raise UserError(
                f"{named(self, 'build')} returned a model whose logits of one image have the shape "
                f"{shape}: it must be {(1, classes)}, one for each of the {classes} classes"
            )
        return found

    def _require_own_weights(self, model: nn.Module, logits: Tensor) -> None:
        """Raise UserError if a weight has two names, is frozen, or changes no logit."""
        names: dict[int, list[str]] = {}
        for name, weight in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(weight), []).append(name)
        shared = [name for each in names.values() if len(each) > 1 for name in each]
        weights, reached = list(model.named_parameters()), _reached(logits)
        unused = [name for name, weight in weights if id(weight) not in reached]
        for kind, found, cure in (
            ("shared", shared, "give each layer its own"),
            ("frozen", [n for n, weight in weights if not weight.requires_grad], "train all weights"),
            ("unused", unused, "remove those that change no logit"),
        ):
            if found:
                raise UserError(
                    f"{named(self, 'build')} returned a model with {kind} weights ({', '.join(found)}), "
                    f"which records and methods would miss: {cure}"
                )

    def _built(self, channels: int, size: int, classes: int) -> nn.Module:
        try:
            built = self.build(channels, self.input_size or size, classes)
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            raise UserError(f"this model cannot be built ({reason(error)}): check model.*") from error
        built = returned(self, "build", built, nn.Module, "a torch.nn.Module")
        tensors = dict([*built.named_parameters(), *built.named_buffers()])
        if lazy := [name for name, tensor in tensors.items() if is_lazy(tensor)]:
            raise UserError(
                f"{named(self, 'build')} returned a model with weights that its first image would draw, "
                f"by no seed ({', '.join(lazy)}): give each layer its number of inputs"
            )
        return built

    def _read(self, path: Path, option: str) -> bytes:
        """Return the content of the file of weights, checked each time: it may change during a run."""
        if not path.is_file():
            raise UserError(
                f"{option}.weights={path} does not exist: fetch {self.public_file} and put it there, or "
                "correct the path"
            )
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if self.sha256 != found:
            wrong = "is not set" if self.sha256 is None else f"is {self.sha256}"
            raise UserError(
                f"{option}.weights={path} has sha256 {found}, but {option}.sha256 {wrong}: set "
                f"{option}.sha256 to it if this is the file you mean"
            )
        return content

    def identity(self) -> dict[str, Any]:
        """Return all fields but the path of the weights, whose checksum identifies them."""
        return {key: value for key, value in vars(self).items() if key != "weights"}


def _reached(logits: Tensor) -> set[int]:
    """Return the ids of the parameters that logits depend on, by the graph of their computation."""
    found, seen, left = set(), set(), [logits.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # the end of a path: it adds to the gradient of a leaf
            found.add(id(node.variable))
        left += [each for each, _ in node.next_functions]
    return found


def _weights(path: Path, content: bytes, option: str) -> Mapping[str, Tensor]:
    """Return the tensors of a file by name. Raise UserError if it holds anything else."""
    try:
        if path.suffix == ".safetensors":
            found: Any = load(content)
        else:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return _state_dict(found)
    except Exception as error:  # both readers raise many kinds of errors
        why = f"{type(error).__name__}: {reason(error)}"
        if isinstance(error, UnpicklingError):  # torch explains in lines how to load it all the same
            why = "it holds Python objects, which may run code as they are loaded"
        raise UserError(
            f"{option}.weights={path} is no safetensors or state dict ({why}): save the state dict of a "
            "model, or choose another file"
        ) from error


def _state_dict(found: Any) -> Mapping[str, Tensor]:
    """Return the only state dict in what torch has read: all of it, or one of its values, beside an
    optimizer's state and the like. Raise ValueError if there are none or several."""
    if not isinstance(found, Mapping):
        raise ValueError(f"it holds a {type(found).__name__}")
    states = [each for each in (found, *found.values()) if _holds_tensors(each)]
    if len(states) != 1:
        raise ValueError(f"it holds {len(states) or 'no'} dictionaries of tensors alone")
    state: Mapping[str, Tensor] = states[0]
    # one wrapper may hold another, in any order
    while outer := [each for each in WRAPPERS if all(name.startswith(each) for name in state)]:
        state = {name.removeprefix(outer[0]): value for name, value in state.items()}
    return state


def _holds_tensors(value: Any) -> bool:
    """Return whether a value is a dictionary of tensors, and not an empty one."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(each, Tensor) for each in value.values())
    )


def _with_head(model: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a file's weights, with the model's own head if theirs is absent or for other classes."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        return weights
    own = {
        name: value for name, value in model.state_dict().items() if name.startswith(f"{linear[-1]}.")
    }
    theirs = {name: weights[name] for name in own if name in weights}
    # the weights (K, d) and the bias (K,) of a head for other classes differ in K alone
    other = all(value.shape[1:] == own[name].shape[1:] for name, value in theirs.items())
    same = theirs and all(len(value) == len(own[name]) for name, value in theirs.items())
    return {**weights, **own} if other and not same else weights


def _fill(model: nn.Module, weights: Mapping[str, Tensor], given: str) -> None:
    """Load the weights. Raise UserError, naming the option as `given` and the first difference in names
    or shapes."""
    wanted = model.state_dict()
    # before load_state_dict, whose message lists all differences in many lines
    for name in sorted(wanted.keys() | weights.keys()):
        have = tuple(weights[name].shape) if name in weights else "absent"
        want = tuple(wanted[name].shape) if name in wanted else "absent"
        if have != want:
            raise UserError(
                f"{given} does not fit this model: {name} is {have} in the file and "
                f"{want} in the model: choose the model and data set that it was made for"
            )
    model.load_state_dict(weights)


class Resized(nn.Module):
    """A model that first resizes its input (B, C, H, W) to `size` × `size` pixels, bilinearly."""

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size,) * 2, mode="bilinear", antialias=True)
        logits: Tensor = self.model(images)
        return logits
