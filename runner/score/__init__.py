"""Scores of a run: evidence is gathered from its models, and metrics turn it into numbers."""
