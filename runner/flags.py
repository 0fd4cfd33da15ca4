"""Flags: values among a result's costs that are remarks on the making of its unlearned model."""

# The model is the original bit for bit, or answers as it does; it is no better than a constant; the rows
# of a part that is smaller than the method's batch; the budget ended the method's work.
SAME, UNMOVED = "is_the_original", "moved_no_prediction"
AT_CHANCE, CLAMPED, CUT = "at_chance", "clamped_batch", "cut_by_budget"
