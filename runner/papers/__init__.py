"""The papers: a verdict on every number that their tables print.

    python -m runner.report papers

counts them by table. The numbers, the rule and the reasons are data, in results/published.
"""
