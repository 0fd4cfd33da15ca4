"""Calibration: the difference between a model's confidence and its accuracy."""

import torch
from torch import Tensor

ROUNDING = 1e-12  # relative to a confidence


def expected_calibration_error(confidence: Tensor, right: Tensor, bins: int) -> float:
    """Return Σ_b n_b/n |acc_b − conf_b| over the equal bins ((b−1)/B, b/B] of the confidence.

    `confidence` (N,) float64 is the largest probability of each row, and `right` (N,) bool is true
    where that class is the label (Guo et al., 2017, eq. 3).
    """
    # The bins' inner bounds b/B; each belongs to the bin below it. Rounding lifts no confidence, such as
    # the 1/3 of three equal logits, over its bound.
    bounds = torch.arange(1, bins, dtype=torch.float64) / bins * (1 + ROUNDING)
    bin_of_row = torch.bucketize(confidence, bounds)
    # n_b (acc_b − conf_b) = Σ_{i in b} (right_i − conf_i)
    gaps = torch.bincount(bin_of_row, weights=right.double() - confidence, minlength=bins)
    return (gaps.abs().sum() / len(confidence)).item()
