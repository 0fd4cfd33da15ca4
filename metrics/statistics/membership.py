"""Shares of the forgotten training rows that a classifier of one number calls trained on, or not.

Each classifier is fitted on retained training rows (members) and on retained test rows (others). It
then sees the rows to forget.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metrics.predictions import Predictions

Numbers = NDArray[np.float64]


def loss_share(predictions: Predictions) -> float | None:
    """Return the share of `train_forget` that a logistic regression on the loss calls members.

    It is fitted on `train_retain` (1) and `test_retain` (0), with C = 1, on the loss in units of their
    standard deviation, and both sides have the same weight (`mia_loss`). None if one of the
    three parts is missing, if a loss is not finite, or if the losses it is fitted on are all equal.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    losses = _of_parts(predictions, lambda part: -predictions.own_logprobs(part))
    if losses is None:
        return None
    forget, members, others = losses
    # equal losses leave nothing to divide the two sides by
    if np.ptp(np.concatenate([members, others])) == 0:
        return None
    attack = make_pipeline(StandardScaler(), LogisticRegression(C=1, class_weight="balanced"))
    attack.fit(*_calibration(members, others))
    return float(attack.predict(forget[:, None]).mean())


def svc_share(predictions: Predictions) -> float | None:
    """Return the share of `train_forget` that a support vector machine calls non-members.

    It is fitted on p_y of the first |T| rows of `train_retain` (1) and of T (0), with C = 3 and a radial
    kernel with γ = 1. T is `test_retain`: the test rows without forgotten classes. This is the attack
    of SalUn (evaluation/SVC_MIA.py). None if one of the parts is missing, if a probability is not
    finite, or if fewer than |T| rows are retained.

    Time is quadratic in |T|: about ten seconds for 10,000 rows.
    """
    from sklearn.svm import SVC

    shares = _of_parts(predictions, lambda part: predictions.own_logprobs(part).exp())
    if shares is None or len(shares[1]) < len(shares[2]):
        return None
    forget, members, others = shares
    attack = SVC(C=3, kernel="rbf", gamma="auto")  # auto: γ = 1 / number of features
    attack.fit(*_calibration(members[: len(others)], others))
    return float(1 - attack.predict(forget[:, None]).mean())


def _of_parts(predictions: Predictions, number: Callable[[str], Tensor]) -> list[Numbers] | None:
    """Return one number per row of the rows to forget, of the members and of the others.

    None if a part has no rows, or a number is not finite.
    """
    parts = ("train_forget", "train_retain", "test_retain")
    if any(part not in predictions.logits for part in parts):
        return None
    found = [number(part).numpy() for part in parts]
    return found if all(np.isfinite(values).all() for values in found) else None


def _calibration(members: Numbers, others: Numbers) -> tuple[Numbers, Numbers]:
    """Return the rows a classifier is fitted on, (n, 1), and 1 for members and 0 for others, (n,)."""
    labels = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    return np.concatenate([members, others])[:, None], labels
