"""The score of the NeurIPS 2023 unlearning challenge, computed exactly.

Idea: an observer sees one model's margin φ on a forgotten row, and guesses whether it was unlearned or
retrained. The errors of the best guess bound the ε of (ε, δ)-unlearning for this row.

Formula: of the N unlearned and the R retrained models, those with the larger median are called positive.
With FPR = P(negative ≥ t) and FNR = P(positive < t),

    ε = max over t of max{ln(1 − δ − FPR) − ln FNR, ln(1 − δ − FNR) − ln FPR},  δ = 1e-5, at least 0,

for t at every margin. A threshold at which one rate is 0 does not count, and ε = 50 if both are. ε is
also 50 if one range is under 1 % of the other, or if the narrower range holds no margin of the other
sample. H(ε) = 2^−⌊2ε⌋, or 0 where (⌊2ε⌋ + 1)/2 > ⌈ln(N − 1)⌉. The quality is the mean of H over the
rows. The score is the quality × (RA_u / RA_r) × (TA_u / TA_r), with mean accuracies on the retained and
the test rows.

The largest finite ε is about ln(N − 1). Equal populations have a mean ε of 1.1 to 1.2 and a quality of
0.31 to 0.35 with 8 to 64 models each, because the best of many thresholds counts. With 4 models, 11 % of
their rows have ε = 50: use 8 or more. The null is that of half of the retrained models against the other
half.

Source: Triantafillou et al., "Are we making progress in unlearning? Findings from the first NeurIPS
unlearning competition", arXiv 2406.09073.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.null import Models, with_null, with_nulls
from metrics.statistics.populations import CAP, epsilons, margins_of, qualities


@dataclass(frozen=True)
class Challenge(Metric):
    """`epsilon` (the median of the rows), `epsilon_capped`, `forgetting_quality` and `forgetting_score`.

    The quality and the score need 3 unlearned models, and the score needs retained rows.
    """

    kind: ClassVar[str] = "metrics.challenge.Challenge"
    needs: ClassVar[Needs] = Needs.POPULATION
    parts: ClassVar[tuple[str, ...]] = ("train_forget", "train_retain", "test")

    def about(self) -> Mapping[str, Score]:
        return with_nulls(
            {
                "epsilon": Score(
                    "Median over the forgotten rows of the ε at which unlearned and retrained differ.",
                    Better.lower,
                    "nats",
                    title="median ε of the forgotten rows",
                ),
                "epsilon_capped": Score(
                    "Share of the forgotten rows with ε = 50: the two kinds of models are told apart.",
                    Better.lower,
                    title="forgotten rows with the largest ε",
                ),
                "forgetting_quality": Score(
                    "Mean mark of the forgotten rows: 1 for ε below ½, and half of it per further ½.",
                    Better.higher,
                    title="forgetting quality",
                ),
                "forgetting_score": Score(
                    "Forgetting quality times the accuracies on retained and test rows, over retrained.",
                    Better.higher,
                    title="forgetting score",
                ),
            }
        )

    def __call__(self, evidence: Evidence) -> Scores:
        return with_null(_compared, evidence.population)


def _compared(unlearned: Models, retrained: Models) -> dict[str, float]:
    rows = epsilons(margins_of(unlearned), margins_of(retrained))
    scores = {"epsilon": float(np.median(rows)), "epsilon_capped": float((rows == CAP).mean())}
    if len(unlearned) < 3:  # ln(N − 1) ≤ 0: no ε has a mark
        return scores
    quality = float(qualities(rows, len(unlearned)).mean())
    scores["forgetting_quality"] = quality
    retain, test = (_ratio(unlearned, retrained, part) for part in ("train_retain", "test"))
    if retain is not None and test is not None:
        # quality × (RA_u / RA_r) × (TA_u / TA_r)
        scores["forgetting_score"] = quality * retain * test
    return scores


def _ratio(unlearned: Models, retrained: Models, part: str) -> float | None:
    """Return the ratio of the mean accuracies on a part, None if it has no rows or if it is x/0."""
    if not all(part in model.logits for model in (*unlearned, *retrained)):
        return None
    above, below = _accuracy(unlearned, part), _accuracy(retrained, part)
    return above / below if below else None


def _accuracy(models: Models, part: str) -> float:
    return float(np.mean([model.accuracy(part) for model in models]))
