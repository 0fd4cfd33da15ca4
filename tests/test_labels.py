"""Labels: what tells the lines of a table apart, and nothing that a reader cannot set."""

from runner.report import Report
from tests.test_report import COLUMNS, result


def labels_of(*lines: dict[str, object]) -> set[str]:
    """Return the labels of the lines of a method with these options."""
    report = Report([result("finetune", 0, 0.3, **{**each}) for each in lines], COLUMNS)  # type: ignore[arg-type]
    return set(report.labels.values()) - {"original", "retrain"}


def test_a_version_tells_lines_apart_only_where_no_option_does() -> None:
    """No command sets a version."""
    old: dict[str, object] = {"method.version": 2}
    early: dict[str, object] = {"method.version": 3, "method.target": 0.01}
    assert labels_of(old, early) == {"finetune", "finetune (target=0.01)"}
    new: dict[str, object] = {"method.version": 3}
    assert labels_of(old, new) == {"finetune (version=2)", "finetune (version=3)"}
