"""Information difference index: how much of what the original knows of the forgotten kinds is left.

Idea: a representation's information on forgotten against retained kinds is largest in the original, and
smallest in the retrained model. The unlearned model is placed between them: 0 is as the retrained model,
1 is as the original, and below 0 is less than retraining leaves.

Formula: (I_u − I_r) / (I_o − I_r), with I = ln 2 − the class-balanced cross-entropy of the classifier of
`probe` on `test_forget` (1) and `test_retain` (0). It is undefined if I_o − I_r < 0.05 nats, without a
retrained model, and for requests that name no kinds.

The paper sums estimates of the mutual information over layers, by networks trained with InfoNCE. This I
is a lower bound at one layer, the input of the last linear one, so that values differ from printed ones.

Source: Jeon et al., "An Information Theoretic Evaluation Metric for Strong Unlearning", arXiv
2405.17878.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.representations import comparable, information

LEAST = 0.05  # nats between the original and the retrained model, to be divided by


@dataclass(frozen=True)
class Idi(Metric):
    """`idi`: 0 as the retrained model, 1 as the original."""

    kind: ClassVar[str] = "metrics.idi.Idi"
    needs: ClassVar[Needs] = Needs.FEATURES
    parts: ClassVar[tuple[str, ...]] = ("train_forget", "train_retain", "test_forget", "test_retain")
    undefined: ClassVar[str] = (
        "the request names no kinds of rows, or the original knows no more of them than retrained models"
    )

    def about(self) -> Mapping[str, Score]:
        says = "Share of the original's surplus information about forgotten kinds that is left."
        return {"idi": Score(says, Better.reference, remembers=1, title="information left (IDI)")}

    def __call__(self, evidence: Evidence) -> Scores:
        features = evidence.features
        if features.reference is None:
            return {}
        models = (features.own, features.original, features.reference)
        if not all(map(comparable, models)):
            return {}
        own, original, reference = map(information, models)
        if original - reference < LEAST:
            return {}
        return {"idi": (own - reference) / (original - reference)}
