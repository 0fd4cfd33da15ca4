"""Figures from rows, and from what the rows were made from.

    python -m runner.figure name=digits_small_cnn_whole_class figure.scores.x=seconds

draws the figures that `figure=[…]` names, a module of this package each, and writes them to
<paths.root>/figures/<name>_<figure>.png and .svg. It needs `pip install -e ".[figures]"`.
"""
