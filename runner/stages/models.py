"""Models: new ones, and those that an artefact of the store holds."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from data.contracts import named, returned
from data.disk import save_tensors
from data.errors import UserError
from data.streams import Streams
from methods.base import Method
from methods.training.divergence import require_finite
from methods.weights.heads import head_of
from runner.plan import Plan, identities
from runner.stages.workspace import Workspace
from runner.store import Artefact

MODEL = "model.safetensors"


def fresh(ws: Workspace, streams: Streams) -> nn.Module:
    """Return a model at the start of training, on the device.

    It begins at random weights, at a file of weights, or at the public checkpoint, but for its head.
    """
    plan, source = ws.plan, ws.plan.source
    seed = streams.number("init")
    model = plan.architecture.fresh(source.channels, source.size, source.classes, seed, plan.start)
    if plan.public is not None:
        _begin_at(model, source.classes, _checkpoint(ws, plan.public))
    return model.to(plan.device)


def _checkpoint(ws: Workspace, public: Plan) -> Artefact:
    wanted = identities.wanted_original(public)
    if not ws.store.has(*wanted):
        raise UserError("the checkpoint of pretrained= is no longer in the store: run the command again")
    return ws.store.find(*wanted)


def _begin_at(model: nn.Module, classes: int, checkpoint: Artefact) -> None:
    """Give a model all weights of a checkpoint but those of the head, whose classes are others."""
    head, _ = head_of(model, classes)
    own = {name: value for name, value in model.state_dict().items() if name.startswith(f"{head}.")}
    model.load_state_dict({**weights(checkpoint.path), **own})


def randomly_initialised(ws: Workspace, streams: Streams) -> nn.Module:
    """Return a model with random weights, on the device."""
    source = ws.plan.source
    seed = streams.number("init")
    model = ws.plan.architecture.randomly_initialised(source.channels, source.size, source.classes, seed)
    return model.to(ws.plan.device)


def load(ws: Workspace, made: Artefact, made_by: Method | None = None) -> nn.Module:
    """Return the model of an artefact on the device. `made_by` is the method that made it, or None if it
    has the original's architecture."""
    state = weights(made.path)
    model = randomly_initialised(ws, ws.streams("load"))
    if made_by is None:
        model.load_state_dict(state)
        return model
    shell = made_by.module(lambda: randomly_initialised(ws, ws.streams("load")), state)
    model = returned(made_by, "module", shell, nn.Module, "a torch.nn.Module").to(ws.plan.device)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:20])
        raise UserError(
            f"{named(made_by, 'module')} must return a module that fits what unlearn made: {reason}…"
        ) from error
    return model


def save(model: nn.Module, folder: Path) -> None:
    """Write a model's weights into a folder. Raise Diverged if one is not finite."""
    require_finite(model)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_tensors(state, folder / MODEL)


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights in a folder by name, on the CPU."""
    return load_file(folder / MODEL)


def weights_of(artefact: Artefact) -> str:
    """Return the checksum of an artefact's weights."""
    return artefact.checksum(MODEL)
