"""Predictions of a model with random weights, which has learned nothing."""

from data.requests import Request
from metrics.predictions import Predictions
from runner.plan import identities
from runner.stages.models import randomly_initialised
from runner.stages.predict import Predicted, in_parts, stored
from runner.stages.workspace import Workspace

RANDOM = "random"


def random_predictions(ws: Workspace, request: Request) -> Predictions:
    """Return the logits of a model with random weights, one for each seed, by part of the request.

    Training rows are predicted only if the evaluation asks for them.
    """

    def found(split: str) -> Predicted:
        identity = identities.random(ws.plan, split)
        return stored(ws, RANDOM, identity, split, lambda: randomly_initialised(ws, ws.streams(RANDOM)))

    return in_parts(ws, request, found)
