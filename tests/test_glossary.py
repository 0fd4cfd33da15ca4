"""metrics/README.md says of every metric what the metric says of itself."""

import re

import pytest

from metrics.evidence import Needs
from metrics.metric import Better, Metric, Score
from metrics.predictions import PARTS
from tests.conftest import options
from tests.glossary import COMMAND, END, PRESETS, README, START, meanings, table, written


def test_the_page_holds_the_table_of_all_metrics() -> None:
    page = README.read_text()
    assert written(page) == page, f"metrics/README.md is out of date: run {COMMAND}"


def test_every_metric_has_a_line() -> None:
    found = set(re.findall(r"^\| `(\w+)` \|", table(), re.MULTILINE))
    assert found == set(options("metric"))


def test_the_table_replaces_what_stands_between_its_marks_and_nothing_else() -> None:
    assert written(f"before {START} old {END} after") == f"before {START}\n{table()}{END} after"


class Two(Metric):
    """Scores of parts, of which the forgotten one has another direction, and a score of another one."""

    def about(self) -> dict[str, Score]:
        found = {
            f"{part}_x": Score(f"X of the {part.replace('_', ' ')} rows.", Better.higher, margin=0.02)
            for part in PARTS
        }
        forget = Score("Y of the train forget rows.", Better.reference, "nats", remembers=-1)
        retain = Score("Y of the train retain rows.", Better.reference, "nats", remembers=-1)
        return {
            **found,
            "test_x_se": Score("Standard error of test_x.", Better.reference),
            "train_forget_y": forget,
            "train_retain_y": retain,
            "test_y": Score("Y of the test rows.", Better.lower, "nats"),
        }


def test_parts_of_one_meaning_share_a_line_and_a_single_part_keeps_its_words() -> None:
    assert list(meanings(Two())) == [
        ("`<part>_x`", ("X of the part's rows.", "share", "higher", "", "0.02")),
        (
            "`train_forget_y`, `train_retain_y`",
            ("Y of the part's rows.", "nats", "as retrained", "lower = still knows", ""),
        ),
        ("`test_y`", ("Y of the test rows.", "nats", "lower", "", "")),
    ]


@pytest.mark.parametrize("need", [str(need.name).lower() for need in Needs])
def test_the_page_tells_what_evidence_costs(need: str) -> None:
    assert f"\n| {need} | " in README.read_text()


@pytest.mark.parametrize("preset", [*PRESETS, "quick"])
def test_the_page_names_the_presets(preset: str) -> None:
    assert f"\n| `evaluation={preset}` | " in README.read_text()
