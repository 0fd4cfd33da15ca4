"""Expected calibration error: the difference between a model's confidence and its accuracy.

Formula: Σ_b n_b/n |acc_b − conf_b| over equal bins ((b−1)/B, b/B] of the confidence max_k p_k, on the
test rows.
Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from data.bounds import COUNT
from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores
from metrics.statistics.calibration import expected_calibration_error


@dataclass(frozen=True)
class CalibrationError(Metric):
    """`test_ece`, from 0 to 1. `bins` is B."""

    kind: ClassVar[str] = "metrics.ece.CalibrationError"
    parts: ClassVar[tuple[str, ...]] = ("test",)

    bins: Annotated[int, COUNT]

    def about(self) -> Mapping[str, Score]:
        says = "Mean difference between confidence and accuracy on the test rows, in bins of confidence."
        return {"test_ece": Score(says, Better.lower, title="calibration error on test rows")}

    def __call__(self, evidence: Evidence) -> Scores:
        predictions = evidence.predictions
        confidence = predictions.logprobs("test").amax(1).exp()
        right = predictions.right("test")
        return {"test_ece": expected_calibration_error(confidence, right, self.bins)}
