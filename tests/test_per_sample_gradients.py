"""Per-sample gradients from factors, against torch.func.vmap(grad) for every layer and model."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from data.errors import UserError
from methods.weights.per_sample_gradients import RULES, Capture, Factors
from tests.conftest import options, plan_of


def reference(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return each sample's gradient of its share of the mean loss, (B, *shape)."""

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (image[None],)), label[None])

    parameters = {name: value.detach() for name, value in model.named_parameters()}
    each = vmap(grad(loss), (None, 0, 0))(parameters, images, labels)
    return {name: value / len(images) for name, value in each.items()}


def factored(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, list[Factors]]:
    with Capture(model) as capture:
        F.cross_entropy(model(images), labels).backward()
        return capture.take()


def assert_same(model: nn.Module, images: Tensor, labels: Tensor, subset: Tensor) -> None:
    """Assert each sample's gradient, their sum over a subset, and their sum over the batch (`.grad`).

    In float64, because rounding in float32 moves some inputs of ReLUs across zero, which changes a
    gradient of a ResNet-50 by up to 2e-3.
    """
    model, images = model.double(), images.double()
    wanted, found = reference(model, images, labels), factored(model, images, labels)
    for layer_name, layer in Capture(model).layers.items():
        rule, uses = RULES[type(layer)], found[layer_name]
        for name, parameter in layer.named_parameters(recurse=False):
            full = f"{layer_name}.{name}" if layer_name else name
            each = sum((rule.each(layer, use)[name] for use in uses), torch.zeros(()).double())
            assert parameter.grad is not None
            assert distance(each, wanted[full]) < 1e-10, full
            assert distance(each.sum(0), parameter.grad) < 1e-10, full
            if rule.total is not None:
                parts = [Factors(use.a[subset], use.b[subset]) for use in uses]
                total = sum((rule.total(layer, part)[name] for part in parts), torch.zeros(()).double())
                assert distance(total, each[subset].sum(0)) < 1e-10, full


def distance(found: Tensor, wanted: Tensor) -> float:
    """Return the distance of two tensors relative to the norm of the second."""
    assert found.shape == wanted.shape
    return ((found - wanted).norm() / (wanted.norm() + 1e-12)).item()


@settings(max_examples=30, deadline=None)
@given(
    groups=st.sampled_from([1, 2]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    side=st.integers(1, 9),
    chosen=st.lists(st.integers(0, 4), min_size=1, unique=True),
)
def test_convolutions_of_any_shape(
    groups: int, kernel: int, stride: int, padding: int, dilation: int, bias: bool, side: int,
    chosen: list[int],
) -> None:  # fmt: skip
    assume(side + 2 * padding > dilation * (kernel - 1))  # the kernel fits into the padded map
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups, bias)
    model = nn.Sequential(conv, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert_same(
        model, torch.randn(5, 2, side, side), torch.tensor([0, 1, 2, 3, 0]), torch.tensor(chosen)
    )


class Twice(nn.Module):
    """A linear layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """A residual block whose sum changes the last layer's output in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.conv(x))
        out += x
        return F.relu_(out).mean((2, 3))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2)),
        (nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Flatten(), nn.Linear(12, 6)), (3, 6)),
        (Twice(), (6,)),
        (Residual(), (4, 5, 5)),
    ],
    ids=["linear", "tokens", "tied", "residual"],
)
def test_layers(model: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    assert_same(model, torch.randn(5, *shape), torch.tensor([0, 1, 2, 3, 0]), torch.tensor([4, 1]))


# Fewer layers of the same kinds, to save seconds.
LARGE = ["model.input_size=32", "model.depth=2", "model.dim=64", "model.heads=4"]
SMALLER = {"vit": ["model.depth=2"], "vit_b_16": LARGE, "vit_l_16": LARGE}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("resnet18", ["model.stem=cifar"]), *((name, SMALLER.get(name, [])) for name in options("model"))],
)
def test_every_model(name: str, overrides: list[str]) -> None:
    model = plan_of(f"model={name}", *overrides).architecture.fresh(3, 32, 10, 0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    torch.manual_seed(0)
    assert_same(model, torch.randn(3, 3, 32, 32), torch.tensor([1, 5, 9]), torch.tensor([0, 2]))


def test_batch_norm_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="1 is a BatchNorm, which couples samples: use GroupNorm"):
        Capture(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))
    with pytest.raises(UserError, match="1 is a BatchNorm"):
        Capture(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, affine=False)))


def test_a_parameter_of_two_layers_is_refused() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(UserError, match="two layers share a parameter"):
        Capture(tied)


def test_a_layer_without_a_rule_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="the model is a MultiheadAttention, whose per-sample gradients"):
        Capture(nn.MultiheadAttention(8, 2))
    with pytest.raises(UserError, match="0 is a Conv2d"):
        Capture(nn.Sequential(nn.Conv2d(1, 1, 3, padding="same")))


def test_an_input_that_is_changed_later_is_noticed() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    x = torch.randn(3, 4)
    with Capture(model) as capture:
        loss = model(x).sum()
        loss.backward()
        x += 1
        with pytest.raises(UserError, match="the input of 0 was changed in place"):
            capture.take()
