"""Features: the inputs of the last linear layer, on the rows to forget and on rows to compare with."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data.disk import save_tensors
from data.requests import Request
from data.row_file import content
from data.split import Split
from methods.base import Method
from metrics.predictions import predict
from models.precision import Precision
from runner.plan import identities
from runner.progress import Bar
from runner.stages.models import load, weights_of
from runner.stages.predict import TENSORS
from runner.stages.sample import sample
from runner.stages.workspace import Workspace
from runner.store import Artefact


def features(
    ws: Workspace, request: Request, made: Artefact, made_by: Method | None = None
) -> Mapping[str, Tensor] | None:
    """Return the inputs (n, d) float32 of the last linear layer of an artefact's model, by part.

    The parts are `train_forget` and `test_forget`, where they have rows, `test_retain`, and
    `train_retain`, of which as many rows as `train_forget` has are drawn: the same for all models.
    `made_by` is the method that made the model, or None if it has the original's architecture. Return
    None if no linear layer computes the logits, as in an ensemble.
    """

    def produce(folder: Path) -> None:
        model = load(ws, made, made_by)
        found = {part: _inputs(ws, model, split) for part, split in _rows(ws, request).items()}
        save_tensors({part: each for part, each in found.items() if each is not None}, folder / TENSORS)

    # With the data they decide the drawn rows too, and the data need not be loaded to know them.
    rows = {"train": content(request.rows.numpy()), "test": content(request.test.numpy())}
    identity = identities.features(ws.plan, weights_of(made), rows)
    return features_of(ws.get("features", identity, produce))


def features_of(artefact: Artefact) -> Mapping[str, Tensor] | None:
    """Return stored features by part, or None if the model has none."""
    return load_file(artefact.path / TENSORS) or None


def _rows(ws: Workspace, request: Request) -> dict[str, Split]:
    """Return the rows of every part that has any."""
    train, test = ws.dataset.train, ws.dataset.test
    parts = {
        "train_forget": train.only(request.rows),
        "train_retain": sample(train.without(request.rows), len(request.rows), "features"),
        "test_forget": test.only(request.test),
        "test_retain": test.without(request.test),
    }
    return {part: split for part, split in parts.items() if len(split)}


def _inputs(ws: Workspace, model: nn.Module, split: Split) -> Tensor | None:
    """Return the inputs (n, d) of the last linear layer on the CPU, or None if there is none."""
    plan = ws.plan
    with Bar("features") as bar, HeadInputs(model) as found:
        bar.expect(len(split))
        bf16 = plan.recipe.precision is Precision.bf16
        predict(model, split, plan.evaluation.batch_size, bf16, bar.advance)
    return torch.cat(found.inputs) if found.inputs else None


class HeadInputs:
    """A context manager that keeps the inputs of the head in every forward pass of a model.

    The head is the last linear layer that the pass calls, if its outputs are those of the model.
    `inputs` holds (B, d) float32 on the CPU, one for each pass, and nothing of passes without a head.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.inputs: list[Tensor] = []
        self._last: tuple[Tensor, Tensor] | None = None

    def __enter__(self) -> "HeadInputs":
        linear = [module for module in self.model.modules() if isinstance(module, nn.Linear)]
        self._hooks = [layer.register_forward_hook(self._call) for layer in linear]
        # after those of the layers, since the model may be a linear layer itself
        self._hooks.append(self.model.register_forward_hook(self._end))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _call(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._last = inputs[0], output

    def _end(self, model: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        if self._last is not None and torch.equal(self._last[1], logits):
            self.inputs.append(self._last[0].float().cpu())
        self._last = None
