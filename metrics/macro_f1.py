"""Macro F1: the mean of the classes' F1 scores, in which a rare class counts as much as a common one.

Formula: (1/|C|) Σ_{k in C} 2TP_k / (2TP_k + FP_k + FN_k), over the classes C with rows in the part.
A class that is predicted and has no row there is not in the mean: on the forgotten rows of one class,
every wrong class would otherwise count as an F1 of 0.
Source: Opitz and Burst, Macro F1 and Macro F1, arXiv 1911.03347 (the mean of the F1 scores).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from data.meanings import on_rows
from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores
from metrics.predictions import FORGET_PARTS


@dataclass(frozen=True)
class MacroF1(Metric):
    """`<part>_macro_f1`, from 0 to 1. In a part of one class with recall r it is 2r/(1 + r)."""

    kind: ClassVar[str] = "metrics.macro_f1.MacroF1"

    def about(self) -> Mapping[str, Score]:
        return {
            f"{part}_macro_f1": Score(
                f"Mean F1 score of the classes on the {part.replace('_', ' ')} rows.",
                Better.reference if part in FORGET_PARTS else Better.higher,
                remembers=1 if part in FORGET_PARTS else 0,
                title=on_rows("mean F1 score", part),
            )
            for part in self.parts
        }

    def __call__(self, evidence: Evidence) -> Scores:
        from sklearn.metrics import f1_score

        predictions = evidence.predictions
        scores: Scores = {}
        for part in self.present(predictions):
            labels, predicted = predictions.labels[part], predictions.logits[part].argmax(1)
            present = labels.unique().tolist()
            scores[f"{part}_macro_f1"] = float(
                f1_score(labels, predicted, labels=present, average="macro")
            )
        return scores
