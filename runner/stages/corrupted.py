"""Evidence on models of corrupted data: answers to an attack, and the alignment with added noise."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from data.disk import save_tensors
from data.requests import Noise, Request
from data.split import Split
from methods.base import Method
from metrics.evidence import Attacked
from metrics.predictions import margins, predict
from models.precision import Precision
from runner.plan import identities
from runner.progress import Bar
from runner.stages.models import load, weights_of
from runner.stages.predict import TENSORS
from runner.stages.workspace import Workspace
from runner.store import Artefact


def attacked(ws: Workspace, made: Artefact, made_by: Method | None = None) -> Attacked | None:
    """Return the answers of an artefact's model to the scenario's attack; None if it has none.

    `made_by` is the method that made the model, or None if it has the original's architecture.
    """
    plan = ws.plan
    attack = None if plan.scenario.corruption() is None else plan.scenario.attack(ws.dataset.test)
    if attack is None:
        return None

    def produce(folder: Path) -> None:
        model, bf16 = load(ws, made, made_by), plan.recipe.precision is Precision.bf16
        with Bar("attack") as bar:
            bar.expect(len(attack.shown))
            logits = predict(model, attack.shown, plan.evaluation.batch_size, bf16, bar.advance)
        found = {"logits": _own(ws, logits), "aims": attack.shown.labels, "clean": attack.clean}
        save_tensors({name: each.cpu().contiguous() for name, each in found.items()}, folder / TENSORS)

    return attacked_of(ws.get("attack", identities.corrupted(plan, "attack", weights_of(made)), produce))


def attacked_of(artefact: Artefact) -> Attacked:
    """Return the stored answers to an attack."""
    return Attacked(**load_file(artefact.path / TENSORS))


def alignment(
    ws: Workspace, request: Request, made: Artefact, made_by: Method | None = None
) -> Tensor | None:
    """Return the alignments of an artefact's model with the noise in the forgotten rows, (F,) float64;
    None if the scenario adds no noise. The store holds those of all noisy rows (see `aligned`).

    `made_by` is the method that made the model, or None if it has the original's architecture.
    """
    plan = ws.plan
    noise = None if plan.scenario.corruption() is None else plan.scenario.noise(ws.clean.train)
    if noise is None:
        return None

    def produce(folder: Path) -> None:
        model = load(ws, made, made_by).eval()
        clean = ws.clean.train.only(noise.rows).to(plan.device)
        t = aligned(lambda images: _own(ws, model(images)), clean, noise, plan.recipe.batch_size)
        save_tensors({"alignment": t, "rows": noise.rows}, folder / TENSORS)

    identity = identities.corrupted(plan, "poison_test", weights_of(made))
    return alignment_of(ws.get("poison_test", identity, produce), request)


def alignment_of(artefact: Artefact, request: Request) -> Tensor:
    """Return the stored alignments with the noise in the rows of a request."""
    tensors = load_file(artefact.path / TENSORS)
    return tensors["alignment"][torch.isin(tensors["rows"], request.rows)]


def _own(ws: Workspace, logits: Tensor) -> Tensor:
    """Return the first K logits of each row: a method may have added others."""
    return logits[:, : ws.clean.classes]


def aligned(logits: Callable[[Tensor], Tensor], clean: Split, noise: Noise, batch_size: int) -> Tensor:
    """Return t_i = −⟨ξ_i/ε, ∇ₓℓ(x_i)/‖∇ₓℓ(x_i)‖⟩ of each noisy row, (F,) float64 on the CPU.

    `logits` maps normalised images to logits (B, K) row by row. `clean` are the noisy rows without their
    noise: x_i is an image, ξ_i its noise and ℓ the cross-entropy of its label. A gradient that does not
    depend on ξ has t ~ N(0, 1). A model that has learned x + ξ has a lower loss there, so that t > 0.
    Where the gradient is zero, t = 0.
    """
    std = torch.tensor(clean.pixels.std, device=clean.images.device).view(1, -1, 1, 1)
    found = []
    for batch, xi in zip(clean.batches(batch_size), noise.values.split(batch_size), strict=True):
        images = batch.images.clone().requires_grad_()
        # ∇ℓ = −(1 − p_y)·∇φ for the margin φ: ∇φ has the direction of −∇ℓ, and does not underflow
        phi = margins(logits(images), batch.labels)
        (gradient,) = torch.autograd.grad(phi.sum(), images)
        # a pixel x in units of its range enters as (x − mean)/std, so that ∂φ/∂x is 1/std of this
        g = (gradient / std).flatten(1).double().cpu()
        # ⟨ξ/ε, ∇φ/‖∇φ‖⟩
        found.append((xi.flatten(1) * F.normalize(g, dim=1)).sum(1))
    return torch.cat(found)
