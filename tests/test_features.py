"""Features: the inputs of the last linear layer, on the same rows for every model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.sources import Source
from data.split import Dataset
from models.precision import autocast
from runner.plan import Plan, identities
from runner.stages.features import HeadInputs
from runner.stages.sample import sample
from runner.store import Artefact, fingerprint
from tests.conftest import Stages, plan_of, stages_of, weights_in

Quick = Callable[..., Plan]

MODELS = {
    "small_cnn": ["model.widths=[4,8]", "model.hidden=16"],
    "resnet18": ["model.stem=cifar"],
    "vit": ["model.dim=24", "model.depth=2", "model.heads=3"],
    "vit_b_16": ["model.dim=24", "model.depth=1", "model.heads=3", "model.input_size=32"],
}
HEADS = {"small_cnn": "8", "resnet18": "fc", "vit": "head", "vit_b_16": "model.head"}


@pytest.mark.parametrize("model", MODELS)
def test_features_times_the_heads_weights_plus_its_bias_are_the_logits(
    tmp_path: Path, model: str
) -> None:
    plan = plan_of(
        f"model={model}", *MODELS[model], "training.epochs=0", "training.batch_size=20",
        "training.warmup=0", "training.precision=fp32", "method=original", "evaluation=quick",
        "data.limit=4", "threads=1", f"paths.root={tmp_path}",
    )  # fmt: skip
    stages = stages_of(plan)
    original = stages.pretrain()
    features, predictions = stages.features(original), stages.predictions(original)
    assert features is not None
    assert set(features) == {"train_forget", "train_retain", "test_forget", "test_retain"}
    for part in ("train_forget", "test_forget", "test_retain"):
        assert features[part].dtype == torch.float32
        found = F.linear(features[part], *head_of(original, HEADS[model]))
        assert torch.allclose(found, predictions.logits[part], atol=1e-5)


def head_of(made: Artefact, name: str = "8") -> tuple[Tensor, Tensor]:
    """Return the weight and the bias of the last linear layer, by default of `small_cnn`."""
    weights = weights_in(made)
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def test_features_in_bf16_are_those_of_the_predictions(quick: Quick) -> None:
    stages = stages_of(quick("training.precision=bf16"))
    original = stages.pretrain()
    features, predictions = stages.features(original), stages.predictions(original)
    assert features is not None and features["test_retain"].dtype == torch.float32
    with autocast(True, torch.device("cpu")):
        logits = F.linear(features["test_retain"], *head_of(original)).float()
    assert torch.equal(logits, predictions.logits["test_retain"])


def test_as_many_retained_rows_as_forgotten_ones_have_features(quick: Quick) -> None:
    features = original_features(quick("scenario.classes=[3,4]"))
    sizes = {part: len(each) for part, each in features.items()}
    assert sizes == {"train_forget": 40, "train_retain": 40, "test_forget": 40, "test_retain": 160}
    few = original_features(quick("scenario.classes=[0,1,2,3,4,5]"))
    assert len(few["train_forget"]) == 120 and len(few["train_retain"]) == 80


def test_a_request_that_names_no_kind_has_no_test_rows_to_forget(quick: Quick) -> None:
    features = original_features(quick("scenario=random", "scenario.count=30"))
    sizes = {part: len(each) for part, each in features.items()}
    assert sizes == {"train_forget": 30, "train_retain": 30, "test_retain": 200}


def original_features(plan: Plan) -> Mapping[str, Tensor]:
    """Return the features of a plan's original."""
    stages = stages_of(plan)
    found = stages.features(stages.pretrain())
    assert found is not None
    return found


def test_all_models_of_a_request_have_features_on_the_same_rows(quick: Quick) -> None:
    """The original, the unlearned model and the original of another seed."""
    stages, other = stages_of(quick()), stages_of(quick("seed=1"))
    original = stages.pretrain()
    wanted = drawn_rows(stages, original)
    assert len(wanted) == 20 and len(set(wanted)) == 20
    assert drawn_rows(stages, stages.unlearn(original)) == wanted
    assert drawn_rows(other, other.pretrain()) == wanted


def drawn_rows(stages: Stages, made: Artefact) -> list[int]:
    """Return the positions in `train_retain` of the rows with features, found by their logits."""
    features = stages.features(made)
    assert features is not None
    logits = F.linear(features["train_retain"], *head_of(made))
    # (rows, all retained rows), without the matrix product, which loses digits
    mode = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(logits, stages.predictions(made).logits["train_retain"], compute_mode=mode)
    assert (distances.min(1).values < 1e-4).all()
    found: list[int] = distances.argmin(1).tolist()
    return found


def test_stored_features_need_no_data(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = stages_of(quick())
    first = stages.features(stages.pretrain())
    again = stages_of(without_data(quick(), monkeypatch))
    second = again.features(again.pretrain())
    assert first is not None and second is not None and set(first) == set(second)
    assert all(torch.equal(first[part], second[part]) for part in first)


def without_data(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return the plan, whose data cannot be loaded any more."""

    def load(source: Source, *options: Any) -> Dataset:
        raise AssertionError("the data are loaded")

    monkeypatch.setattr(type(plan.source), "load", load)
    return plan


def test_an_ensemble_has_no_features(quick: Quick) -> None:
    """Its outputs are those of no linear layer."""
    plan = quick("method=sisa", "method.shards=2", "method.slices=1", "training.batch_size=10")
    stages = stages_of(plan)
    ensemble = stages.unlearn(stages.pretrain())
    for _ in range(2):  # made, and read
        assert stages.features(ensemble, plan.method) is None


def test_the_head_is_the_last_linear_layer_that_is_called_wherever_it_is_defined() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 3)
            self.body = nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.body(images))
            return logits

    model, x = Backwards(), torch.randn(5, 4)
    with HeadInputs(model) as found:
        model(x)
    model(x)  # watched no longer
    (inputs,) = found.inputs
    assert torch.equal(inputs, model.body(x))
    with HeadInputs(model.head) as alone:  # a model that is a linear layer
        model.head(inputs)
    assert torch.equal(alone.inputs[0], inputs)
    with HeadInputs(nn.Sequential(model, nn.Softmax(1))) as found:
        nn.Sequential(model, nn.Softmax(1))(x)
    assert not found.inputs


def test_a_sample_is_fixed_and_keeps_the_order_of_the_rows(digits: Dataset) -> None:
    found = sample(digits.train, 256, "x").rows
    assert len(found) == 256 and torch.equal(found, found.unique())  # ascending, all different
    assert torch.equal(found, sample(digits.train, 256, "x").rows)
    assert not torch.equal(found, sample(digits.train, 256, "y").rows)
    assert torch.equal(sample(digits.train, 10**6, "x").rows, digits.train.rows)


def test_the_key_changes_on_purpose_only() -> None:
    """If it changes, raise the version of the stage, and then change it here."""
    identity = identities.features(plan_of(), "0" * 64, {"train": "a", "test": "b"})
    assert fingerprint(identity) == "c6d38e9c77e1e4f1"
