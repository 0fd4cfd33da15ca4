"""The loss attacks of the challenge's starting kit and of SCRUB's code: how well a logistic regression
tells forgotten training rows from test rows by their loss.

They reproduce published numbers and belong in no other comparison.

Formula: mean accuracy over random splits, 9 : 1 and stratified, of a logistic regression (C = 1) on the
loss in float32, fitted on D_f (1) and test rows (0), of which the larger side is cut to the other's
number at random. ½ is chance.

    kit     10 splits; all test rows. The kit itself uses one half of them, and draws D_f without a seed.
    SCRUB   5 splits; the test rows whose class is that of a forgotten row; losses are cut at 100.

Here every draw and every split has seed 0, where SCRUB's code uses the seed of the run. Absent with
fewer than 6 rows on a side: a split would lack a side.

Source: the NeurIPS 2023 unlearning challenge, `unlearning-CIFAR10.ipynb`; Kurmanji et al. 2023 (arXiv
2302.09880), `MIA_experiments.ipynb`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores

SEED = 0
CLIP = 100.0

# Two rows of a tenth: one of each side.
FEWEST = 6


@dataclass(frozen=True)
class MiaLossOfficial(Metric):
    """`mia_loss_kit_official` and `mia_loss_scrub_official`, from 0 to 1."""

    kind: ClassVar[str] = "metrics.mia_loss_official.MiaLossOfficial"

    def about(self) -> Mapping[str, Score]:
        says = "Accuracy of the attack of {} code on forgotten training rows and test rows."
        authors = {"mia_loss_kit_official": "the starting kit's", "mia_loss_scrub_official": "SCRUB's"}
        return {
            name: Score(says.format(whose), Better.reference, title=f"accuracy of {whose} attack")
            for name, whose in authors.items()
        }

    def __call__(self, evidence: Evidence) -> Scores:
        predictions = evidence.predictions
        if "train_forget" not in predictions.logits:
            return {}
        forget, test = (
            F.cross_entropy(predictions.logits[part], predictions.labels[part], reduction="none")
            for part in ("train_forget", "test")
        )
        labels = predictions.labels
        of_classes = test[torch.isin(labels["test"], labels["train_forget"])]
        found = {
            "mia_loss_kit_official": accuracy(forget, test, 10),
            "mia_loss_scrub_official": accuracy(forget.clamp(max=CLIP), of_classes.clamp(max=CLIP), 5),
        }
        return {name: value for name, value in found.items() if value is not None}


def accuracy(members: Tensor, others: Tensor, splits: int) -> float | None:
    """Return the mean accuracy of the attack over the splits, from 0 to 1.

    None with fewer than `FEWEST` rows on a side, or a loss that is not finite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

    number = min(len(members), len(others))
    if number < FEWEST or not (members.isfinite().all() and others.isfinite().all()):
        return None
    random = torch.Generator().manual_seed(SEED)
    sides = [side[torch.randperm(len(side), generator=random)[:number]] for side in (others, members)]
    losses = torch.cat(sides).double().numpy()[:, None]
    trained_on = torch.arange(2).repeat_interleave(number).numpy()
    each = StratifiedShuffleSplit(n_splits=splits, random_state=SEED)  # a tenth is held out
    return float(cross_val_score(LogisticRegression(), losses, trained_on, cv=each).mean())
