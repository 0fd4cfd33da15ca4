"""The challenge's forgetting quality as its published code computes it, to compare with its numbers.

Idea: that of `challenge`. The rules are other ones, so that ε is larger and the quality smaller.

Formula: the margins are ln(p_y + 1e-45) − ln(1 − p_y + 1e-45). The rules are thresholds, ⌈100 · range⌉
points from the smallest to the largest margin of a row, and about 400 × 400 intervals, in which a model
counts as one of the narrower sample: their right ends lie within ±2 of its maximum, and their widths
within ±2 of its range. ε is 50 if one range is under 1 % of the other. H and the quality are those of
`challenge`.

Equal populations have a mean ε of 1.5 to 1.7 and a quality of 0.15 to 0.21 with 8 to 64 models each. The
null is that of half of the retrained models against the other half.

The published code stops at every row with more than one threshold (`assert thr_eps` of an array), needs
CUDA, and unlearns one original N times. Here the assertion is left out, and each unlearned model has an
original of its own. A row takes about 6 ms, so that the first `rows` rows count alone.

Source: `metric.py` of github.com/google-deepmind/unlearning_evaluation; Triantafillou et al., arXiv
2406.09073.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from data.bounds import COUNT
from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.null import Models, with_null, with_nulls
from metrics.statistics.populations import margins_of, official_epsilons, qualities


@dataclass(frozen=True)
class ChallengeOfficial(Metric):
    """`forgetting_quality_official` and its null, from 0 to 1, of the first `rows` forgotten rows.

    Absent for fewer than 3 unlearned models.
    """

    rows: Annotated[int, COUNT]

    kind: ClassVar[str] = "metrics.challenge_official.ChallengeOfficial"
    needs: ClassVar[Needs] = Needs.POPULATION
    parts: ClassVar[tuple[str, ...]] = ("train_forget",)

    def about(self) -> Mapping[str, Score]:
        says = "Forgetting quality as the challenge's published code computes it."
        title = "forgetting quality, as published code has it"
        return with_nulls({"forgetting_quality_official": Score(says, Better.higher, title=title)})

    def __call__(self, evidence: Evidence) -> Scores:
        return with_null(self._compared, evidence.population)

    def _compared(self, unlearned: Models, retrained: Models) -> dict[str, float]:
        if len(unlearned) < 3:  # ln(N − 1) ≤ 0: no ε has a mark
            return {}
        first = (margins_of(models)[:, : self.rows] for models in (unlearned, retrained))
        marks = qualities(official_epsilons(*first), len(unlearned))
        return {"forgetting_quality_official": float(marks.mean())}
