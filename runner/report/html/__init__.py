"""A report as one HTML file, which needs no network and no server.

    python -m runner.report name=digits_small_cnn_whole_class format=html

writes it to <paths.root>/tables/<name>.html.
"""

from runner.report.html.page import write

__all__ = ["write"]
