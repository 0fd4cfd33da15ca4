"""KLOM as the authors' benchmark computes it, for a comparison with printed numbers.

Idea and formula: those of `klom`, but for two things. The largest margin of a row lies in no bin, so
that one model is not counted. Shares that are raised to 1e-5 are divided by their new sum. The direction
is the same, retrained from unlearned: the code calls its function with the two populations in the
opposite order of the parameters' names.

If all retrained models of a row have the largest margin, the row is undefined, and so is the score.

Source: data-unlearning-bench, `eval.py` and `run.py` (github.com/RoyRin/data-unlearning-bench).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.null import Models, with_null, with_nulls
from metrics.statistics.populations import margins_of, official_kl_divergences


@dataclass(frozen=True)
class KlomOfficial(Metric):
    """`klom_official` and `klom_official_null`, in nats, from 0."""

    kind: ClassVar[str] = "metrics.klom_official.KlomOfficial"
    needs: ClassVar[Needs] = Needs.POPULATION
    parts: ClassVar[tuple[str, ...]] = ("train_forget",)

    def about(self) -> Mapping[str, Score]:
        says = "KLOM as the authors' code computes it, without the largest margin of each row."
        title = "KLOM, as the authors' code has it"
        return with_nulls({"klom_official": Score(says, Better.lower, "nats", title=title)})

    def __call__(self, evidence: Evidence) -> Scores:
        return with_null(_compared, evidence.population)


def _compared(unlearned: Models, retrained: Models) -> dict[str, float]:
    divergences = official_kl_divergences(margins_of(unlearned), margins_of(retrained))
    return {"klom_official": float(divergences.mean())}
