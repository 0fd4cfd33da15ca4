"""Boundary shrink: the step of the authors' code, and the fields that decide a stored result."""

import pytest
import torch
from torch import Tensor, nn

from data.component import identity_of
from data.errors import UserError
from data.split import Batch, Pixels
from methods.boundary_shrink import stepped
from tests.conftest import plan_of

# The constants of the authors' FGSM, and those of their loader for CIFAR-10.
MEAN, STD, LOADER = (0.4914, 0.4822, 0.2265), (0.2023, 0.1994, 0.2010), 0.5


def grey() -> tuple[nn.Module, Batch, Pixels]:
    """A linear model, and images of dark, middle and bright pixels under the authors' normalisation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    pixels = Pixels((LOADER,) * 3, (LOADER,) * 3)
    raw = torch.tensor([0, 128, 255, 90], dtype=torch.uint8).view(1, 1, 2, 2).expand(2, 3, 2, 2)
    return model, Batch(pixels.normalise(raw), torch.tensor([0, 2]), torch.tensor([0, 1])), pixels


def authors_step(model: nn.Module, batch: Batch) -> Tensor:
    """Their FGSM without its rounding: x' = normalise(clamp(unnormalise(x) + 0.1·sign, 0, 1))."""
    images = batch.images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(images), batch.labels)
    (slope,) = torch.autograd.grad(loss, images)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    moved = batch.images * std + mean + 0.1 * slope.sign()
    return (moved.clamp(0, 1) - mean) / std


def test_the_authors_step_is_a_quarter_of_the_pixel_range_and_leaves_it() -> None:
    model, batch, pixels = grey()
    theirs = (authors_step(model, batch) - batch.images) * LOADER
    assert theirs.abs().amax((0, 2, 3)).mean().item() == pytest.approx(0.249, abs=5e-4)
    ours = stepped(model, batch, pixels, 0.25, False, clamp=False)
    step = (ours - batch.images) * LOADER
    # Their third mean is 0.2265, so that their clamp reaches the darkest pixels of that channel.
    assert torch.allclose(step[:, :2], theirs[:, :2], atol=0.003)
    shown = ours * LOADER + LOADER
    assert shown.min() < -0.2 and shown.max() > 1.2


def test_the_default_clamps_and_is_in_no_identity() -> None:
    model, batch, pixels = grey()
    shown = stepped(model, batch, pixels, 0.25, False) * LOADER + LOADER
    assert shown.min() >= -1e-6 and shown.max() <= 1 + 1e-6
    plain, free = (plan_of("method=boundary_shrink", f"method.clamp={c}") for c in ("true", "false"))
    assert "clamp" not in identity_of(plain.method) and plain.key != free.key


def test_epochs_without_penalty_are_at_most_the_epochs() -> None:
    with pytest.raises(UserError, match=r"method\.free_epochs=11: it must be at most method\.epochs"):
        plan_of("method=l1_sparse", "method.free_epochs=11")
