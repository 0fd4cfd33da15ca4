"""Predictions of a model, and the scores that are pure functions of them."""
