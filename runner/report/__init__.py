"""Tables of results: mean ± 95 % t-interval over seeds, and the gap to the retrained reference, paired
by seed.

    python -m runner.report name=digits_small_cnn_whole_class

prints the table of the results of that name, and writes it as Markdown, CSV and LaTeX to
<paths.root>/tables. It takes `name`, or the preset and the scale that give it, `paths.root`, and the
options of `table`, with format=html also those of `figure`; any other has no effect on stored results,
and is refused.
"""

from runner.report.table import Report, show

__all__ = ["Report", "show"]
