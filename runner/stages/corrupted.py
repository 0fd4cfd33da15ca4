"""Evidence on models of corrupted data: answers to an attack, and the alignment with added noise."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.requests import Noise, Request
from data.split import Split
from methods.base import Method
from metrics.evidence import Attacked, Needs
from metrics.predictions import margins
from runner.plan import identities
from runner.stages.models import load, weights_of
from runner.stages.predict import TENSORS, stored
from runner.stages.workspace import Workspace
from runner.store import Artefact


def evidence(
    ws: Workspace, request: Request, made: Artefact, maker: Method | None = None
) -> Mapping[Needs, object]:
    """Return what the run's metrics ask of an artefact's model, apart from its predictions, because the
    scenario corrupts the data. It is nothing if the scenario does not.

    `maker` is the method that made the model, or None if it has the original's architecture.
    """
    if ws.plan.scenario.corruption() is None:
        return {}
    supplied = {Needs.ATTACK: attacked, Needs.ALIGNMENT: alignment}
    wanted = [need for need in supplied if any(need in metric.needs for metric in ws.plan.metrics)]
    found = {need: supplied[need](ws, request, made, maker) for need in wanted}
    return {need: piece for need, piece in found.items() if piece is not None}


def attacked(
    ws: Workspace, request: Request, made: Artefact, maker: Method | None = None
) -> Attacked | None:
    """Return the answers of an artefact's model to the scenario's attack; None if it has none."""
    attack = ws.plan.scenario.attack(ws.dataset.test)
    if attack is None:
        return None
    logits, aims, _ = stored(ws, made, maker, "test_attacked", attack.shown)
    return Attacked(logits, aims, attack.clean.cpu())


def alignment(
    ws: Workspace, request: Request, made: Artefact, maker: Method | None = None
) -> Tensor | None:
    """Return the alignments of an artefact's model with the noise in the forgotten rows, (F,) float64;
    None if the scenario adds no noise. The store holds those of all noisy rows (see `aligned`)."""
    noise = ws.plan.scenario.noise(ws.clean.train)
    if noise is None:
        return None

    def produce(folder: Path) -> None:
        model, clean = load(ws, made, maker).eval(), ws.clean.train.only(noise.rows)
        classes, device = ws.clean.classes, ws.plan.device
        # the first K logits: a method may have added others
        t = aligned(
            lambda images: model(images)[:, :classes], clean.to(device), noise, ws.plan.recipe.batch_size
        )
        save_file({"alignment": t, "rows": noise.rows}, folder / TENSORS)

    identity = identities.poison_test(ws.plan, weights_of(made))
    tensors = load_file(ws.get("poison_test", identity, produce).path / TENSORS)
    return tensors["alignment"][torch.isin(tensors["rows"], request.rows)]


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
