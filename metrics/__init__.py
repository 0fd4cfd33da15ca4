"""Predictions of a model, and scores, which are pure functions of predictions."""
