"""Every component of the configuration: it has its golden kind, no hidden number, and bounds."""

import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from inspect import get_annotations
from typing import Any, get_args, get_type_hints

import pytest
from hydra.utils import get_class

from data.bounds import bounds_of
from data.component import Component
from tests.conftest import CONF


def shipped() -> list[type[Component]]:
    """Return the components that any file of the configuration names."""
    files = (path.read_text() for path in CONF.rglob("*.yaml"))
    targets = {target for text in files for target in re.findall(r"_target_: ([\w.]+)", text)}
    classes = [get_class(target) for target in sorted(targets)]
    return [cls for cls in classes if issubclass(cls, Component)]


SHIPPED = shipped()
each = pytest.mark.parametrize("cls", SHIPPED, ids=lambda cls: cls.__qualname__)


def test_the_components_are_of_every_group() -> None:
    packages = {cls.__module__.split(".")[0] for cls in SHIPPED}
    assert packages == {"data", "methods", "metrics", "models", "runner"}


@each
def test_a_component_holds_no_number_of_its_own(cls: type[Component]) -> None:
    """Values live in YAML: a field that a file forgets is an error, not a hidden default."""
    for field in fields(cls):  # type: ignore[arg-type]
        assert field.default is field.default_factory is MISSING, field.name


@each
def test_every_number_of_a_component_has_bounds(cls: type[Component]) -> None:
    hints = get_type_hints(cls)
    numbers = {field.name for field in fields(cls) if {int, float} & set(types_in(hints[field.name]))}  # type: ignore[arg-type]
    assert numbers <= {name for name, _ in bounds_of(cls)}


def types_in(hint: Any) -> Iterator[Any]:
    """Yield a type and all types inside it, as in `list[int] | None`."""
    yield hint
    for argument in get_args(hint):
        yield from types_in(argument)


# Figures name no stored result.
KEYED = [cls for cls in SHIPPED if not cls.__module__.startswith("runner.")]


@pytest.mark.parametrize("cls", KEYED, ids=lambda cls: cls.__qualname__)
def test_a_component_declares_its_kind(cls: type[Component]) -> None:
    """A kind that follows from the module would change the keys of stored results when a file moves."""
    assert "kind" in get_annotations(cls), "declare kind: ClassVar[str] in its body"


def test_no_two_components_have_one_kind() -> None:
    assert len({cls.kind for cls in SHIPPED}) == len(SHIPPED)


def test_kinds_are_those_of_stored_results() -> None:
    """They are hashed into every key: a kind that changes, or goes, loses results. New ones may come."""
    assert not set(KINDS) - {cls.kind for cls in SHIPPED}


# Module and class of every component before files moved for the first time.
KINDS = [
    "data.requests.GivenRows",
    "data.requests.PartOfClass",
    "data.requests.Random",
    "data.requests.Relabel",
    "data.requests.WholeClass",
    "data.sources.CIFAR10",
    "data.sources.CIFAR100",
    "data.sources.CIFAR20",
    "data.sources.Digits",
    "data.sources.MNIST",
    "methods.amnesiac.Amnesiac",
    "methods.amnesiac_partial.AmnesiacPartial",
    "methods.assd.ASSD",
    "methods.bad_teacher.BadTeacher",
    "methods.boundary_expand.BoundaryExpand",
    "methods.boundary_shrink.BoundaryShrink",
    "methods.catastrophic_k.CatastrophicK",
    "methods.distillation_guided.DistillationGuided",
    "methods.distruction.DiStruction",
    "methods.dual_phase_ascent.DualPhaseAscent",
    "methods.exact_k.ExactK",
    "methods.finetune.Finetune",
    "methods.fisher_forgetting.FisherForgetting",
    "methods.forgetting_layers.ForgettingLayers",
    "methods.just_in_time.JustInTime",
    "methods.l1_sparse.L1Sparse",
    "methods.label_flip.LabelFlip",
    "methods.label_flip_partial.LabelFlipPartial",
    "methods.lfssd.LFSSD",
    "methods.negative_gradient.NegativeGradient",
    "methods.negative_gradient_partial.NegativeGradientPartial",
    "methods.negative_gradient_plus.NegativeGradientPlus",
    "methods.original.Original",
    "methods.per_sample_amnesiac.PerSampleAmnesiac",
    "methods.random_labels.RandomLabels",
    "methods.recorders.batch_updates.BatchUpdates",
    "methods.recorders.bayesian.Bayesian",
    "methods.recorders.checkpoints.Checkpoints",
    "methods.recorders.layerwise.Layerwise",
    "methods.recorders.per_sample.PerSample",
    "methods.repair.Repair",
    "methods.retrain.Retrain",
    "methods.reverse_kl.ReverseKL",
    "methods.salun.SalUn",
    "methods.scrub.Scrub",
    "methods.selective_finetune.SelectiveFinetune",
    "methods.sisa.Sisa",
    "methods.ssd.SSD",
    "methods.training.Recipe",
    "methods.uniform_labels.UniformLabels",
    "methods.unsir.Unsir",
    "metrics.accuracy.Accuracy",
    "metrics.accuracy.ClassAccuracy",
    "metrics.accuracy.Confusion",
    "metrics.accuracy.Loss",
    "models.small_cnn.SmallCNN",
    "models.torchvision_models.AlexNet",
    "models.torchvision_models.ResNet",
    "models.vit.ViT",
]
