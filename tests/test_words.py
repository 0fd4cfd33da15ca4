"""People's words: every choice and every score has a title, found by itself."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from data.errors import UserError
from metrics.metric import Score
from metrics.predictions import PARTS
from runner.compose import composed
from runner.naming import TITLE, TITLED, titles
from runner.plan import Plan, build
from runner.report import Report
from runner.report.labels import as_option
from runner.report.words import axis, choice, score, setting
from tests.composing import composed_once
from tests.conftest import CONF, options, plan_of
from tests.test_report import COLUMNS, result

# The groups whose options have titles: those of a run, and metrics.
GROUPS = (*TITLED, "metric")

CHOICES = [(group, name) for group in GROUPS for name in options(group)]


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=lambda part: str(part))
def test_every_choice_has_a_title(group: str, name: str) -> None:
    title = OmegaConf.load(CONF / group / f"{name}.yaml").get(TITLE)
    assert title and "_" not in title, f"write {TITLE}: … into conf/{group}/{name}.yaml"


@pytest.mark.parametrize("group", GROUPS)
def test_no_two_choices_have_one_title(group: str) -> None:
    found = [OmegaConf.load(CONF / group / f"{name}.yaml")[TITLE] for name in options(group)]
    assert len(set(found)) == len(found)


def test_no_two_variants_have_one_title() -> None:
    found = {name: titles(composed_once(f"variant={name}")[0])["method"] for name in options("variant")}
    assert len(set(found.values())) == len(found), "set method._title_ in the variant's file"


@pytest.mark.parametrize("option", options("metric"))
def test_every_score_has_a_title(option: str) -> None:
    (metric,) = plan_of(f"metric=[{option}]", "evaluation.shadows=16").metrics
    about = metric.about()
    for name, said in about.items():
        assert said.title and "_" not in said.title, f"{name} needs title=…"
    assert len({said.title for said in about.values()}) == len(about)


def test_no_two_scores_have_one_title() -> None:
    metrics = plan_of(f"metric=[{','.join(options('metric'))}]", "evaluation.shadows=16").metrics
    found = {name: said.title for metric in metrics for name, said in metric.about().items()}
    assert len(set(found.values())) == len(found)


def test_titles_are_no_part_of_a_key_and_a_result_keeps_them() -> None:
    cfg, names = composed([])
    plan = Plan.of(cfg, names)
    assert plan.titles == {
        "dataset": "digits",
        "model": "small CNN",
        "scenario": "whole class",
        "method": "fine-tuning",
    }
    assert Plan.of(*composed([f"method.{TITLE}='my own'"])).key == plan.key
    with pytest.raises(UserError, match=r"method\.titel is no parameter"):
        OmegaConf.set_struct(cfg, False)
        cfg.method.titel = "x"
        build(cfg.method, type(plan.method), "method")


def test_a_choice_is_titled_by_its_result_then_its_variant_then_its_file_then_its_name() -> None:
    made = result("random_labels", 0, 0.2)
    assert choice(made, "method") == "random labels"
    assert choice(replace(made, titles={"method": "mine"}), "method") == "mine"
    variant = {**made.names, "method": "per_sample_amnesiac", "variant": "per_sample_p10"}
    assert choice(replace(made, names=variant), "method") == "per-sample amnesiac, 10 % kept"
    plain = {**variant, "variant": "amnesiac", "method": "amnesiac"}
    assert choice(replace(made, names=plain), "method") == "amnesiac"
    assert choice(replace(made, names={**made.names, "method": "halve_head"}), "method") == "halve head"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("method.lr", 0.01, "learning rate 0.01"),
        ("pretrain.training.lr", 0.1, "learning rate 0.1 in training"),
        ("recorder.keep", 0.075, "7.5 % kept"),
        ("repair.epochs", 4, "4 epochs in the repair"),
        ("method.ascent_epochs", 1, "1 epoch of ascent"),
        ("scenario.count", 1, "1 row"),
        ("method.strength", "auto", "strength auto"),
        ("scenario.classes", [3, 5], "classes 3, 5"),
        ("method.include_retain", False, "no include retain"),
        ("method.rewind_error", 0.1, "rewind error 0.1"),
    ],
)
def test_an_option_is_put_into_words(option: str, value: object, words: str) -> None:
    assert setting(as_option(option), value) == words


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("method.lr", "learning rate"),
        ("training.lr", "learning rate in training"),
        ("recorder.keep_first", "share of the first layer kept"),
        ("method.batch_size", "batch size"),
        ("budget.gradient_examples", "gradient examples"),
        ("training.precision", "precision in training"),
        ("method.strength", "strength"),
    ],
)
def test_an_axis_names_an_option_in_words(option: str, words: str) -> None:
    assert axis(option) == words


def test_lines_are_labelled_in_words_and_an_option_that_is_null_in_none() -> None:
    results = [
        result("finetune", 0, 0.2),
        result("finetune", 0, 0.6, **{"method.lr": 0.01}),
        result("random_labels", 0, 0.3, budget=None),
        result("random_labels", 0, 0.4, budget=10),
    ]
    report = Report(results, COLUMNS)
    assert set(report.titles.values()) == {
        "original",
        "retrained",
        "fine-tuning, learning rate 0.1",
        "fine-tuning, learning rate 0.01",
        "random labels",
        "random labels, budget of 10 gradient examples",
    }
    assert {"random_labels", "random_labels (budget=10)"} <= set(report.labels.values())
    assert "None" not in report.terminal() + report.csv() + report.markdown() + report.latex()


def test_a_terminal_and_a_csv_show_identifiers_and_everything_else_words() -> None:
    report = Report([result("random_labels", 0, 0.3)], COLUMNS)
    for text in (report.terminal(), report.csv()):
        assert "random_labels" in text and "random labels" not in text
    for text in (report.markdown(), report.latex()):
        assert "random labels" in text and "random_labels" not in text and r"random\_" not in text


def test_a_score_is_titled_by_what_results_say_of_it_or_by_its_name() -> None:
    about = {"class_<k>_accuracy": {"title": "accuracy of class <k>"}}
    assert score("class_7_accuracy", about) == "accuracy of class 7"
    assert score("train_forget_accuracy", {}) == "accuracy on forgotten training rows"
    assert score("test_own_score", {}) == "own score on test rows"
    assert score("record_bytes", {}) == "record (bytes)"
    assert score("my_own", {"my_own": {"says": "of an earlier version"}}) == "my own"


@pytest.mark.parametrize("part", PARTS)
def test_what_an_accuracy_is_called_does_not_hang_on_the_age_of_its_result(part: str) -> None:
    (metric,) = plan_of("metric=[accuracy]").metrics
    said: Score = metric.about()[f"{part}_accuracy"]
    assert score(f"{part}_accuracy", {}) == said.title
