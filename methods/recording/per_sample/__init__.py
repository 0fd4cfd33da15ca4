"""Per-sample gradients: the share of the final weights that each tracked row has added.

Idea: keep the factors of every layer's gradient (see `methods.weights.per_sample_gradients`) instead of
the gradient itself.
Record: each layer takes one of two forms. *Factored* keeps the inputs and the output
gradients of every tracked row at each of its steps: E·(|a| + |b|) numbers per row in `dtype`, for E
epochs. In int8 each input and each gradient of a row is divided by its own largest number. *Dense* keeps
one gradient per row, summed over its steps: |W| numbers per row in float32. A sum
costs its arithmetic, a read and a write at every step, so `auto` takes it only where it at least halves
a layer's bytes. The sum over any set of rows is read back with one weight gradient per layer and chunk.
Two more forms are options. *Masked* keeps a random share `keep` of the dense sums, as paper 004 does.
With `group_by` the record keeps one dense sum per group (`class`, or a file that gives every training
row a group number): G·M numbers for G groups and M weights, for any number of rows.
Coefficient: a row's share of the weights is Σ_t c_t·g_{i,t}/B_t, and `attribution` chooses c_t. `exact`
is SGD's own, with momentum, weight decay and schedule: θ_T = A·θ_0 + Σ_t c_t·ḡ_t, from one recursion
over the steps. `step` is −lr_t, for optimizers without an exact share. `preconditioned` is Adam's
−lr_t / (√v̂_t + ε), number by number, which needs sums.
Reference: paper 004 (per-sample sums); the factored form and the coefficient are this project's.
"""

from methods.recording.per_sample.layout import FactorType, Form, Shape, shapes_of
from methods.recording.per_sample.record import SampleRecord
from methods.recording.per_sample.recorder import PerSample
from methods.recording.per_sample.shares import Attribution, Shares, coefficients

__all__ = [
    "Attribution",
    "FactorType",
    "Form",
    "PerSample",
    "SampleRecord",
    "Shape",
    "Shares",
    "coefficients",
    "shapes_of",
]
