"""Helpers of the tests of recorders."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.utils import parameters_to_vector

from methods.recording.leave_one_out import LeaveOneOut
from methods.recording.per_sample import SampleRecord
from methods.recording.recorder import RecordedTraining
from runner.stages.models import MODEL
from runner.store import Artefact
from tests.conftest import Stages, class_of

RECORD = ["recorder=[batch_updates]", "training.epochs=2"]
SAMPLES = ["recorder=[per_sample]", "training.epochs=2", "recorder.per_sample.dtype=fp32"]


def weights(stages: Stages, made: Artefact | None = None) -> torch.Tensor:
    """Return all parameters in the model's order: before training, or those of an artefact."""
    plan = stages.plan
    source, seed = plan.source, stages.streams("pretrain").number("init")
    model = plan.architecture.fresh(source.channels, source.size, source.classes, seed)
    if made is not None:
        model.load_state_dict(load_file(made.path / MODEL))
    return parameters_to_vector(model.parameters()).detach()


def training_of(stages: Stages, folder: Path) -> RecordedTraining:
    """Return the training that a recorder would be given, with digits' fresh model."""
    model = stages.plan.architecture.fresh(1, 8, 10, 0)
    train, recipe = stages.dataset.train, stages.plan.recipe
    return RecordedTraining(model, train, recipe, stages.streams("record"), folder)


def model_of(stages: Stages, made: Artefact) -> torch.nn.Module:
    """Return the model with an artefact's weights."""
    source = stages.plan.source
    model = stages.plan.architecture.fresh(source.channels, source.size, source.classes, 0)
    model.load_state_dict(load_file(made.path / MODEL))
    return model


def shares_of(stages: Stages, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what the record of per-sample gradients says that these rows have added, by parameter."""
    original = stages.pretrain()
    record = SampleRecord.open(stages.record("per_sample").path)
    return record.share(model_of(stages, original), rows)


def tracking_only(method: str, name: str) -> list[str]:
    """Return the override by which the record of a method tracks one class, if its cost is that of a
    model for every tracked row."""
    return (
        [f"recorder.leave_one_out.classes=[{name}]"] if class_of(method).records is LeaveOneOut else []
    )
