"""Limits: the remark that `data.limit` cuts the test set, too, which no number of a table shows."""

from collections.abc import Iterator, Mapping

from runner.results import Line, Result
from runner.roles import UNLEARNED

# The parameter of a result that holds `data.limit`.
LIMIT = "pretrain.data.limit"


def of_limits(results: list[Result], labels: Mapping[Line, str]) -> Iterator[str]:
    """Yield a remark for each limit, with the lines that have it if others have none or another."""
    limits = {result.parameters.get(LIMIT) for result in results}
    for limit in sorted(each for each in limits if each is not None):
        those = [result for result in results if result.parameters.get(LIMIT) == limit]
        lines = dict.fromkeys(labels[result.line(UNLEARNED)] for result in those)
        of = f" of {', '.join(lines)}" if len(limits) > 1 else ""
        counts = sorted({result.test_rows for result in those if result.test_rows is not None})
        # results of earlier versions, and diverged runs, do not count their test rows
        rows = f"; {' or '.join(f'{count:,}' for count in counts)} test rows" if counts else ""
        yield (
            f"data.limit={limit}{of}: at most {limit} rows per class, or per fine class, of training "
            f"and test set alike{rows}"
        )
