"""The public checkpoint: an original of another data set, at which the run's trainings begin.

It is the artefact that a run of that data set, with this recipe and seed, would pretrain.
"""

import torch

from data.requests import Request
from runner.stages.pretrain import pretrain
from runner.stages.workspace import Workspace


def make_public(ws: Workspace) -> None:
    """Make the checkpoint if the run begins at one and it is not stored. Its curves are not tracked."""
    if ws.plan.public is not None:
        none = torch.empty(0, dtype=torch.int64)
        pretrain(Workspace(ws.plan.public, ws.store, used=ws.used), Request(none, none))
