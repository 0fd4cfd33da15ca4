"""Architectures: sizes, independence of samples, weights from files."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from data.errors import UserError
from models.architecture import Architecture
from tests.conftest import options, plan_of

# Smaller images, and the same layers, for models that would take seconds to build and run.
SMALLER = {
    "vit_b_16": ["model.input_size=32"],
    "vit_l_16": ["model.input_size=32"],
    "resnet50": [],
}


def architecture(name: str, *overrides: str) -> Architecture:
    return plan_of(f"model={name}", *SMALLER.get(name, []), *overrides).architecture


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_small_cnn_has_its_1199882_parameters_on_mnist() -> None:
    assert parameters(architecture("small_cnn").fresh(1, 28, 10, 0)) == 1_199_882


def test_resnet18_has_torchvisions_parameters() -> None:
    # 11,181,642: RECORDS.md's count for ten classes; GroupNorm has as many as BatchNorm
    assert parameters(architecture("resnet18").fresh(3, 32, 10, 0)) == 11_181_642


def test_the_cifar_stem_keeps_the_resolution() -> None:
    model = architecture("resnet18", "model.stem=cifar").fresh(3, 32, 10, 0)
    assert model.conv1(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 32, 32)
    assert isinstance(model.maxpool, nn.Identity)


@pytest.mark.parametrize("name", options("model"))
def test_no_model_couples_samples(name: str) -> None:
    """In training mode, a sample has the same logits whoever shares its batch."""
    model = architecture(name).fresh(3, 32, 10, 0).train()
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # drops per sample, but draws for the whole batch
    a, b, c = torch.randn(3, 1, 3, 32, 32).unbind()
    with torch.no_grad():
        beside_b, beside_c = model(torch.cat([a, b]))[0], model(torch.cat([a, c]))[0]
        other = model(torch.cat([b, a]))[0]
    assert torch.allclose(beside_b, beside_c, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(other, beside_b), "the model looks at its input"


@pytest.mark.parametrize("name", options("model"))
def test_every_model_takes_one_channel_images_of_any_size(name: str) -> None:
    model = architecture(name).fresh(1, 28, 7, 0).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 7)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "vit"])
def test_the_seed_alone_decides_the_initial_weights(name: str) -> None:
    torch.manual_seed(1)
    a = architecture(name).fresh(1, 8, 10, seed=5).state_dict()
    torch.manual_seed(2)
    b = architecture(name).fresh(1, 8, 10, seed=5).state_dict()
    c = architecture(name).fresh(1, 8, 10, seed=6).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def with_weights(path: Path) -> Architecture:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(architecture("small_cnn"), weights=str(path), sha256=digest)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_come_from_a_local_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    weights = architecture("small_cnn").fresh(1, 8, 10, 0).state_dict()
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    model = with_weights(path).fresh(1, 8, 10, seed=99)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_come_from_a_checkpoint_of_a_wrapped_model(
    tmp_path: Path, key: str, prefix: str
) -> None:
    weights = architecture("small_cnn").fresh(1, 8, 10, 0).state_dict()
    named = {f"{prefix}{name}": value for name, value in weights.items()}
    optimizer = {"state": {0: {"step": torch.tensor(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({key: named, "optimizer": optimizer, "extra": {}, "epoch": 3}, tmp_path / "whole.pt")
    torch.save(named, tmp_path / "plain.pt")
    for path in (tmp_path / "whole.pt", tmp_path / "plain.pt"):
        model = with_weights(path).fresh(1, 8, 10, seed=99)
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "it holds a list"),
        (torch.nn.Linear(1, 1), r"\(it holds Python objects, which may run code as they are loaded\)"),
        ({"epoch": 3}, "it holds no dictionaries of tensors"),
        ({}, "it holds no dictionaries of tensors"),
        ({"model": {"w": torch.ones(1)}, "ema": {"w": torch.ones(1)}}, "it holds 2 dictionaries"),
    ],
)
def test_a_checkpoint_without_one_state_dict_is_refused(
    tmp_path: Path, content: object, words: str
) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=rf"{words}.*: save the state dict of a model"):
        with_weights(tmp_path / "other.pt").fresh(1, 8, 10, 0)


def test_an_empty_file_of_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    with pytest.raises(UserError, match=r"state dict \(EOFError"):
        with_weights(tmp_path / "empty.pt").fresh(1, 8, 10, 0)


def test_weights_that_are_not_trained_on_have_no_retrained_reference(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(architecture("small_cnn").fresh(1, 8, 10, 0).state_dict(), path)
    given = [f"model.weights={path}", f"model.sha256={with_weights(path).sha256}", "training.epochs=0"]
    with pytest.raises(UserError, match="set evaluation=quick, or train with"):
        plan_of(*given)
    assert plan_of(*given, "evaluation=quick").reference is None


@pytest.mark.parametrize("names", ["of its modules", "of its files"])
def test_torchvisions_weights_are_the_same_function(tmp_path: Path, names: str) -> None:
    theirs = VisionTransformer(
        32, 16, num_layers=2, num_heads=4, hidden_dim=24, mlp_dim=96, num_classes=10
    )
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    weights = theirs.state_dict()
    if names == "of its files":  # the names in vit_b_16-c867db91.pth
        hidden = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
        for new, old in hidden.items():
            weights = {name.replace(new, old): value for name, value in weights.items()}
    path = tmp_path / "theirs.safetensors"
    save_file(weights, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    ours = architecture(
        "vit_b_16", "model.dim=24", "model.depth=2", "model.heads=4",
        f"model.weights={path}", f"model.sha256={digest}",
    ).fresh(3, 32, 10, 0)  # fmt: skip
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_hugging_faces_weights_are_the_same_function(tmp_path: Path) -> None:
    """Its file has queries, keys and values apart, under names of its own, and a pooler."""
    shape = ["model.input_size=32", "model.dim=24", "model.depth=2", "model.heads=4"]
    ours = architecture("vit_b_16", *shape).fresh(3, 32, 10, 0)
    theirs = {"vit.pooler.dense.weight": torch.zeros(24, 24)}
    for name, value in ours.state_dict().items():
        if ".qkv." in name:
            before, after = name.removeprefix("model.").split(".qkv.")
            block = before.replace("blocks.", "vit.encoder.layer.")
            for part, own in zip(("query", "key", "value"), value.chunk(3), strict=True):
                theirs[f"{block}.attention.attention.{part}.{after}"] = own.clone()
        else:
            theirs[hugging_faces(name.removeprefix("model."))] = value
    path = tmp_path / "model.safetensors"
    save_file(theirs, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    given = [f"model.weights={path}", f"model.sha256={digest}"]
    found = architecture("vit_b_16", *shape, *given).fresh(3, 32, 10, seed=9).state_dict()
    assert all(torch.equal(found[name], value) for name, value in ours.state_dict().items())


def hugging_faces(name: str) -> str:
    """Return the name of a parameter in google/vit-base-patch16-224, given ours."""
    whole = {
        "class_token.token": "vit.embeddings.cls_token",
        "positions.table": "vit.embeddings.position_embeddings",
        "norm.weight": "vit.layernorm.weight",
        "norm.bias": "vit.layernorm.bias",
    }
    if name in whole:
        return whole[name]
    for own, theirs in {
        "embed.": "vit.embeddings.patch_embeddings.projection.",
        "blocks.": "vit.encoder.layer.",
        ".norm1.": ".layernorm_before.",
        ".norm2.": ".layernorm_after.",
        ".out.": ".attention.output.dense.",
        ".mlp.0.": ".intermediate.dense.",
        ".mlp.2.": ".output.dense.",
        "head.": "classifier.",
    }.items():
        name = name.replace(own, theirs)
    return name


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(architecture("small_cnn", "model.hidden=16").fresh(1, 8, 10, 0).state_dict(), path)
    with pytest.raises(UserError, match=r"6\.bias is \(16,\) in the file and \(128,\) in the model"):
        with_weights(path).fresh(1, 8, 10, 0)


def test_weights_for_other_classes_leave_the_head_as_initialised(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    theirs = architecture("small_cnn").fresh(1, 8, 10, 0).state_dict()
    random = architecture("small_cnn").fresh(1, 8, 20, 7).state_dict()
    for kept in (theirs, {name: value for name, value in theirs.items() if not name.startswith("8.")}):
        save_file(kept, path)
        found = with_weights(path).fresh(1, 8, 20, seed=7).state_dict()
        head = {"8.weight", "8.bias"}
        assert all(torch.equal(found[name], random[name]) for name in head)
        assert all(torch.equal(found[name], theirs[name]) for name in theirs.keys() - head)


def test_the_stored_weights_of_a_resized_model_load_again(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    resized = architecture("small_cnn", "model.input_size=12")
    weights = resized.fresh(1, 8, 10, 0).state_dict()
    save_file(weights, path)
    given = replace(with_weights(path), input_size=12).fresh(1, 8, 10, 9).state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in given.items())


def test_weights_with_another_checksum_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(architecture("small_cnn").fresh(1, 8, 10, 0).state_dict(), path)
    with pytest.raises(UserError, match=r"has sha256 .* set model\.sha256"):
        plan_of(f"model.weights={path}", "model.sha256=0123")
    with pytest.raises(UserError, match=r"but model\.sha256 is not set: set model\.sha256 to it"):
        plan_of(f"model.weights={path}")
    with pytest.raises(UserError, match="does not exist: fetch the file and put it there, or correct"):
        plan_of("model.weights=nowhere.pt")


@pytest.mark.parametrize("name", ["junk.safetensors", "junk.pt"])
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"no weights at all")
    with pytest.raises(UserError, match="is no safetensors or state dict"):
        with_weights(path).fresh(1, 8, 10, 0)


def test_weights_are_known_by_their_content(tmp_path: Path) -> None:
    one = tmp_path / "one.safetensors"
    save_file(architecture("small_cnn").fresh(1, 8, 10, 0).state_dict(), one)
    two = tmp_path / "two.safetensors"
    two.write_bytes(one.read_bytes())
    assert with_weights(one).identity() == with_weights(two).identity()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=vit", "model.patch=5"], "does not divide the image size"),
        (["model=resnet18", "model.groups=7"], "must divide the 64 channels"),
        (["model=alexnet", "model.input_size=null"], "needs 63 pixels"),
        (["model=vit_b_16", "model.input_size=50"], "does not divide the image size"),
        (["model=vit", "model.heads=5"], "does not divide model.dim=192"),
        (["model.widths=[32]"], "model.widths=[32]: give 2 numbers"),
        (["model=vit", "model.patch=0"], "model.patch=0: it must be at least 1"),
        (["model=resnet18", "model.groups=0"], "model.groups=0: it must be at least 1"),
        (["model.input_size=99999999999999999999"], "it must be at least 1 and at most 65,536"),
        (["model.hidden=99999999999999999999"], "it must be at least 1 and at most 65,536"),
        (["model.widths=[4,99999999999999999999]"], "it must be at least 1 and at most 65,536"),
        # beyond the memory of any machine, and beyond the bytes that torch can count
        (["model.input_size=65536", "model.hidden=65536"], "check model.*"),
        (
            ["model.input_size=65536", "model.hidden=65536", "model.widths=[65536,65536]"],
            "check model.*",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(*overrides).architecture.fresh(3, 32, 10, 0)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@dataclass(frozen=True)
class Own(Architecture):
    """A user's network of one layer."""

    layer: nn.Module

    def build(self, channels: int, size: int, classes: int) -> nn.Module:
        return self.layer


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Linear(8, 9), r"shape \(1, 1, 8, 9\): it must be \(1, 10\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 9)), r"shape \(1, 9\): it must be \(1, 10\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 11)), r"shape \(1, 11\): it must be \(1, 10\)"),
        (nn.Linear(64, 10), r"fails on an image of shape \(1, 1, 8, 8\) .*: check model"),
        (Pair(), "a model that returns a tensor, and returned a value of type tuple"),
    ],
)
def test_a_model_without_a_logit_for_each_class_is_refused(layer: nn.Module, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Own(None, None, None, layer).fresh(1, 8, 10, seed=0)


def two_layers(**others: nn.Module) -> nn.Module:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Linear(10, 10))
    for name, layer in others.items():
        layers[1].add_module(name, layer)
    return layers


def shared() -> nn.Module:
    layers = two_layers()
    layers[1].add_module("other", nn.Linear(10, 10))
    layers[1].other.bias = layers[2].bias
    return layers


def frozen() -> nn.Module:
    layers = two_layers()
    layers[1].requires_grad_(False)
    return layers


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (shared(), r"shared weights \(1.other.bias, 2.bias\), .*: give each layer its own"),
        (frozen(), r"frozen weights \(1.weight, 1.bias\), .*: train all weights"),
        (
            two_layers(spare=nn.Linear(3, 3)),
            r"unused weights \(1.spare.weight, .*: remove",
        ),
    ],
)
def test_a_model_whose_weights_are_not_all_trained_is_refused(layers: nn.Module, words: str) -> None:
    """A record or a method would miss them, some only after the training."""
    with pytest.raises(UserError, match=words):
        Own(None, None, None, layers).fresh(1, 8, 10, seed=0)


@pytest.mark.parametrize(
    ("layer", "names"),
    [(nn.LazyLinear(10), "1.weight, 1.bias"), (nn.LazyBatchNorm1d(affine=False), "1.running_mean, .*")],
)
def test_a_model_whose_weights_wait_for_an_image_is_refused(layer: nn.Module, names: str) -> None:
    """The global generator would draw them after the seed of the run is gone."""
    with pytest.raises(
        UserError, match=rf"by no seed \({names}\): give each layer its number of inputs"
    ):
        Own(None, None, None, nn.Sequential(nn.Flatten(), layer)).fresh(1, 8, 10, seed=0)


def test_trying_a_model_leaves_it_as_it_was() -> None:
    """Its running means, its mode and that of frozen layers, and the global generator."""
    frozen = nn.BatchNorm2d(1).eval()
    layer = nn.Sequential(frozen, nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 10))
    before = torch.get_rng_state()
    found = Own(None, None, None, layer).fresh(1, 8, 10, seed=0)
    assert [module.training for module in found.children()] == [False, True, True, True, True]
    assert found.state_dict()["1.num_batches_tracked"] == 0
    assert torch.equal(before, torch.get_rng_state())
