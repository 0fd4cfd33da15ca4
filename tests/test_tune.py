"""The tuner: equal trials for every method, on a request that no table reports, resumed by the store."""

import json
import math
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from omegaconf import OmegaConf

from data.bounds import bounds_of, check_bounds
from data.errors import UserError
from metrics.evidence import Evidence, Needs
from metrics.metric import Better, Metric, Score
from metrics.predictions import Predictions
from runner.compose import composed, jobs
from runner.naming import SEARCHED
from runner.pipeline import run
from runner.plan import Plan
from runner.results import Result, Results
from runner.tune import search as search_module
from runner.tune.__main__ import main
from runner.tune.file import taken_up
from runner.tune.search import direction_of
from runner.tune.space import ends, overrides_of, rounded, space_of
from runner.tune.subjects import searches, subjects_of
from tests.composing import composed_once
from tests.conftest import CONF, LEARNED, QUICK, class_of, needs_record, options, plan_of


@dataclass(frozen=True)
class Gap(Metric):
    """The mean distance of the accuracies on retained and forgotten training rows to the reference's."""

    kind: ClassVar[str] = "tests.test_tune.Gap"
    needs: ClassVar[Needs] = Needs.PREDICTIONS | Needs.REFERENCE

    def about(self) -> Mapping[str, Score]:
        return {"own_gap": Score("Mean distance to the reference.", Better.lower)}

    def __call__(self, evidence: Evidence) -> dict[str, float | list[float] | list[list[float]]]:
        own, reference = evidence.predictions, evidence.reference
        parts = ("train_forget", "train_retain")
        return {"own_gap": sum(abs(right(own, part) - right(reference, part)) for part in parts) / 2}


@dataclass(frozen=True)
class Valueless(Metric):
    """A score that is no number, or no score at all."""

    nan: bool
    kind: ClassVar[str] = "tests.test_tune.Valueless"
    undefined: ClassVar[str] = "it has nothing to measure"

    def about(self) -> Mapping[str, Score]:
        return {"valueless": Score("Nothing.", Better.lower)}

    def __call__(self, evidence: Evidence) -> dict[str, float | list[float] | list[list[float]]]:
        return {"valueless": math.nan} if self.nan else {}


def right(predictions: Predictions, part: str) -> float:
    return float((predictions.logits[part].argmax(1) == predictions.labels[part]).double().mean())


# The options of a search of three trials by the metric above.
SEARCH = [
    *QUICK,
    *LEARNED,
    "method.batch_size=16",
    "+evaluation.metrics.gap._target_=tests.test_tune.Gap",
    "tune.objective=own_gap",
    "tune.trials=3",
]


def command(root: Path, *overrides: str, validation: str = "{classes:[5]}") -> list[str]:
    """Return the command of a search, for a table that reports class 3 unless told otherwise."""
    folders = [f"paths.root={root}", f"tune.folder={root}/conf/tuned"]
    return [*SEARCH, *folders, f"tune.validation={validation}", *overrides]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two finished searches."""
    root = tmp_path_factory.mktemp("tuned")
    main(command(root, "method=finetune,negative_gradient"))
    return root


def file_of(root: Path, method: str) -> Path:
    return root / "conf" / "tuned" / "digits_small_cnn" / f"{method}.yaml"


def header(file: Path) -> str:
    """Return the comments of a file as one line."""
    lines = [line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#")]
    return " ".join(lines)


def test_every_method_of_a_table_has_the_same_number_of_trials(tuned: Path) -> None:
    found = Results(tuned / "results").named("digits_small_cnn_whole_class_tuning")
    for method in ("finetune", "negative_gradient"):
        own = [result for result in found if result.names["method"] == method]
        assert len(own) == 3 and all(result.parameters["scenario.classes"] == [5] for result in own)


def test_the_best_trial_is_written_with_its_search(tuned: Path) -> None:
    scores = {}
    for result in Results(tuned / "results").named("digits_small_cnn_whole_class_tuning"):
        if result.names["method"] == "finetune":
            options = {name: result.parameters[f"method.{name}"] for name in ("lr", "epochs")}
            scores[json.dumps(options)] = result.scores["unlearned"]["own_gap"]
    own = {"lr": 0.02, "epochs": 5}
    best = json.loads(min(scores, key=lambda options: scores[options]))
    file = file_of(tuned, "finetune")
    text = header(file)
    assert yaml.safe_load(file.read_text())["method"] == {
        **{name: value for name, value in best.items() if value != own[name]},
        "batch_size": 16,  # the command sets it
    }
    assert f"The best of 3 trials by own_gap: {min(scores.values()):.4g}." in text
    assert f"The method's own options: {scores[json.dumps(own)]:.4g}. Failed trials: 0." in text
    assert "no table reports: scenario.classes=[5]. Seeds [0], sampler seed 0, commit " in text
    assert "python -m runner.tune data.limit=20 " in text and "method=finetune,negative_gradient" in text
    assert str(tuned) not in text, "the file is for others, the folder is not"


def test_the_file_has_what_the_command_sets_beside_the_searched_options(tmp_path: Path) -> None:
    """The search starts there, and its trials run with it."""
    own = ["method.lr=0.05", "method.batch_size=32", "method.epochs=1", "tune.trials=1"]
    main(command(tmp_path, "method=finetune", *own))
    assert yaml.safe_load(file_of(tmp_path, "finetune").read_text())["method"] == {
        "lr": 0.05,
        "epochs": 1,
        "batch_size": 32,
    }


def test_runs_that_are_told_to_take_the_options_up_and_searches_never(tuned: Path) -> None:
    searched = f"hydra.searchpath=[file://{tuned}/conf]"
    found = OmegaConf.load(file_of(tuned, "negative_gradient")).method
    assert found, "own options are not the best here"
    own = {"lr": 0.0001, "epochs": 5}
    cfg, names = composed(["method=negative_gradient", searched, SEARCHED])
    assert all(cfg.method[name] == value for name, value in found.items())
    assert names["tuned"] == "digits_small_cnn/negative_gradient"
    for choice in (["method=negative_gradient"], ["method=scrub", SEARCHED]):
        cfg, names = composed([*choice, searched])
        assert "tuned" not in names and cfg.method == composed(choice)[0].method
    (again,) = searches(command(tuned, "method=negative_gradient", searched, SEARCHED))
    assert again.own == own


def test_a_search_tells_the_options_by_which_runs_find_its_files(tuned: Path) -> None:
    told = shlex.split(taken_up(file_of(tuned, "negative_gradient")))
    assert (
        composed(["method=negative_gradient", *told])[1]["tuned"] == "digits_small_cnn/negative_gradient"
    )
    assert shlex.split(taken_up(CONF / "tuned" / "digits_small_cnn" / "ssd.yaml")) == [SEARCHED]


def test_a_folder_in_which_no_run_looks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set tune\.folder=.*/best/tuned"):
        searches(command(tmp_path, "method=finetune", f"tune.folder={tmp_path}/best"))


def test_a_search_said_again_computes_nothing(tuned: Path) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (tuned / "store").rglob("*.safetensors")}

    before, text = state(), file_of(tuned, "finetune").read_text()
    main(command(tuned, "method=finetune,negative_gradient"))
    assert before and state() == before and file_of(tuned, "finetune").read_text() == text


def test_a_longer_search_adds_trials_to_the_stored_ones(tuned: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned, tmp_path, dirs_exist_ok=True)
    count = len(list((tmp_path / "store" / "unlearn").glob("[!.]*")))
    main(command(tmp_path, "method=finetune", "tune.trials=4"))
    assert len(list((tmp_path / "store" / "unlearn").glob("[!.]*"))) == count + 1
    assert "The best of 4 trials" in header(file_of(tmp_path, "finetune"))


def test_trials_that_diverge_fail_and_are_not_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = ["method=finetune", "tune.space.lr.high=1e6", "training.epochs=1", "tune.trials=4"]
    main(command(tmp_path, *wide))
    said = capsys.readouterr().err
    failed = said.count("failed, unlearn: ")
    assert 0 < failed < 4 and said.count("own_gap") == 4 - failed
    assert f"Failed trials: {failed}." in header(file_of(tmp_path, "finetune"))
    runs = []

    def counted(plan: Plan, overrides: Sequence[str] = ()) -> Result | None:
        runs.append(plan)
        return run(plan, overrides)

    monkeypatch.setattr(search_module, "run", counted)
    main(command(tmp_path, *wide))
    assert len(runs) == 1 + 4 - failed, "one for the original, and one for every trial that was done"
    stored = Results(tmp_path / "results")
    for found in stored.named("digits_small_cnn_whole_class_tuning"):
        row = {**found.provenance["row"], "torch": "1.0"}
        stored.write(replace(found, provenance={**found.provenance, "row": row}), {})
    runs.clear()
    main(command(tmp_path, *wide))
    assert len(runs) == 1 + 4, "another version of torch may not diverge"


def test_a_search_whose_original_diverges_ends(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 searches failed, as told above"):
        main(command(tmp_path, "method=finetune", "training.lr=1e6"))
    assert not file_of(tmp_path, "finetune").exists()


VALUELESS = "+evaluation.metrics.none._target_=tests.test_tune.Valueless"


def test_a_trial_whose_objective_is_no_number_fails_and_the_next_is_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nan = [VALUELESS, "+evaluation.metrics.none.nan=true", "tune.objective=valueless"]
    with pytest.raises(UserError, match="1 searches failed, as told above"):
        main(command(tmp_path, "method=finetune", *nan))
    said = capsys.readouterr().err
    told = "valueless has no value: its metric returned nan or infinity: choose another tune.objective"
    assert f"finetune 3/3: failed, {told}" in said
    assert f"every trial failed, the last one with: {told}, or narrow tune.space" in said


def test_an_objective_without_a_score_ends_the_search_with_the_reason_of_its_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = [VALUELESS, "+evaluation.metrics.none.nan=false", "tune.objective=valueless"]
    with pytest.raises(UserError, match="1 searches failed, as told above"):
        main(command(tmp_path, "method=finetune", *absent))
    assert (
        "valueless has no score: it has nothing to measure: choose another tune.objective, or another "
        "tune.validation"
    ) in capsys.readouterr().err


def refused(overrides: list[str]) -> str:
    """Return the sentence that a search ends in before it trains."""
    with pytest.raises(UserError) as error:
        main(overrides)
    (root,) = (text.removeprefix("paths.root=") for text in overrides if text.startswith("paths.root="))
    assert not (Path(root) / "store" / "pretrain").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("validation", "words"),
    [
        ("null", "needs a validation request, which no table reports: set options of its scenario"),
        ("5", "needs a validation request"),
        ("{classes:[3]}", "selects 20 rows that the table reports with seed=0"),
        ("{classes:[5,3]}", "selects 20 rows that the table reports with seed=0: set other classes or"),
        ("{classes:[4,5]}", "selects 20 rows that the table reports"),
    ],
)
def test_a_search_on_what_a_table_reports_is_refused(
    validation: str, words: str, tmp_path: Path
) -> None:
    table = ["method=finetune", "scenario.classes=[3,4]"]
    assert words in refused(command(tmp_path, *table, validation=validation))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["tune.space.lr.high=1e7"], "method.lr=10000000.0: it must be at least 1e-12"),
        (["method.schedule=step"], "method.schedule=step has no epoch to step at"),
        (["tune.trials=0"], "tune.trials=0: it must be at least 1"),
        (["until=pretrain"], "until=pretrain ends a trial before it is scored: leave it out"),
        (["tune.seeds=[]"], "tune.seeds names no seed"),
        (["training.epochs=30,31"], "several lines of the table would fill"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    overrides: list[str], words: str, tmp_path: Path
) -> None:
    assert words in refused(command(tmp_path, "method=finetune", *overrides))


def test_a_method_without_numbers_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [*QUICK, f"paths.root={tmp_path}", "tune.validation={classes:[5]}", "tune.objective=test_loss"]
    assert "nothing to tune: choose a method=…" in refused([*own, "method=original"])
    (search,) = searches([*own, "method=original,finetune"])
    assert search.path.stem == "finetune"
    assert "original has no conf/search/original.yaml: nothing to tune" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"typo": [1]}, "tune.space.typo is no option of Finetune"),
        ({"lr": 5}, "tune.space.lr=5: write low, high and log, or a list of values"),
        ({"lr": {"low": 1}}, "write low, high and log"),
        ({"lr": {"low": 1, "high": 0.1}}, "write low, high and log"),
        (
            {"lr": {"low": 0.1, "high": 1}},
            "lacks method.lr=0.02, where the search starts: widen the range",
        ),
        ({"lr": [0.1, 1]}, "lacks method.lr=0.02, where the search starts: widen the range"),
    ],
)
def test_a_space_that_is_none_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        space_of(plan_of("method=finetune").method, given)


def test_options_of_whole_numbers_draw_these() -> None:
    given = {"lr": {"low": 0, "high": 1}, "epochs": {"low": 1, "high": 9}, "optimizer": ["sgd", "adam"]}
    space = space_of(plan_of("method=finetune").method, given)
    kinds = [type(each).__name__ for each in space.values()]
    assert kinds == ["FloatDistribution", "IntDistribution", "CategoricalDistribution"]
    assert overrides_of({"lr": 1e-5, "epochs": 3, "optimizer": "adam"}) == [
        "method.lr=1e-05",
        "method.epochs=3",
        'method.optimizer="adam"',
    ]


def test_what_is_written_has_three_digits() -> None:
    assert rounded({"lr": 0.00123456, "epochs": 1234, "optimizer": "adam"}) == {
        "lr": 0.00123,
        "epochs": 1234,
        "optimizer": "adam",
    }


def test_a_score_says_its_direction() -> None:
    metrics = plan_of("method=finetune").metrics
    assert direction_of(metrics, "test_retain_accuracy") == "maximize"
    assert direction_of(metrics, "test_retain_loss") == "minimize"
    with pytest.raises(UserError, match="is best where the reference's is: choose a distance from it"):
        direction_of(metrics, "test_forget_loss")
    with pytest.raises(UserError, match="is no score of the chosen metrics: choose its metric too"):
        direction_of(metrics, "typo")


def test_the_rows_of_a_request_count_and_not_its_options(tmp_path: Path) -> None:
    """The draw of seed=1 is that of scenario.seed=1, whatever the seed."""
    table = ["method=finetune", "scenario=random", "scenario.count=40", "seed=0,1"]
    assert "with seed=1" in refused(command(tmp_path, *table, validation="{seed:1}"))
    (search,) = searches(command(tmp_path, *table, validation="{seed:2}"))
    assert search.plan.parameters["scenario.seed"] == 2


def test_the_jobs_of_a_command_are_those_of_its_sweep() -> None:
    assert jobs(["method=a,b", "seed=0,1", "threads=1"]) == [
        [f"method={method}", f"seed={seed}", "threads=1"] for method in "ab" for seed in (0, 1)
    ]
    assert jobs(["method=ssd,scrub", "method.alpha=1"]) == [
        [f"method={method}", "method.alpha=1"] for method in ("ssd", "scrub")
    ], "the default method has no alpha"
    preset = subjects_of(["experiment=mnist_five_methods", "seed=0,1"])
    assert len(preset) > 1 and all(len(cell.reported) == 2 for cell in preset)


SPACES = options("search")

# Methods without a number that decides how well they forget. SISA's decide what its training costs.
UNSEARCHED = {"original", "retrain", "hessian_free", "sisa"}


def test_every_method_with_numbers_has_a_space() -> None:
    numbered = {name for name in options("method") if any(bounds_of(class_of(name)))}
    assert set(SPACES) == numbered - UNSEARCHED


@pytest.mark.parametrize("name", SPACES)
def test_a_space_holds_the_own_options_and_those_found_by_hand(name: str) -> None:
    chosen = [f"method={name}", *needs_record(name)]
    method = plan_of(*chosen).method
    given = OmegaConf.to_container(composed_once(*chosen)[0].tune.space)
    assert isinstance(given, dict) and space_of(method, given).keys() == given.keys()
    for end in ends(given):
        at_end = replace(method, **end)
        check_bounds("method", at_end)
        at_end.check_parameters("method")
    for path in CONF.glob(f"tuned/*/{name}.yaml"):
        for option, value in OmegaConf.load(path).method.items():
            if option in given:
                assert given[option]["low"] <= value <= given[option]["high"], path
