"""Classes by number and by name, alone and in a list, wherever an option names them."""

import pytest

from data.bounds import bounds_of
from data.classes import class_number, rare_classes
from data.errors import UserError
from data.sources import Digits
from tests.conftest import keys_of, plan_of

NAMES = ("cat", "dog", "7up")


@pytest.mark.parametrize("asked", ["3", "three", "[three]", "['3']", "[3,three]"])
def test_one_class_has_one_key_however_it_is_written(asked: str) -> None:
    assert plan_of(f"scenario.classes={asked}").key == plan_of("scenario.classes=[3]").key


def test_names_and_numbers_of_several_classes_mix() -> None:
    written = plan_of("dataset=cifar10", "scenario.classes=[dog,3]")
    assert written.key == plan_of("dataset=cifar10", "scenario.classes=[3,5]").key


def test_fine_classes_have_names() -> None:
    base = ["dataset=cifar20", "scenario=part_of_class"]
    assert plan_of(*base, "scenario.classes=rocket").key == plan_of(*base).key


def test_relabelling_names_its_classes() -> None:
    named = plan_of("scenario=relabel", "scenario.source=six", "scenario.target=three")
    assert named.key == plan_of("scenario=relabel").key


def test_recorders_name_their_classes() -> None:
    base = ["method=amnesiac", "recorder=[batch_updates]"]
    named = plan_of(*base, "recorder.batch_updates.classes=three")
    assert named.key == plan_of(*base, "recorder.batch_updates.classes=[3]").key
    with pytest.raises(UserError, match=r"recorder\.batch_updates\.classes asks for class cat"):
        plan_of(*base, "recorder.batch_updates.classes=[cat]")


def test_classes_of_a_record_follow_the_request() -> None:
    preset = ["experiment=paper004_table2", "variant=factored"]
    assert plan_of(*preset, "scenario.classes=streetcar").key == plan_of(*preset).key


@pytest.mark.parametrize("asked", ["3:5", "[3:5]", "[three:5]", "[3:5,three:5]"])
def test_rare_classes_are_written_in_any_way(asked: str) -> None:
    assert plan_of(f"data.rare={asked}").rare == {3: 5}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("cat:5", "class cat, but the data set has zero, one, two"),
        ("12:5", "classes 0 to 9"),
        ("3", "write class:rows, as in data.rare=[3:100]"),
        (None, "write class:rows"),
        (190, "in quotes in a YAML file, which reads 3:10 as 190: ['3:10']"),
        ("3:few", "write class:rows"),
        ("3:0", "at least 1 row of each"),
        (f"3:{10**20}", "at most 2,147,483,647"),
        (["3:5", "three:6"], "names class 3 twice"),
    ],
)
def test_rare_classes_that_make_no_sense_are_refused(asked: object, words: str) -> None:
    source = plan_of().source
    assert isinstance(source, Digits)
    with pytest.raises(UserError) as refused:
        rare_classes("data.rare", asked, source)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "number"), [("dog", 1), ("2", 2), ("7up", 2), (5, 5), (None, None), ("???", "???")]
)
def test_names_become_numbers_and_the_rest_stays(asked: object, number: object) -> None:
    assert class_number("option", asked, NAMES) == number


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(UserError, match=r"class cow, but the data set has cat, dog, 7up: .* 0 to 2"):
        class_number("option", "cow", NAMES)


def test_a_single_value_is_a_list_of_one() -> None:
    assert plan_of("dataset.mean=0.5").key == plan_of("dataset.mean=[0.5]").key
    assert plan_of("training.milestones=3").key == plan_of("training.milestones=[3]").key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("training.milestones=[3,5]", "training.milestones=[5,3]"),
        ("recorder.batch_updates.classes=[3,5]", "recorder.batch_updates.classes=[five,3,3]"),
        ("scenario.classes=[3,5]", "scenario.classes=[five,3,3]"),
        ("training.lr=0.1 training.clip=1", "training.clip=1.0 training.lr=1e-1"),
    ],
)
def test_spellings_of_one_value_have_the_same_keys(one: str, other: str) -> None:
    first, second = (
        keys_of(plan_of("recorder=[batch_updates]", *spelling.split())) for spelling in (one, other)
    )
    assert first == second


@pytest.mark.parametrize(
    "option",
    [
        "threads", "seed", "data.limit", "evaluation.every", "evaluation.batch_size",
        "budget.gradient_examples", "table.seeds",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["-1", "99999999999999999999", "1" + "0" * 400])
def test_options_of_the_schema_have_bounds(option: str, value: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(f"{option}={value}")
    assert str(refused.value).startswith(f"{option}={value[:37]}")
    assert "it must be at least" in str(refused.value)


def test_bounds_are_found_within_lists() -> None:
    assert {name for name, _ in bounds_of(Digits)} == {"mean", "std", "crop"}
