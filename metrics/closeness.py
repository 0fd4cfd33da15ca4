"""Closeness: the differences between the model's predictions and the retrained model's, row by row.

Formulas, each a mean over the rows of a part, with p of the model and q of the retrained one:
js = ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½(p + q); kl = KL(q ‖ p); activation_distance = ‖p − q‖₂ and
activation_distance_l1 = ‖p − q‖₁; agreement = 1[argmax p = argmax q], of equal logits the first.
Two retrained models of different seeds differ too. Their distance is what no unlearning can fall below.
Sources: Lin, Divergence Measures Based on the Shannon Entropy, 1991 (js); Golatkar et al., arXiv
2012.13431 (activation distance, as L1); Cao and Yang, Towards Making Systems Forget, 2015 (agreement,
there completeness).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores, for_parts
from metrics.predictions import Predictions
from metrics.statistics.divergences import distance, jensen_shannon, kullback_leibler

# The meaning of each score, whose `{part}` stands for the part's words.
MEANINGS: Mapping[str, Score] = {
    "js": Score(
        "Jensen-Shannon divergence from the retrained model on the {part} rows.",
        Better.lower,
        "nats",
        margin=0.02,
        title="Jensen-Shannon divergence",
    ),
    "kl": Score(
        "KL divergence of the model from the retrained one on the {part} rows; it is not symmetric.",
        Better.lower,
        "nats",
        title="KL divergence",
    ),
    "activation_distance": Score(
        "Euclidean distance between the probabilities of the model and of the retrained one on the "
        "{part} rows.",
        Better.lower,
        "probability",
        title="activation distance",
    ),
    "activation_distance_l1": Score(
        "Sum of absolute differences between the probabilities of the model and of the retrained one on "
        "the {part} rows.",
        Better.lower,
        "probability",
        title="absolute activation distance",
    ),
    "agreement": Score(
        "Share of the {part} rows for which the model and the retrained one predict the same class.",
        Better.higher,
        margin=0.02,
        title="agreement with retrained",
    ),
}


@dataclass(frozen=True)
class Closeness(Metric):
    """`<part>_js` from 0 to ln 2, `<part>_kl`, `<part>_activation_distance` up to √2,
    `<part>_activation_distance_l1` up to 2, and `<part>_agreement` from 0 to 1."""

    kind: ClassVar[str] = "metrics.closeness.Closeness"
    needs: ClassVar[Needs] = Needs.PREDICTIONS | Needs.REFERENCE

    def about(self) -> Mapping[str, Score]:
        found: dict[str, Score] = {}
        for name, score in MEANINGS.items():
            found |= for_parts(name, score, self.parts)
        return found

    def __call__(self, evidence: Evidence) -> Scores:
        own, reference = evidence.predictions, evidence.reference
        return {
            f"{part}_{name}": value
            for part in self.present(own)
            for name, value in _differences(own, reference, part).items()
        }


def _differences(own: Predictions, reference: Predictions, part: str) -> dict[str, float]:
    """Return the mean differences on one part, by name."""
    ln_p, ln_q = own.logprobs(part), reference.logprobs(part)
    same = own.logits[part].argmax(1) == reference.logits[part].argmax(1)
    rows = {
        "js": jensen_shannon(ln_p, ln_q),
        "kl": kullback_leibler(ln_q, ln_p),
        "activation_distance": distance(ln_p, ln_q, order=2),
        "activation_distance_l1": distance(ln_p, ln_q, order=1),
        "agreement": same.double(),
    }
    return {name: values.mean().item() for name, values in rows.items()}
