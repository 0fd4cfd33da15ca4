"""KLOM, the KL divergence of margins: how unlike the margins of unlearned and retrained models are.

Idea: for each forgotten row, the margins φ = z_y − logsumexp_{j≠y} z_j of R retrained and N unlearned
models make two histograms, which are equal if the method does what retraining does.

Formula: mean over the forgotten training rows of Σ_b p_b ln(p_b / q_b), p of φ_r and q of φ_u, with 20
equal bins on the joint range of the row, margins clipped to ±100, and q_b = 1e-5 in an empty bin.

Bins that hold a retrained model and no unlearned one decide the sum, and few models leave many such
bins: two equal normal populations have a KLOM of 6.4 with 8 models each, 3.9 with 16, 1.7 with 32, 0.6
with 64. Read it beside its null, and with 64 models or more. The null has half as many models, and is
larger for that reason.

Source: Georgiev et al., "Attribute-to-Delete: Machine Unlearning via Datamodel Matching", arXiv
2410.23232.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.null import Models, with_null, with_nulls
from metrics.statistics.populations import kl_divergences, margins_of


@dataclass(frozen=True)
class Klom(Metric):
    """`klom` and `klom_null`, in nats, from 0 to ln 1e5 = 11.5."""

    kind: ClassVar[str] = "metrics.klom.Klom"
    needs: ClassVar[Needs] = Needs.POPULATION
    parts: ClassVar[tuple[str, ...]] = ("train_forget",)

    def about(self) -> Mapping[str, Score]:
        says = "Mean KL divergence of margins on the forgotten rows, retrained from unlearned."
        return with_nulls({"klom": Score(says, Better.lower, "nats", title="KLOM")})

    def __call__(self, evidence: Evidence) -> Scores:
        return with_null(_compared, evidence.population)


def _compared(unlearned: Models, retrained: Models) -> dict[str, float]:
    return {"klom": float(kl_divergences(margins_of(unlearned), margins_of(retrained)).mean())}
