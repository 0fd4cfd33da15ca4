"""What a run says of a model that learned, forgot or kept nothing."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch

from metrics.accuracy import Accuracy
from metrics.evidence import Evidence
from metrics.metric import Better, Metric, Score, Scores
from metrics.predictions import Predictions
from runner.plan import Plan
from runner.remarks import at_chance, remarks
from runner.report import Report
from runner.state.standing import lacking_scores
from tests.conftest import LEARNED, result_of
from tests.test_report import result

Quick = Callable[..., Plan]


def answers(part: str, right: int, of: int = 100) -> Predictions:
    """Predictions of `of` rows of four equal classes, of which `right` are right."""
    labels = torch.arange(of) % 4
    given = torch.where(torch.arange(of) < right, labels, (labels + 1) % 4)
    logits = torch.nn.functional.one_hot(given, 4).float()
    return Predictions({part: logits}, {part: labels}, 4)


GOOD, CHANCE = answers("test", 90), answers("test", 30)


@pytest.mark.parametrize("part", ["test", "test_retain"])
def test_a_model_within_two_standard_errors_of_a_constant_answer_is_at_chance(part: str) -> None:
    """p = 1/4 and n = 100: 0.25 + 2 · 0.0433 = 0.3366."""
    assert at_chance(answers(part, 33)) and not at_chance(answers(part, 34))


def said_of(plan: Plan, original: Predictions, unlearned: Predictions) -> tuple[dict[str, float], str]:
    said: list[str] = []
    return remarks(plan, original, unlearned, False, said.append), " | ".join(said)


def test_a_method_that_works_and_moves_nothing_is_named(quick: Quick) -> None:
    found, text = said_of(quick("method=ssd"), GOOD, GOOD)
    assert found == {"moved_no_prediction": 1} and "predicted class of no row" in text
    found, text = said_of(quick("method=ssd", "evaluation=test_only"), GOOD, GOOD)
    assert found == {"moved_no_prediction": 1} and "predicted class of no test row" in text
    assert said_of(quick("method=ssd"), GOOD, answers("test", 89)) == ({}, "")


@pytest.mark.parametrize(
    "still",
    [
        ["budget.gradient_examples=1"],  # less than a batch
        ["method.epochs=0"],
        ["method.lr=1e-12"],  # whose steps round to nothing
        ["method=boundary_shrink", "scenario=random", "method.lr=1e-12"],
        ["method=ssd", "method.alpha=1e6"],  # which selects no weight
    ],
    ids=" ".join,
)
def test_a_model_that_is_the_original_is_named_in_row_and_table(
    quick: Quick, still: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    made = result_of(quick(*still, "evaluation=quick"))
    own = made.costs["unlearned"]
    assert (own["is_the_original"], own["moved_no_prediction"]) == (1, 1)
    assert "the model is the original, bit for bit" in capsys.readouterr().err
    text = Report([made], ["test_accuracy"]).terminal()
    assert f"the original bit for bit: {made.variant} (seed 0)" in text
    assert "moved no prediction" not in text, "one remark"


def test_a_model_that_answers_as_the_original_is_named_in_row_and_table(quick: Quick) -> None:
    made = result_of(quick(*LEARNED, "method.lr=1e-7", "evaluation=quick"))
    assert "is_the_original" not in made.costs["unlearned"]
    assert made.costs["unlearned"]["moved_no_prediction"] == 1
    text = Report([made], ["test_accuracy"]).terminal()
    assert "moved no prediction: finetune (seed 0)" in text


def test_the_original_is_not_expected_to_move_anything(quick: Quick) -> None:
    assert said_of(quick("method=original"), GOOD, GOOD) == ({}, "")
    made = result_of(quick("method=original", "evaluation=quick"))
    assert "is_the_original" not in made.costs["unlearned"]


LIMITED = "at most 20 rows per class, or per fine class, of training and test set alike; 200 test rows"


def test_a_limit_is_named_below_every_table_as_it_cuts_the_test_set(quick: Quick) -> None:
    """20 rows of each of ten digits."""
    report = Report([result_of(quick("evaluation=quick"))], ["test_accuracy"])
    pages = report.terminal(), report.markdown(), report.latex()
    assert all(f"data.limit=20: {LIMITED}" in page for page in pages)


def test_the_lines_of_a_limit_are_named_if_others_have_none(quick: Quick) -> None:
    methods, limits = ("finetune", "ssd", "retrain"), ("20", "20", "null")
    made = [
        result_of(quick("evaluation=quick", f"method={method}", f"data.limit={limit}"))
        for method, limit in zip(methods, limits, strict=True)
    ]
    assert f"data.limit=20 of finetune, ssd: {LIMITED}" in Report(made, ["test_accuracy"]).terminal()
    text = Report(made[2:], ["test_accuracy"]).terminal()
    assert "data.limit" not in text, "the whole data set has no remark"


def test_a_result_that_does_not_count_its_test_rows_names_its_limit(quick: Quick) -> None:
    earlier = replace(result_of(quick("evaluation=quick")), test_rows=None)
    text = Report([earlier], ["test_accuracy"]).terminal()
    assert f"data.limit=20: {LIMITED.removesuffix('; 200 test rows')}\n" in text


@pytest.mark.parametrize(
    ("method", "cure"),
    [("finetune", "lower method.lr"), ("sisa", "choose other options"), ("retrain", "of the training")],
)
def test_a_model_at_chance_is_named_with_what_the_method_has(
    quick: Quick, method: str, cure: str
) -> None:
    found, text = said_of(quick(f"method={method}"), GOOD, CHANCE)
    assert found == {"at_chance": 1} and cure in text
    assert ("method.lr" in text) == (method == "finetune")


def test_an_original_that_has_not_learned_the_rows_to_forget_is_named_in_the_table(
    quick: Quick,
) -> None:
    """Retrained models do not know them either, and so even the original matches."""
    weak, learned = (
        result_of(quick("evaluation=quick", *how)) for how in (["training.lr=1e-9"], LEARNED)
    )
    share = weak.scores["original"]["train_forget_accuracy"]
    assert share < 0.5 < learned.scores["original"]["train_forget_accuracy"]
    words = f"the original knows only {share:.3f} of the train forget rows (seed 0)"
    assert words in Report([weak], ["test_accuracy"]).terminal()
    assert "knows only" not in Report([learned], ["test_accuracy"]).terminal()
    # seeds stand by their size, as in the store
    several = [replace(weak, seed=seed) for seed in (0, 2, 10)]
    assert "(seed 0, 2, 10)" in Report(several, ["test_accuracy"]).terminal()
    # of two requests of one seed, the second one's original has learned
    random = result_of(quick("evaluation=quick", "scenario=random", *LEARNED))
    words = f"knows only {share:.3f} of the train forget rows (seed 0)"
    assert words in Report([weak, random], ["test_accuracy"]).terminal()


def test_an_original_at_chance_is_not_held_against_the_method(quick: Quick) -> None:
    assert said_of(quick(), CHANCE, answers("test", 29)) == ({}, "")


@dataclass(frozen=True)
class Own(Metric):
    """A metric that returns the same for every model."""

    found: Scores = field(default_factory=dict)

    def about(self) -> Mapping[str, Score]:
        return {"mine": Score("A number.", Better.lower)}

    def __call__(self, evidence: Evidence) -> Scores:
        return self.found


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_returns_no_finite_number_is_named_with_the_lines(
    quick: Quick, value: float
) -> None:
    own = Own({"mine": value})
    made = result_of(replace(quick("evaluation=quick"), metrics=[Accuracy(), own]))
    assert "mine" not in made.scores["unlearned"] and not lacking_scores([own], made)
    text = Report([made, replace(made, seed=1, key="other")], ["test_accuracy"]).terminal()
    lines = "original (seed 0, 1); finetune (seed 0, 1)"
    assert f"mine has no value of {lines}: its metric returned nan or infinity" in text


def test_a_metric_that_returns_nothing_is_named_and_where_it_does(quick: Quick) -> None:
    made = result_of(replace(quick("evaluation=quick"), metrics=[Accuracy(), Own()]))
    other = replace(made, seed=1, key="other", undefined={})
    name, why = "test_remarks has no score", "it returns none for these models"
    assert f"{name}: {why}" in Report([made], ["test_accuracy"]).terminal()
    both = Report([made, other], ["test_accuracy"])
    assert f"{name} of finetune (seed 0): {why}" in both.terminal()
    words = both.markdown()
    assert f"test remarks has no score of fine-tuning (seed 0): {why}" in words, "no identifier"


def test_words_below_a_table_are_people_s_words() -> None:
    """Of a metric, a score and the retrained models; a terminal tells what one types."""
    made = result("finetune", 0, 0.6)
    made = replace(
        made,
        undefined={"mia_loss": "one class is left"},
        not_finite={"unlearned": ["train_forget_loss"]},
        reference_from="weights",
    )
    report = Report([made], ["test_accuracy"])
    for typed, text in (
        ("mia_loss has no score", "loss attack has no score"),
        ("train_forget_loss has no value", "loss on forgotten training rows has no value"),
        ("retrain: starts from a file", "retrained: starts from a file"),
    ):
        assert typed in report.terminal() and text in report.markdown()
        assert typed not in report.markdown()


@pytest.mark.parametrize("option", ["curve_batches=20", "metrics.ece.bins=5", "reference=mine"])
def test_runs_whose_scores_were_made_otherwise_are_told(option: str) -> None:
    own = f"evaluation.{option}"
    first = replace(result("finetune", 0, 0.4), overrides=["seed=0", own])
    other = replace(result("finetune", 1, 0.6), overrides=["seed=1", "evaluation.references=8"])
    name, _, value = own.partition("=")
    told = (
        f"scored with different {name}: {value} for finetune (seed 0); not given for finetune (seed 1)"
    )
    assert told in Report([first, other], ["test_accuracy"]).terminal()
    alike = replace(other, overrides=["seed=1", own])
    assert "scored with different" not in Report([first, alike], ["test_accuracy"]).terminal()


def test_a_metric_of_ones_own_beside_the_others_changes_no_score_of_theirs() -> None:
    own = "+evaluation.metrics.mine._target_=mine.Mine"
    first = replace(result("finetune", 0, 0.4), overrides=[own])
    other = result("finetune", 1, 0.6)
    assert "scored with different" not in Report([first, other], ["test_accuracy"]).terminal()


def test_a_retrained_model_without_a_value_is_named_by_its_own_seed() -> None:
    others = {
        str(seed): {"weights": f"r{seed}", "scores": scores, "costs": {"gradient_examples": 1000.0}}
        for seed, scores in ((1, {"test_accuracy": 0.5}), (2, {}))
    }
    nan = {"reference": ["test_accuracy"]}
    made = replace(result("finetune", 0, 0.6), references=others, not_finite=nan)
    text = Report([made], ["test_accuracy"]).terminal()
    assert "test_accuracy has no value of retrain (seed 2): its metric" in text


def test_a_seed_is_named_once_of_a_model_that_several_repairs_start_from() -> None:
    once = result("finetune", 0, 0.6)
    flagged = {**once.costs, "unlearned": {**once.costs["unlearned"], "is_the_original": 1.0}}
    made = [replace(once, key=key, costs=flagged) for key in ("plain", "repaired")]
    text = Report(made, ["test_accuracy"]).terminal()
    assert "the original bit for bit: finetune (seed 0)\n" in text
