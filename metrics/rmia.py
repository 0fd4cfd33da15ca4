"""RMIA, offline: a row is a member if the model knows it better than retrained models do.

Idea: a row is compared with held-out rows z, each relative to retrained models, which never saw either.
That takes out how hard a row is.

Formula: p̂(x) = ½[(1 + a)·mean_j p_j(x)_y + 1 − a] over the retrained models j; ρ(x) = p(x)_y / p̂(x);
s(x) = share of z with ρ(x)/ρ(z) > γ. Members are the forgotten training rows. Of the held-out rows of
the same kind, those at even positions are the others and those at odd positions the z. The report of s
is that of `mia_loss`. γ and the number of z only round s: it is a step function of ρ. The retrained
model itself is attacked with the other retrained models.

Source: Zarifzadeh, Liu and Shokri 2024 (arXiv 2312.03262). Its experiments soften the softmax, average
over augmentations and use γ = 2, so that its AUCs are not comparable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from data.bounds import BELOW_ONE, POSITIVE
from metrics.attacks.report import HeldOutAttack, meanings, report
from metrics.evidence import Evidence, Needs
from metrics.metric import Score, Scores
from metrics.predictions import Predictions
from metrics.statistics import rmia

# Of the held-out rows, those that members are ranked against, and the z.
OTHERS, Z = slice(0, None, 2), slice(1, None, 2)


@dataclass(frozen=True)
class Rmia(HeldOutAttack):
    """`rmia_auc`, `_auc_se`, `_tpr_1`, `_tpr_01`, both with `_low` and `_high`.

    `a` is 0 if a model that saw a row is certain of it, and near 1 if it knows it no better than one
    that did not (`metrics.statistics.rmia.expected`). `gamma` is γ.

    There is none in a request for whole classes: no retrained model knows the classes, so that every
    p̂ is (1 − a)/2.
    """

    kind: ClassVar[str] = "metrics.rmia.Rmia"
    needs: ClassVar[Needs] = Needs.PREDICTIONS | Needs.REFERENCES

    a: Annotated[float, BELOW_ONE]
    gamma: Annotated[float, POSITIVE]

    undefined: ClassVar[str] = (
        "no retrained model has seen the classes that go as a whole, so all rows look alike to it"
    )

    def about(self) -> Mapping[str, Score]:
        return meanings("rmia", "the ratio to the retrained models")

    def others(self, heldout: int, whole_classes: bool) -> int:
        return 0 if whole_classes else len(range(heldout)[OTHERS])

    def __call__(self, evidence: Evidence) -> Scores:
        scored, references = evidence.predictions, evidence.references
        if "train_forget" not in scored.logits or not references or _whole_classes(scored):
            return {}
        target_x, target_h = _known(scored)
        refs_x, refs_h = map(torch.stack, zip(*map(_known, references), strict=True))
        if not len(target_h[Z]):
            return {}

        def scores(target: Tensor, refs: Tensor) -> Tensor:
            return rmia.scores(target, refs, target_h[Z], refs_h[:, Z], self.a, self.gamma)

        members, others = scores(target_x, refs_x), scores(target_h[OTHERS], refs_h[:, OTHERS])
        return dict(report("rmia", members, others))


def _known(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """Return p_y of the forgotten training rows and of the held-out rows of their kind, float64."""
    parts = ("train_forget", predictions.heldout)
    known, held_out = (predictions.own_logprobs(part).exp() for part in parts)
    return known, held_out


def _whole_classes(predictions: Predictions) -> bool:
    """Return True if no row is retained of any class of the forgotten rows."""
    return set(predictions.labels["train_forget"].tolist()) <= predictions.gone
