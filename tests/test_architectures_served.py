"""Methods work on every model of conf/model, in both precisions."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from methods.base import Method
from tests.conftest import (
    METHODS,
    batch_sizes,
    needs_record,
    needs_scenario,
    options,
    plan_of,
    stages_of,
    unlearned_of,
)
from tests.recording import tracking_only

# Every model of conf/model, as small as it gets; the other stem would leave one pixel of an 8×8 image.
SMALLER = {
    "small_cnn": ["model.widths=[4,8]"],
    "resnet18": ["model.stem=cifar"],
    "resnet50": ["model.stem=cifar"],
    "vit": ["model.dim=24", "model.depth=1"],
    "vit_b_16": ["model.dim=24", "model.depth=1", "model.heads=3", "model.input_size=32"],
    "vit_l_16": ["model.dim=32", "model.depth=2", "model.heads=2", "model.input_size=32"],
}

# Every method works on one model of each family: plain, residual with GroupNorm, attention.
EVERY_METHOD = [
    ("small_cnn", "fp32"),
    ("small_cnn", "bf16"),
    ("resnet18", "fp32"),
    ("vit", "fp32"),
    ("vit", "bf16"),
]

# The other models repeat these layers, deeper or wider, and have millions of weights, or, in bf16, run
# a CPU's slow kernels. Eight methods touch each part of a model in which another one could fail: a new
# method that does nothing else to a model needs no entry here.
REPRESENTATIVES = [
    "finetune",  # the training loop: forward, backward, optimizer
    "ssd",  # per-sample gradients of every layer, by its rule
    "per_sample_amnesiac",  # a record of per-sample gradients during training
    "boundary_expand",  # the head, which gets an output more for a while
    "selective_finetune",  # masks on the head and on the hidden layer before it
    "exact_k",  # the last layers alone, randomly initialised
    "bad_teacher",  # distillation from the original and from a random model
    "forgetting_layers",  # the activity of the neurons before the head
]
LARGE = [
    (model, precision)
    for model in options("model")
    for precision in ("fp32", "bf16")
    if (model, precision) not in EVERY_METHOD
    # a bf16 step of these takes seconds on a CPU
    and (precision == "fp32" or model not in ("alexnet", "resnet50"))
]
CASES = [(*case, method) for case in EVERY_METHOD for method in METHODS]
CASES += [(*case, method) for case in LARGE for method in REPRESENTATIVES]


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of originals that all processes share: the large ones take seconds."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "originals"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.mark.parametrize(("model", "precision", "method"), CASES)
def test_a_method_works_on_a_model_in_a_precision(
    tmp_path: Path, originals: Path, model: str, precision: str, method: str
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "pretrain").symlink_to(originals)
    quick = ["data.limit=4", "training.epochs=1", "training.batch_size=20", "training.warmup=0"]
    served = plan_of(
        f"method={method}", *quick, "threads=1", *needs_record(method), *needs_scenario(method),
        *tracking_only(method, "3"), f"paths.root={tmp_path}",
    )  # fmt: skip
    built = plan_of(f"model={model}", *SMALLER.get(model, []), *quick, f"training.precision={precision}")
    plan = replace(
        served,
        method=shortened(served.method),
        architecture=built.architecture,
        reference_architecture=built.reference_architecture,
        recipe=built.recipe,
    )
    unlearned_of(stages_of(plan))  # weights that are not finite would not be stored


# Numbers that multiply a method's work, and smaller ones.
FEWER = {
    "epochs": 1,
    "noisy_epochs": 1,
    "rounds": 1,
    "samples": 2,
    "noise_steps": 2,
    "noise_copies": 2,
    "shards": 2,
    "slices": 2,
}


def shortened(method: Method) -> Method:
    """Return the method with less work, in batches of 4, so that the part to forget fills one."""
    fewer = {name: value for name, value in FEWER.items() if hasattr(method, name)}
    return replace(method, **fewer, **dict.fromkeys(batch_sizes(method), 4))  # type: ignore[type-var]
