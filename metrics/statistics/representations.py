"""Classifiers and similarities of representations: the inputs of the last linear layer, (n, d).

A classifier tells forgotten kinds (1) from retained ones (0). It is fitted on `train_forget` and
`train_retain`, and looked at on `test_forget` and `test_retain`. Representations are given by part.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Numbers = NDArray[np.float64]
ByPart = Mapping[str, Tensor]

FITTED = ("train_forget", "train_retain")
HELDOUT = ("test_forget", "test_retain")


def comparable(features: ByPart) -> bool:
    """Return True if all four parts have rows, as in a request that names kinds, and are finite."""
    parts = (*FITTED, *HELDOUT)
    return all(part in features and bool(features[part].isfinite().all()) for part in parts)


def logistic_probe(features: ByPart) -> "Pipeline":
    """Return a logistic regression fitted on z-scored representations, C = 1, both sides balanced."""
    from sklearn.linear_model import LogisticRegression

    # 100 iterations, the default, are too few for hundreds of columns
    return _fitted(LogisticRegression(C=1, class_weight="balanced", max_iter=1000), features)


def neighbours(features: ByPart, k: int) -> "Pipeline":
    """Return a classifier by the k nearest rows of z-scored representations, k at most their number."""
    from sklearn.neighbors import KNeighborsClassifier

    return _fitted(KNeighborsClassifier(n_neighbors=k), features)


def balanced_accuracy(classifier: "Pipeline", features: ByPart) -> float:
    """Return the mean of the accuracies on `test_forget` and on `test_retain`, from 0 to 1."""
    from sklearn.metrics import balanced_accuracy_score

    rows, labels = _sides(features, HELDOUT)
    return float(balanced_accuracy_score(labels, classifier.predict(rows)))


def information(features: ByPart) -> float:
    """Return ln 2 − the class-balanced cross-entropy of a logistic probe on the test rows, in nats.

    It is a lower bound of the mutual information of the representation and the side, where both sides
    are equally likely. It is negative if the probe is worse than none.
    """
    rows, labels = _sides(features, HELDOUT)
    logits = logistic_probe(features).decision_function(rows)
    # −ln p_y = ln(1 + e^−z) for side 1, and ln(1 + e^z) for side 0
    losses = np.logaddexp(0, np.where(labels == 1, -logits, logits))
    return math.log(2) - float(losses[labels == 1].mean() + losses[labels == 0].mean()) / 2


def cka(one: ArrayLike, other: ArrayLike) -> float | None:
    """Return the linear CKA of two representations of the same rows, (n, d) and (n, e), from 0 to 1.

    ‖X̃ᵀỸ‖²_F / (‖X̃ᵀX̃‖_F ‖ỸᵀỸ‖_F) with centred columns (Kornblith et al., arXiv 1905.00414).
    None if one of them is the same for all rows.
    """
    x, y = (np.asarray(each, np.float64) for each in (one, other))
    x, y = x - x.mean(0), y - y.mean(0)
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / scale) if scale else None


def _fitted(classifier: Any, features: ByPart) -> "Pipeline":
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), classifier).fit(*_sides(features, FITTED))


def _sides(features: ByPart, parts: tuple[str, str]) -> tuple[Numbers, Numbers]:
    """Return the rows of two parts, (n, d) float64, and their sides, (n,): 1 for the first, else 0."""
    forget, retain = (features[part].double().numpy() for part in parts)
    labels = np.concatenate([np.ones(len(forget)), np.zeros(len(retain))])
    return np.concatenate([forget, retain]), labels
