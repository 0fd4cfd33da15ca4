"""The stages of a run. Each returns its artefact from the store, making it if it is absent.

`pipeline.run` calls them in order. A stage takes the workspace of the run, the request, and the
artefacts that it starts from.
"""

from runner.stages.cell import cell_request, retrained_member, shadows, unlearned_member
from runner.stages.corrupted import alignment, attacked
from runner.stages.curve import Curve, batches_per_epoch, curve
from runner.stages.features import features
from runner.stages.models import weights_of
from runner.stages.predict import logits_of, predictions
from runner.stages.pretrain import pretrain, record, record_cost
from runner.stages.public import make_public
from runner.stages.random_model import random_predictions
from runner.stages.references import other_references
from runner.stages.request import request
from runner.stages.unlearn import initial_training, reference, repair, unlearn
from runner.stages.workspace import Workspace, cost_of, curves_of, remarks_of

__all__ = [
    "Curve",
    "Workspace",
    "alignment",
    "attacked",
    "batches_per_epoch",
    "cell_request",
    "cost_of",
    "curve",
    "curves_of",
    "features",
    "initial_training",
    "logits_of",
    "make_public",
    "other_references",
    "predictions",
    "pretrain",
    "random_predictions",
    "record",
    "record_cost",
    "reference",
    "remarks_of",
    "repair",
    "request",
    "retrained_member",
    "shadows",
    "unlearn",
    "unlearned_member",
    "weights_of",
]
