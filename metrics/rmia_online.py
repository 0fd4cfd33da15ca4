"""RMIA, online: the attack of `rmia` on shadow models, whose originals saw half of the rows to forget.

Idea: a shadow model was trained on a half of the rows and then made to forget it. Those rows are the
members, and the other half, which it never saw, are the others. Both halves come from the training set,
and the originals of the other shadow models know each row with and without training on it.

Formula: ρ(x) = p(x)_y / p̂(x), where p is the shadow model after forgetting and p̂ = ½(mean IN + mean
OUT) over the originals of the other pairs, trained on x or not. For z, held-out rows of the same kind at
odd positions, which no model saw, p̂ = ½[(1 + a)·mean OUT + 1 − a]. s(x) = share of z with ρ(x)/ρ(z) >
γ. One AUC per shadow model; the true positive rates pool the rows of all. A retrained model gives ½.

Source: Zarifzadeh, Liu and Shokri 2024 (arXiv 2312.03262); a model attacks no model of its own pair,
because the side that it belongs to would have one model fewer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from data.bounds import BELOW_ONE, POSITIVE
from metrics.attacks.report import rate_meanings, rates
from metrics.evidence import Evidence, Needs, Shadows
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics import rmia
from metrics.statistics.likelihood_ratio import aucs


@dataclass(frozen=True)
class RmiaOnline(Metric):
    """`rmia_online_auc`, one per shadow model, and `rmia_online_tpr_1` and `_tpr_01`, both with `_low`
    and `_high`. It needs four shadow models. `a` and `gamma` are those of `rmia`."""

    kind: ClassVar[str] = "metrics.rmia_online.RmiaOnline"
    needs: ClassVar[Needs] = Needs.SHADOWS

    a: Annotated[float, BELOW_ONE]
    gamma: Annotated[float, POSITIVE]

    def about(self) -> Mapping[str, Score]:
        says = "Chance that the attack by the ratio to shadow models ranks a row that a shadow model"
        return {
            "rmia_online_auc": Score(
                f"{says} forgot above one that it never saw.",
                Better.reference,
                remembers=1,
                margin=0.03,
                null=0.5,
                title="online RMIA attack (AUC)",
            ),
            **rate_meanings("rmia_online", "the ratio to shadow models"),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        shadows = evidence.shadows
        scores = self._scores(shadows)
        if scores is None or scores.isnan().any():
            return {}
        forgot = shadows.forgot
        found: Scores = {
            f"rmia_online_{name}": value
            for name, value in rates(scores[forgot], scores[~forgot]).items()
        }
        # none if every shadow model forgot all rows or none, as with one row
        if areas := aucs(scores, forgot):
            found["rmia_online_auc"] = areas
        return found

    def _scores(self, shadows: Shadows) -> Tensor | None:
        """Return the score of every row to forget by every shadow model, (N, T) float64.

        None if there is no other pair, or no z.
        """
        n, held_out = len(shadows.originals), shadows.originals[0].heldout
        known = [
            [model.own_logprobs(part).exp() for part in ("train_forget", held_out)]
            for model in (*shadows.originals, *shadows.unlearned)
        ]
        p_x, p_z = torch.stack([x for x, _ in known]), torch.stack([h[1::2] for _, h in known])
        if n < 4 or not p_z.shape[1]:
            return None
        scores = []
        for target in range(n):
            others = [j for j in range(n) if j // 2 != target // 2]
            # Of each other pair, one original is IN and one OUT: ½(mean IN + mean OUT) is their mean.
            ratios_x = p_x[n + target] / p_x[others].mean(0)
            ratios_z = p_z[n + target] / rmia.expected(p_z[others], self.a)
            scores.append(rmia.shares(ratios_x, ratios_z, self.gamma))
        return torch.stack(scores)
