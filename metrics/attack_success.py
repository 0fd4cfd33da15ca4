"""Attack success: the share of test rows that corrupted training rows turn into the class they aim at.

Formula: (1/n) Σ 1[argmax_k z_k = a] over the n attacked test rows, with the class a that the attack aims
at; and (1/N) Σ 1[argmax_k z_k = y] over the N clean test rows that must stay right. A trigger attacks
the test rows of all other classes, and every clean row must stay right. Swapped labels attack the test
rows of the two classes, and the same rows must stay right.
Reference: Gu et al., BadNets, 2017; Goel et al., Corrective Machine Unlearning, TMLR 2024.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score, Scores


@dataclass(frozen=True)
class AttackSuccess(Metric):
    """`attack_success` and `clean_accuracy`, from 0 to 1."""

    kind: ClassVar[str] = "metrics.attack_success.AttackSuccess"
    needs: ClassVar[Needs] = Needs.PREDICTIONS | Needs.ATTACK
    parts: ClassVar[tuple[str, ...]] = ("test",)

    def about(self) -> Mapping[str, Score]:
        return {
            "attack_success": Score(
                "Share of the attacked test rows that are predicted as the class the attack aims at.",
                Better.lower,
                remembers=1,
                margin=0.02,
                title="success of the attack",
            ),
            "clean_accuracy": Score(
                "Share of the clean test rows that are classified correctly.",
                Better.higher,
                margin=0.02,
                title="accuracy on clean test rows",
            ),
        }

    def __call__(self, evidence: Evidence) -> Scores:
        attack, predictions = evidence.attack, evidence.predictions
        # (1/n) Σ 1[argmax_k z_k = a]
        hit = (attack.logits.argmax(1) == attack.aims).double().mean()
        # (1/N) Σ 1[argmax_k z_k = y]
        clean = predictions.right("test")[attack.clean].double().mean()
        return {"attack_success": hit.item(), "clean_accuracy": clean.item()}
