"""Which rows a request names, and which requests are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import UserError
from data.requests import Request
from data.split import Dataset
from data.streams import Streams
from tests.conftest import data_root, needs, plan_of


def select(digits: Dataset, *overrides: str, seed: int = 0) -> Request:
    return plan_of(*overrides).scenario.select(digits, Streams(seed, "request"))


def test_whole_classes(digits: Dataset) -> None:
    request = select(digits, "scenario.classes=[3,7]")
    assert set(digits.train.labels[request.rows].tolist()) == {3, 7}
    assert set(digits.test.labels[request.test].tolist()) == {3, 7}
    wanted = torch.isin(digits.train.labels, torch.tensor([3, 7])).sum()
    assert len(request.rows) == wanted


def test_random_rows_by_fraction_and_by_count(digits: Dataset) -> None:
    assert len(select(digits, "scenario=random").rows) == round(0.1 * 1438)
    request = select(digits, "scenario=random", "scenario.count=83")
    assert len(request.rows.unique()) == 83 and len(request.test) == 0


def test_a_random_request_follows_the_seed_unless_its_own_is_pinned(digits: Dataset) -> None:
    def rows(seed: int, *pinned: str) -> list[int]:
        return select(digits, "scenario=random", *pinned, seed=seed).rows.tolist()

    assert rows(0) == rows(0) != rows(1)
    assert rows(0, "scenario.seed=5") == rows(1, "scenario.seed=5") != rows(0)


@pytest.mark.parametrize("suffix", ["npy", "csv", "txt"])
def test_given_rows_are_read_from_any_of_three_formats(
    digits: Dataset, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"rows.{suffix}"
    listed = [40, 2, 1000]
    if suffix == "npy":
        np.save(file, np.array(listed))
    else:
        file.write_text(("row\n" if suffix == "csv" else "") + "\n".join(map(str, listed)))
    request = select(digits, "scenario=given_rows", f"scenario.file={file}")
    assert request.rows.tolist() == sorted(listed)


@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_a_spreadsheets_mark_at_the_beginning_is_no_row(
    digits: Dataset, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"rows.{suffix}"
    file.write_text("5\n6\n7\n", encoding="utf-8-sig")
    assert select(digits, "scenario=given_rows", f"scenario.file={file}").rows.tolist() == [5, 6, 7]


def test_given_rows_are_the_same_request_wherever_the_file_lies(tmp_path: Path) -> None:
    plans = []
    for name, text in (("a.txt", "1\n5\n"), ("b.csv", "5\n1\n"), ("c.txt", "1\n6\n")):
        (tmp_path / name).write_text(text)
        plans.append(plan_of("scenario=given_rows", f"scenario.file={tmp_path / name}"))
    assert plans[0].key == plans[1].key != plans[2].key


def test_relabelling_names_the_class_the_rows_become(digits: Dataset) -> None:
    request = select(digits, "scenario=relabel")
    assert set(digits.train.labels[request.rows].tolist()) == {6} and request.target == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["scenario.classes=[12]"], "class 12, but the data set has classes 0 to 9"),
        (["scenario.classes=[-1]"], "scenario.classes=[-1]: it must be at least 0"),
        (["scenario.classes=[]"], "nothing would be forgotten"),
        (["scenario.classes=[0,1,2,3,4,5,6,7,8,9]"], "nothing would be retained"),
        (["scenario.classes=cat"], "class cat, but the data set has zero, one, two, three, four"),
        (["scenario.classes=3.5"], "scenario.classes"),
        (["scenario=part_of_class"], "use dataset=cifar20"),
        (["scenario=part_of_class", "scenario.classes=rocket"], "use dataset=cifar20"),
        (["scenario=part_of_class", "dataset=cifar20", "scenario.classes=[100]"], "classes 0 to 99"),
        (["scenario=random", "scenario.fraction=1"], "above 0 and below 1"),
        (["scenario=random", "scenario.count=0"], "at least 1 and"),
        (["scenario=random", f"scenario.count={10**20}"], "at most 2,147,483,647"),
        (["scenario=random", "scenario.seed=-1"], "scenario.seed=-1: it must be at least 0"),
        (["scenario=relabel", "scenario.target=6"], "same class"),
        (["scenario=relabel", "scenario.target=10"], "class 10"),
        (["scenario=relabel", "scenario.target=cat"], "scenario.target asks for class cat"),
        (["scenario=given_rows", "scenario.file=nowhere.npy"], "does not exist"),
        (["scenario=given_rows", "scenario.file=rows.json"], "write the rows as .npy"),
    ],
)
def test_impossible_requests_are_refused_before_data_is_read(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(*overrides)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n2\n1\n", "row 1 more than once"),
        ("", "lists no row"),
        ("1\nx\n", "no list of row numbers"),
        ("99999999999999999999\n", "no list of row numbers"),
    ],
)
def test_bad_row_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "rows.txt"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        plan_of("scenario=given_rows", f"scenario.file={file}")
    assert words in str(refused.value)


def test_a_table_of_several_columns_is_refused(tmp_path: Path) -> None:
    """pandas writes its own index first: the wrong rows would be forgotten."""
    file = tmp_path / "rows.csv"
    file.write_text(",row\n0,17\n1,203\n")
    with pytest.raises(UserError, match="several columns"):
        plan_of("scenario=given_rows", f"scenario.file={file}")


@pytest.mark.parametrize("first", ["1e3", "inf", "5.0", "row1", "0x5", ""])
def test_a_first_line_that_is_no_word_is_no_header(tmp_path: Path, first: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f'"{first}"\n5\n')
    with pytest.raises(UserError, match="no list of row numbers"):
        plan_of("scenario=given_rows", f"scenario.file={file}")


def test_an_array_with_a_number_beyond_int64_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.npy"
    np.save(file, np.array([1, 2**64 - 1], dtype=np.uint64))
    with pytest.raises(UserError, match=r"no list of row numbers \(it holds 18446744073709551615\)"):
        plan_of("scenario=given_rows", f"scenario.file={file}")


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_broken_array_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "rows.npy"
    file.write_bytes(content)
    with pytest.raises(UserError, match="no list of row numbers"):
        plan_of("scenario=given_rows", f"scenario.file={file}")


def test_a_run_keeps_its_rows_though_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "rows.txt"
    file.write_text("1\n")
    plan = plan_of("scenario=given_rows", f"scenario.file={file}")
    key = plan.key
    file.write_text("2\n")
    assert plan.key == key


@pytest.mark.parametrize("row", [-1, 1438])
def test_rows_out_of_range_are_refused(digits: Dataset, tmp_path: Path, row: int) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f"0\n{row}\n")
    with pytest.raises(UserError, match=rf"row {row}, which is not among the 1438 training rows"):
        select(digits, "scenario=given_rows", f"scenario.file={file}")


def test_more_random_rows_than_there_are(digits: Dataset) -> None:
    with pytest.raises(UserError, match="has 1438 rows"):
        select(digits, "scenario=random", "scenario.count=1438")


def test_part_of_a_class_by_name_on_odd_digits() -> None:
    plan = plan_of("dataset=digits_parity", "scenario=part_of_class", "scenario.classes=three")
    data = plan.source.load(Path(), False)
    request = plan.scenario.select(data, Streams(0, "request"))
    assert data.train.fine is not None
    assert set(data.train.only(request.rows).labels.tolist()) == {1}
    assert request.rows.tolist() == data.train.rows[data.train.fine == 3].tolist()
    rest = data.train.without(request.rows)
    assert rest.fine is not None and set(rest.fine[rest.labels == 1].tolist()) == {1, 5, 7, 9}


@needs("cifar-100-python/train")
def test_part_of_a_class_leaves_the_rest_of_its_superclass() -> None:
    plan = plan_of("dataset=cifar20", "scenario=part_of_class")
    data = plan.source.load(data_root(), False)
    request = plan.scenario.select(data, Streams(0, "request"))
    assert data.train.fine is not None and len(request.rows) == 500 and len(request.test) == 100
    superclass = data.train.labels[request.rows].unique()
    assert len(superclass) == 1
    assert (data.train.without(request.rows).labels == superclass).sum() == 2000
