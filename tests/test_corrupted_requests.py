"""Requests to forget corrupted rows: what is corrupted, what is named, and what the scores see of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data.corruption import Corruption
from data.errors import UserError
from data.requests import Noise, Request
from data.split import Dataset, Pixels, Split
from data.streams import Streams
from metrics.evidence import Attacked, Evidence, Needs
from metrics.metric import Metric
from metrics.predictions import by_part
from runner.plan import Plan, identities
from runner.results import Result
from runner.score.evidence import score_models
from runner.score.stored import StoredPieces
from runner.stages.corrupted import aligned
from runner.store import Store
from tests.conftest import keys_of, plan_of, result_of, stages_of

Quick = Callable[..., Plan]

SCENARIOS = ["poisoned", "label_swap", "noise_poison"]
each = pytest.mark.parametrize("scenario", SCENARIOS)


def scenario_of(*overrides: str) -> Any:
    """Return the corrupting scenario of a plan."""
    found = plan_of(*overrides).scenario
    assert isinstance(found, Corruption)
    return found


def request_of(scenario: Corruption, digits: Dataset, seed: int = 0) -> Request:
    """Return the rows that a scenario names in its corrupted data."""
    return scenario.select(scenario.corrupt(digits), Streams(seed, "request"))


def changed(before: Split, after: Split) -> Tensor:
    """Return the rows whose image or label differs."""
    images = (before.images != after.images).flatten(1).any(1)
    return before.rows[images | (before.labels != after.labels)]


# The corrupted data


@each
def test_the_corrupted_rows_are_exactly_the_drawn_ones(scenario: str, digits: Dataset) -> None:
    """Rows of the poison's target do change too: their corner is not white."""
    found = scenario_of(f"scenario={scenario}")
    request = request_of(found, digits)
    assert torch.equal(changed(digits.train, found.corrupt(digits).train), request.rows)


@each
def test_the_test_set_and_the_clean_data_stay_as_they_are(scenario: str, digits: Dataset) -> None:
    images, labels = digits.train.images.clone(), digits.train.labels.clone()
    corrupted = scenario_of(f"scenario={scenario}").corrupt(digits)
    assert corrupted.test is digits.test
    assert torch.equal(images, digits.train.images) and torch.equal(labels, digits.train.labels)


@pytest.mark.parametrize(
    ("override", "rows"),
    [
        ("scenario=poisoned scenario.count=30", 30),
        ("scenario=poisoned scenario.fraction=0.1", round(0.1 * 1438)),
        ("scenario=noise_poison scenario.fraction=0.1", round(0.1 * 1438)),
        ("scenario=label_swap scenario.count=17", 17),
        ("scenario=label_swap scenario.fraction=0.2", round(0.2 * 285)),
    ],
)
def test_a_count_or_a_share_of_the_rows_is_corrupted(override: str, rows: int, digits: Dataset) -> None:
    assert len(request_of(scenario_of(*override.split()), digits).rows) == rows


def test_a_poisoned_row_has_the_trigger_and_the_target(digits: Dataset) -> None:
    found = scenario_of(
        "scenario=poisoned", "scenario.size=2", "scenario.value=0.6", "scenario.target=seven"
    )
    rows = request_of(found, digits).rows
    before, after = digits.train.only(rows), found.corrupt(digits).train.only(rows)
    assert (after.labels == 7).all() and set(before.labels.tolist()) == set(range(10))
    assert (after.images[:, :, 6:, 6:] == 153).all()
    elsewhere = torch.ones(8, 8, dtype=torch.bool)
    elsewhere[6:, 6:] = False
    assert torch.equal(after.images[..., elsewhere], before.images[..., elsewhere])


def test_swapped_rows_have_the_label_of_the_other_class(digits: Dataset) -> None:
    found = scenario_of("scenario=label_swap", "scenario.classes=[5,3]")
    rows = request_of(found, digits).rows
    before, after = digits.train.only(rows), found.corrupt(digits).train.only(rows)
    assert set(before.labels.tolist()) == {3, 5}
    assert ((before.labels == 3) == (after.labels == 5)).all()
    assert ((before.labels == 5) == (after.labels == 3)).all()


def test_poisoned_images_are_the_clean_ones_plus_the_noise_in_bytes(digits: Dataset) -> None:
    found = scenario_of("scenario=noise_poison", "scenario.deviation=0.2")
    noise = found.noise(digits.train)
    assert torch.equal(noise.rows, request_of(found, digits).rows)
    clean = digits.train.only(noise.rows)
    wanted = (clean.images + 0.2 * 255 * noise.values).round().clamp(0, 255)
    after = found.corrupt(digits).train.only(noise.rows)
    assert torch.equal(after.images.float(), wanted) and torch.equal(after.labels, clean.labels)


def test_the_noise_is_standard_normal_before_it_is_scaled(digits: Dataset) -> None:
    values = scenario_of("scenario=noise_poison").noise(digits.train).values
    n = values.numel()  # standard errors 1/√n of the mean and √(2/n) of the variance
    assert abs(values.mean()) < 4 / n**0.5 and abs(values.var() - 1) < 4 * (2 / n) ** 0.5


@each
def test_no_seed_of_a_run_changes_the_corruption_and_its_own_does(
    scenario: str, digits: Dataset
) -> None:
    found, other = (scenario_of(f"scenario={scenario}", f"scenario.seed={seed}") for seed in (0, 1))
    assert torch.equal(request_of(found, digits).rows, request_of(found, digits, seed=1).rows)
    assert request_of(found, digits).rows.tolist() != request_of(other, digits).rows.tolist()


# The request


@each
def test_a_known_share_of_the_corrupted_rows_is_named(scenario: str, digits: Dataset) -> None:
    """A smaller share is a part of a larger one, and names a row at least."""
    rows = [
        set(
            request_of(
                scenario_of(f"scenario={scenario}", f"scenario.known={known}"), digits
            ).rows.tolist()
        )
        for known in (1, 0.5, 0.1, 1e-6)
    ]
    assert rows[0] > rows[1] > rows[2] > rows[3]
    assert [len(part) for part in rows] == [
        len(rows[0]), round(0.5 * len(rows[0])), round(0.1 * len(rows[0])), 1
    ]  # fmt: skip


@each
def test_unknown_corrupted_rows_are_retained(quick: Quick, scenario: str) -> None:
    plan = quick("method=retrain", f"scenario={scenario}", "scenario.known=0.5")
    stages = stages_of(plan)
    rows = changed(plan.source.load(plan.data_root, False).limited(20).train, stages.dataset.train)
    retained = stages.dataset.train.without(stages.request.rows).rows
    unknown = rows[torch.isin(rows, retained)]
    assert len(unknown) == len(rows) - len(stages.request.rows) > 0
    assert len(stages.request.test) == 0


@each
def test_runs_with_other_known_shares_have_one_original(scenario: str) -> None:
    some, all_of_them = (
        keys_of(plan_of(f"scenario={scenario}", f"scenario.known={known}")) for known in (0.5, 1)
    )
    assert some["pretrain"] == all_of_them["pretrain"] and some["predict"] == all_of_them["predict"]
    assert some["request"] != all_of_them["request"] and some["unlearn"] != all_of_them["unlearn"]


@pytest.mark.parametrize(
    "override",
    [
        "scenario=poisoned scenario.target=1", "scenario=poisoned scenario.size=2",
        "scenario=poisoned scenario.value=0.5", "scenario=poisoned scenario.count=3",
        "scenario=poisoned scenario.seed=1", "scenario=label_swap scenario.classes=[3,8]",
        "scenario=noise_poison scenario.deviation=0.1",
    ],
)  # fmt: skip
def test_another_corruption_has_another_original(override: str) -> None:
    chosen, changes = override.split()
    assert keys_of(plan_of(chosen))["pretrain"] != keys_of(plan_of(chosen, changes))["pretrain"]


def test_the_order_of_the_swapped_classes_is_no_difference() -> None:
    plans = [plan_of("scenario=label_swap", f"scenario.classes={two}") for two in ("[3,5]", "[5,3]")]
    assert plans[0].key == plans[1].key


@pytest.mark.parametrize("scenario", ["whole_class", "random", "relabel"])
def test_a_scenario_that_corrupts_nothing_leaves_the_data_and_their_identity(
    scenario: str, digits: Dataset
) -> None:
    plan = plan_of(f"scenario={scenario}")
    assert plan.scenario.corrupt(digits) is digits and plan.scenario.corruption() is None
    assert set(identities.data(plan)) == {"source", "limit"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("scenario=poisoned scenario.known=0", "scenario.known=0.0: it must be above 0 and at most 1"),
        ("scenario=label_swap scenario.known=0", "scenario.known=0.0: it must be above 0"),
        ("scenario=noise_poison scenario.known=1.1", "scenario.known=1.1: it must be above 0"),
        ("scenario=poisoned scenario.target=10", "scenario.target asks for class 10"),
        ("scenario=poisoned scenario.size=9", "set at most their 8 pixels"),
        ("scenario=poisoned scenario.value=2", "scenario.value=2.0: it must be at least 0"),
        ("scenario=label_swap scenario.classes=[3]", "the two classes whose labels are swapped"),
        ("scenario=label_swap scenario.classes=[3,3]", "the two classes whose labels are swapped"),
        ("scenario=label_swap scenario.classes=[3,5,7]", "the two classes whose labels are swapped"),
        ("scenario=noise_poison scenario.deviation=0.001", "scenario.deviation=0.001: it must be at"),
    ],
)
def test_impossible_corruptions_are_refused_before_data_is_read(override: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of(*override.split())
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("scenario=poisoned scenario.count=201", "201 of the 200 training rows"),
        ("scenario=label_swap scenario.count=41", "set scenario.count from 1 to 40"),
        ("scenario=noise_poison scenario.fraction=0.001", "0 of the 200 training rows"),
        ("scenario=poisoned scenario.count=200", "nothing would be retained"),
    ],
)
def test_a_corruption_that_does_not_fit_the_rows_is_refused_before_training(
    quick: Quick, override: str, words: str
) -> None:
    stages = stages_of(quick(*override.split()))
    with pytest.raises(UserError) as refused:
        _ = stages.request
    assert words in str(refused.value)
    assert not (stages.plan.root / "store" / "pretrain").exists()


# The scores


def metric_of(name: str) -> Metric:
    (found,) = plan_of(f"metric=[{name}]").metrics
    return found


def test_attack_success_and_clean_accuracy_are_shares_of_their_rows() -> None:
    """4 attacked rows, of which 3 answer the aim; 3 clean rows that count, of which 2 are right."""
    answers = torch.eye(3)
    attack = Attacked(
        answers[[2, 2, 2, 0]], torch.tensor([2, 2, 2, 2]), torch.tensor([True, True, True, False])
    )
    test = (answers[[0, 1, 1, 0]], torch.tensor([0, 1, 2, 0]), torch.arange(4))
    predictions = by_part({"test": test}, {"test": torch.arange(0)}, None)
    found = metric_of("attack_success")(Evidence({Needs.PREDICTIONS: predictions, Needs.ATTACK: attack}))
    assert found == {"attack_success": 0.75, "clean_accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("t", "sum_over_root", "auc", "tpr"),
    [
        ([0.0, 0.0], 0.0, 0.5, 0.0),
        ([1.0, 1.0, 1.0, 1.0], 2.0, 0.841344746, 0.0),  # Φ(1)
        ([-2.0, 2.0, 3.0, 1.0], 2.0, 0.709998712, 0.25),  # Φ⁻¹(0.99) = 2.3263
    ],
)
def test_poison_alignment_is_a_standard_normal_sum_with_a_closed_auc(
    t: list[float], sum_over_root: float, auc: float, tpr: float
) -> None:
    given = Evidence({Needs.ALIGNMENT: torch.tensor(t, dtype=torch.float64)})
    assert metric_of("poison_alignment")(given) == {
        "poison_alignment": pytest.approx(sum_over_root),
        "poison_alignment_auc": pytest.approx(auc),
        "poison_alignment_tpr_1": tpr,
    }


def test_the_attack_shows_triggered_rows_of_other_classes(digits: Dataset) -> None:
    attack = scenario_of("scenario=poisoned", "scenario.target=4").attack(digits.test)
    others = digits.test.take(digits.test.labels != 4)
    assert torch.equal(attack.shown.rows, others.rows) and (attack.shown.labels == 4).all()
    assert (attack.shown.images[:, :, 5:, 5:] == 255).all() and attack.clean.all()
    assert torch.equal(attack.shown.images[:, :, :5], others.images[:, :, :5])


def test_the_attack_by_swapped_labels_shows_the_two_classes(digits: Dataset) -> None:
    attack = scenario_of("scenario=label_swap").attack(digits.test)
    both = digits.test.take(attack.clean)
    assert set(both.labels.tolist()) == {3, 5} and set(digits.test.labels[~attack.clean].tolist()) == {
        0, 1, 2, 4, 6, 7, 8, 9
    }  # fmt: skip
    assert torch.equal(attack.shown.images, both.images)
    assert torch.equal(attack.shown.labels, 8 - both.labels)


def clean_rows(images: list[list[int]], std: tuple[float, ...]) -> Split:
    """Return images of one pixel per channel, all of class 0."""
    pixels = torch.tensor(images, dtype=torch.uint8)[:, :, None, None]
    n = len(images)
    labels = torch.zeros(n, dtype=torch.int64)
    return Split(pixels, labels, torch.arange(n), Pixels((0.0,) * len(std), std))


def test_a_linear_model_has_the_alignment_of_its_weights() -> None:
    """φ = z_0 − z_1 = (w_0 − w_1)·x with x = pixel/std: ∇φ ∝ (3/0.5, 4/0.5) ∝ (0.6, 0.8)."""
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[3.0, 5.0], [0.0, 1.0]])
    values = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-2.0, 0.5]])[:, :, None, None]
    clean = clean_rows([[0, 0], [9, 200], [255, 255]], (0.5, 0.5))
    t = aligned(lambda x: model(x.flatten(1)), clean, Noise(torch.arange(3), values), batch_size=2)
    assert t.tolist() == pytest.approx([0.6, 1.4, -0.8])


def test_the_alignment_is_in_the_pixels_own_units() -> None:
    """std (0.5, 1) turns ∇φ = (3, 8) of the model's input into (6, 8) of the pixels."""
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[3.0, 8.0], [0.0, 0.0]])
    values = torch.tensor([[1.0, 0.0]])[:, :, None, None]
    noise = Noise(torch.arange(1), values)
    t = aligned(lambda x: model(x.flatten(1)), clean_rows([[0, 0]], (0.5, 1.0)), noise, batch_size=1)
    assert t.item() == pytest.approx(0.6)


def test_a_sure_model_has_an_alignment_and_a_constant_one_has_none() -> None:
    """At logits of 10⁴, the loss and its gradient are 0 in any floating-point number."""
    values = torch.ones(1, 1, 1, 1)
    noise, clean = Noise(torch.arange(1), values), clean_rows([[200]], (1.0,))
    sure = torch.tensor([1e4, -1e4])
    assert aligned(lambda x: x.flatten(1) * sure, clean, noise, 1).item() == pytest.approx(1)
    assert aligned(lambda x: x.flatten(1) * 0 * sure, clean, noise, 1).item() == 0


# Real trainings

TRAINED = [
    "method=original", "data.limit=null", "model.widths=[8,16]", "model.hidden=32", "training.lr=0.05",
    "training.epochs=10", "metric=[accuracy,attack_success,poison_alignment]",
]  # fmt: skip


def keys_in(result: Result, stage: str) -> set[str]:
    """Return the keys of a result's artefacts of a stage."""
    return {key for found, key in result.artefacts if found == stage}


def test_a_poisoned_model_obeys_the_trigger_and_a_retrained_one_does_not(quick: Quick) -> None:
    """A tenth of the poison known: the retrained model is poisoned as well, from the same original."""
    result = result_of(quick(*TRAINED, "scenario=poisoned"))
    original, retrained = result.scores["original"], result.scores["reference"]
    assert original["attack_success"] > 0.9 and retrained["attack_success"] < 0.1
    assert original["clean_accuracy"] > 0.95 and retrained["clean_accuracy"] > 0.95
    assert original["clean_accuracy"] == original["test_accuracy"]
    partly = result_of(quick(*TRAINED, "scenario=poisoned", "scenario.known=0.1"))
    assert partly.weights["original"] == result.weights["original"]
    assert partly.scores["reference"]["attack_success"] > 0.9
    assert keys_in(partly, "pretrain") == keys_in(result, "pretrain")
    assert keys_in(partly, "attack") & keys_in(result, "attack"), "the original is attacked once"


def test_swapped_labels_confuse_the_two_classes_until_they_are_forgotten(quick: Quick) -> None:
    scores = result_of(quick(*TRAINED, "scenario=label_swap")).scores
    original, retrained = scores["original"], scores["reference"]
    assert original["attack_success"] > 0.3 and retrained["attack_success"] < 0.1
    assert original["clean_accuracy"] < 0.7 and retrained["clean_accuracy"] > 0.9


def test_the_noise_of_a_model_that_learned_it_is_aligned_and_of_a_retrained_one_is_not(
    tmp_path: Path,
) -> None:
    """The default training, on three draws of rows and noise: Σ z/√3 of the retrained models is N(0, 1),
    which leaves ±3 once in 370 times."""
    options = ["scenario=noise_poison", "metric=[poison_alignment]", "tracking=off", "threads=1"]
    options += ["method=original", f"paths.root={tmp_path}"]
    each = [result_of(plan_of(*options, f"scenario.seed={seed}")).scores for seed in range(3)]
    original, retrained = (
        {name: sum(scores[role][name] for scores in each) for name in each[0][role]}
        for role in ("original", "reference")
    )
    assert original["poison_alignment"] > 3 * 3**0.5 > abs(retrained["poison_alignment"])
    assert original["poison_alignment_auc"] > retrained["poison_alignment_auc"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_stored_results_are_scored_again_without_the_data(quick: Quick, scenario: str) -> None:
    """The noise in the rows of this request alone counts, although the store has that of all rows."""
    plan = quick(f"scenario={scenario}", "scenario.known=0.5", *TRAINED[-1:])
    result = result_of(plan)
    assert ("attack_success" in result.scores["unlearned"]) == (scenario != "noise_poison")
    assert ("poison_alignment" in result.scores["unlearned"]) == (scenario == "noise_poison")
    again = score_models(plan.metrics, StoredPieces(Store(plan.root / "store"), result)).roles
    assert {role.name: scores for role, scores in again.items()} == result.scores


def test_a_run_without_corruption_has_no_score_of_it(quick: Quick) -> None:
    result = result_of(quick(*TRAINED[-1:]))
    assert all(name.endswith("accuracy") for name in result.scores["unlearned"])
    assert "clean_accuracy" not in result.scores["unlearned"]
    assert not keys_in(result, "attack") | keys_in(result, "poison_test")
