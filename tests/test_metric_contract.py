"""Every metric of conf/metric: it is two files, sees only what it declares, and says what it returns."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import metrics
from data.meanings import meaning
from metrics.evidence import (
    Attacked,
    Costs,
    Curves,
    Evidence,
    Features,
    Needs,
    Point,
    Population,
    Shadows,
    Undeclared,
    Weights,
)
from metrics.metric import Metric, not_finite, scored
from metrics.predictions import Predictions, by_part
from tests.conftest import options, plan_of

NAMES = options("metric")

COSTS = ("seconds", "gradient_examples")

Given = dict[Needs, Any]


def metric_of(name: str) -> Metric:
    """Return the metric that an option names."""
    (found,) = plan_of(f"metric=[{name}]", "evaluation.shadows=16").metrics
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_is_told_by_the_name_that_chooses_it(name: str) -> None:
    assert metric_of(name).option == name


def predictions_of(seed: int, named_kinds: bool, training_rows: bool = True) -> Predictions:
    """Return random predictions of 400 training and 300 test rows of 6 classes.

    The request is for class 2, or for 60 single rows.
    """
    random = torch.Generator().manual_seed(seed)
    splits, forget = {}, {}
    for split, n in (("train", 400), ("test", 300)):
        labels = torch.arange(n) % 6
        # every seed has other logits, and all lean towards the label
        logits = torch.randn(n, 6, generator=random) + 2 * torch.nn.functional.one_hot(labels, 6)
        splits[split] = (logits, labels, torch.arange(n))
        forget[split] = (
            torch.arange(n)[labels == 2] if named_kinds else torch.arange(60 * (split == "train"))
        )
    if not training_rows:
        del splits["train"]
    return by_part(splits, forget, None)


def given(named_kinds: bool, training_rows: bool = True) -> Given:
    """Return evidence of every kind."""
    each = [predictions_of(seed, named_kinds, training_rows) for seed in range(40)]
    random = torch.Generator().manual_seed(0)
    weights = [
        {"0.weight": torch.randn(6, 4, generator=random), "2.bias": torch.randn(6)} for _ in "uor"
    ]
    sizes = {"train_forget": 60, "train_retain": 60, "test_forget": 50, "test_retain": 250}
    if not named_kinds:
        del sizes["test_forget"]
    features = [{part: torch.randn(n, 5, generator=random) for part, n in sizes.items()} for _ in "uor"]
    for part in {"train_forget", "test_forget"} & set(sizes):
        features[1][part] += 2  # the original tells the forgotten rows from the retained
    rising = [Point(batches, batches / 10, 0.1 * batches, 0.5 + 0.05 * batches) for batches in range(10)]
    curves = Curves(rising[1:], rising, Point(0, 0.0, 0.9, 0.9), 7)
    costs = {"seconds": 1.0, "gradient_examples": 100.0}
    found: Given = {
        Needs.PREDICTIONS: each[0],
        Needs.REFERENCE: each[1],
        Needs.REFERENCES: each[1:5],
        Needs.ORIGINAL: each[5],
        Needs.RANDOM: each[6],
        Needs.WEIGHTS: Weights(*weights),
        Needs.FEATURES: Features(*features),
        Needs.RELEARN: curves,
        Needs.RECOVER: curves,
        Needs.COSTS: Costs(costs, {name: 2 * value for name, value in costs.items()}),
        Needs.ATTACK: Attacked(torch.randn(50, 6), torch.arange(50) % 6, torch.arange(300) % 2 == 0),
        Needs.ALIGNMENT: torch.randn(60, dtype=torch.float64, generator=random),
        Needs.POPULATION: Population(each[0:8], each[8:16]),
    }
    if training_rows:
        rows = len(each[0].logits["train_forget"])
        halves = [torch.rand(rows, generator=random) < 0.5 for _ in range(4)]
        forgot = torch.stack([side for half in halves for side in (half, ~half)])
        found[Needs.SHADOWS] = Shadows(each[16:24], each[24:32], forgot, torch.arange(rows))
    return found


def test_every_metric_is_two_files_and_has_a_card() -> None:
    folder = Path(metrics.__file__).parent
    shared = {"__init__", "evidence", "metric", "predictions"}
    assert {path.stem for path in folder.glob("*.py")} - shared == set(NAMES)
    for name in NAMES:
        assert ast.get_docstring(ast.parse((folder / f"{name}.py").read_text())), name


@pytest.mark.parametrize("training_rows", [True, False])
@pytest.mark.parametrize("named_kinds", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_metric_sees_what_it_declares_and_says_what_it_returns(
    name: str, named_kinds: bool, training_rows: bool
) -> None:
    metric = metric_of(name)
    evidence = Evidence(given(named_kinds, training_rows))
    if not evidence.lacks(metric.needs):
        scores = metric(evidence.only(metric.needs))  # raises Undeclared if it reads more
        assert all(meaning(score, metric.about()) for score in scores)
        assert scored([metric], evidence) == scores and not not_finite(scores)


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_scores_a_request_for_a_class(name: str) -> None:
    """It declares nothing that it cannot use: without any one of its needs, it is left out."""
    metric = metric_of(name)
    everything = given(named_kinds=True) if name not in RANDOM_ONLY else given(named_kinds=False)
    assert scored([metric], Evidence(everything))
    for need in metric.needs:
        less = {key: value for key, value in everything.items() if key is not need}
        assert not scored([metric], Evidence(less))
        with pytest.raises(Undeclared, match=f"Needs.{need.name}"):
            metric(Evidence(less))


@pytest.mark.parametrize("name", [name for name in NAMES if metric_of(name).paired])
def test_scores_are_alone_that_do_not_depend_on_the_retrained_model(name: str) -> None:
    """The report pools them over all retrained models, as it does those of other metrics."""
    metric, evidence = metric_of(name), given(named_kinds=True)
    other = evidence | {
        Needs.REFERENCE: predictions_of(50, named_kinds=True),
        Needs.COSTS: Costs({"seconds": 1.0, "gradient_examples": 100.0}, dict.fromkeys(COSTS, 7.0)),
        Needs.RELEARN: replace(evidence[Needs.RELEARN], reference=[Point(3, 0.3, 1.0, 1.0)]),
    }
    for need in (Needs.WEIGHTS, Needs.FEATURES):
        moved = {key: each.square() for key, each in evidence[need].reference.items()}
        other[need] = replace(evidence[need], reference=moved)
    before, after = scored([metric], Evidence(evidence)), scored([metric], Evidence(other))
    for score, value in before.items():
        said = meaning(score, metric.about())
        assert said is not None and said.alone == (after[score] == value), score


# Metrics that a request for a whole class leaves without a score.
RANDOM_ONLY = {"rmia", "rmia_online"}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_metric_says_of_its_scores_is_complete(name: str) -> None:
    for score, said in metric_of(name).about().items():
        assert said.says.endswith(".") and said.says[0].isupper(), score
        assert said.unit and said.remembers in (-1, 0, 1), score
        assert said.margin is None or said.margin > 0, score
