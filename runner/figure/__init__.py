"""Figures of the results of one name, and of the models that were scored.

    python -m runner.figure name=digits_small_cnn_whole_class figure.scores.x=seconds

draws the figures that `figure=[…]` names, each defined in a module of this package, and writes them to
<paths.root>/figures/<name>_<figure>.png and .svg. It needs `pip install -e ".[figures]"`.
"""
