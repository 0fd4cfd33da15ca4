"""Shares of the forgotten training rows that a classifier of one number calls trained on, or not.

Each classifier is fitted on retained training rows (members) and on test rows (others). It then sees the
rows to forget.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.predictions import Predictions
from metrics.statistics.roc import resolved

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

Numbers = NDArray[np.float64]


def loss_share(predictions: Predictions) -> float | None:
    """Return the share of `train_forget` that a logistic regression on the loss calls members.

    It is fitted on `train_retain` (1) and `test_retain` (0), with C = 1, on the loss in units of their
    standard deviation, and both sides have the same weight (`mia_loss`). None if one of the
    three parts is missing, if a loss is not finite, or if the losses it is fitted on are all equal,
    apart from rounding.
    """
    return predictions.once(
        "loss share", lambda: _logistic_share(predictions, lambda part: -predictions.own_logprobs(part))
    )


def entropy_share(predictions: Predictions) -> float | None:
    """Return what `loss_share` does, with the entropy in place of the loss."""
    return _logistic_share(predictions, lambda part: entropies(predictions, part))


def entropies(predictions: Predictions, part: str) -> Tensor:
    """Return H = −Σ_k p_k ln p_k of every row, (N,) float64, in nats."""
    logprobs = predictions.logprobs(part)
    # p_k is exactly 0 below ln p_k = −746, and 0·ln 0 = 0 for logits of −∞
    return -(logprobs.exp() * logprobs.clamp_min(-1000)).sum(1)


def _logistic_share(predictions: Predictions, number: Callable[[str], Tensor]) -> float | None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = _of_parts(predictions, number, "test_retain")
    if found is None:
        return None
    # numbers that are equal but for rounding leave nothing to divide the two sides by
    fitted = resolved(torch.from_numpy(np.concatenate(found[1:])))
    if fitted.min() == fitted.max():
        return None
    # at the default tolerance of 1e-4, a few large losses move the threshold between the others
    regression = LogisticRegression(C=1, class_weight="balanced", tol=1e-8)
    return _called_members(make_pipeline(StandardScaler(), regression), *found)


def svc_share(predictions: Predictions) -> float | None:
    """Return the share of `train_forget` that a support vector machine calls non-members.

    It is fitted on p_y of the first |T| rows of `train_retain` (1) and of T (0), with C = 3 and a radial
    kernel with γ = 1. T is `test_retain`: the test rows without forgotten classes. This is the attack
    of SalUn (evaluation/SVC_MIA.py). None if one of the parts is missing, if a probability is not
    finite, or if fewer than |T| rows are retained.

    Time is quadratic in |T|: about ten seconds for 10,000 rows.
    """
    return predictions.once("svc share", lambda: _svc_share(predictions))


def _svc_share(predictions: Predictions) -> float | None:
    from sklearn.svm import SVC

    shares = _of_parts(predictions, lambda part: predictions.own_logprobs(part).exp(), "test_retain")
    if shares is None or len(shares[1]) < len(shares[2]):
        return None
    forget, members, others = shares
    attack = SVC(C=3, kernel="rbf", gamma="auto")  # auto: γ = 1 / number of features
    return 1 - _called_members(attack, forget, members[: len(others)], others)


def official_entropy_share(predictions: Predictions, attack: "ClassifierMixin") -> float | None:
    """Return the share of `train_forget` that an unfitted classifier calls members by their entropy.

    It is fitted on `train_retain` (1) and on the whole test set (0), which holds the forgotten classes.
    The entropy is that of a softmax in float32, as in the code of Chundawat et al. 2023 (`metrics.py`),
    where a probability that underflows counts as 0. None if a part is missing or an entropy is not
    finite.
    """

    def entropy(part: str) -> Tensor:
        p = predictions.logits[part].float().softmax(1)
        return -torch.xlogy(p, p).sum(1)  # 0·ln 0 = 0

    found = _of_parts(predictions, entropy, "test")
    return None if found is None else _called_members(attack, *found)


def _of_parts(
    predictions: Predictions, number: Callable[[str], Tensor], others: str
) -> list[Numbers] | None:
    """Return one number per row of the rows to forget, of the members and of the part of others.

    None if a part has no rows, or a number is not finite.
    """
    parts = ("train_forget", "train_retain", others)
    if any(part not in predictions.logits for part in parts):
        return None
    found = [number(part).double().numpy() for part in parts]
    return found if all(np.isfinite(values).all() for values in found) else None


def _called_members(
    attack: "ClassifierMixin", forget: Numbers, members: Numbers, others: Numbers
) -> float:
    """Fit a classifier on members (1) and others (0), and return the share of `forget` it calls 1."""
    labels = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    attack.fit(np.concatenate([members, others])[:, None], labels)
    return float(attack.predict(forget[:, None]).mean())
