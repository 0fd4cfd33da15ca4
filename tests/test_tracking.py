"""W&B: what a run holds, by reading back the offline file that its client wrote."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from data.errors import UserError
from methods.training.divergence import Diverged
from runner.pipeline import run
from runner.plan import Plan
from runner.tracking import Tracker
from runner.tracking.sections import scalars
from runner.tracking.tracker import WandbTracker
from tests.offline_runs import VARIABLES, Written, files, written_in
from tests.test_report import result

Quick = Callable[..., Plan]
ON = ["tracking.enabled=true"]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Written, Any]:
    """A run with two recorders, a repair and looks at unlearning, and its result."""
    from tests.conftest import QUICK, plan_of

    root = tmp_path_factory.mktemp("recorded")
    given = ["method=per_sample_amnesiac", "recorder=[per_sample,checkpoints]", "repair=epochs"]
    asked = [*QUICK, *ON, *given, "training.epochs=3", "seed=1", "repair.epochs=2", "evaluation.every=1"]
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(f"WANDB_{name}", raising=False)
        result = run(plan_of(*asked, f"paths.root={root}"), asked)
    (written,) = written_in(root)
    return written, result


def test_a_run_is_named_by_data_model_request_method_and_seed(recorded: tuple[Written, Any]) -> None:
    written, _ = recorded
    name = (
        "digits-small_cnn · whole class 3 · per_sample_amnesiac repair epochs repair.epochs=2 · seed 1"
    )
    assert written.run.display_name == name
    assert written.run.run_group == "digits_small_cnn_whole_class"
    assert written.run.job_type == "per_sample_amnesiac"
    assert list(written.run.tags) == ["digits", "small_cnn"]
    assert written.run.project == "unlearn"
    assert written.exit_code == 0


def test_runs_of_a_sweep_have_names_of_their_own(quick: Quick) -> None:
    for option in ("method.lr=0.1", "method.lr=0.2", "scenario.classes=[4]", "seed=3"):
        run(quick(*ON, option), [option])
    assert {each.run.display_name for each in written_in(quick().root)} == {
        "digits-small_cnn · whole class 3 · finetune lr=0.1 · seed 0",
        "digits-small_cnn · whole class 3 · finetune lr=0.2 · seed 0",
        "digits-small_cnn · whole class 4 · finetune · seed 0",
        "digits-small_cnn · whole class 3 · finetune · seed 3",
    }


def test_each_curve_is_logged_once_over_its_own_axis(recorded: tuple[Written, Any]) -> None:
    written, _ = recorded
    assert written.curve("pretrain/epoch") == [1, 2, 3]
    assert written.curve("retrain/epoch") == [1, 2, 3]
    assert written.curve("repair/epoch") == [1, 2]
    assert len(written.curve("pretrain/loss")) == len(written.curve("retrain/loss")) == 3
    for phase in ("pretrain", "retrain", "repair"):
        assert written.axes[f"{phase}/loss"] == f"{phase}/epoch"
    assert written.curve("repair_scores/pass") == [1, 2]
    assert written.axes["repair_scores/test_accuracy"] == "repair_scores/pass"


def test_scores_stand_in_sections_by_one_naming(recorded: tuple[Written, Any]) -> None:
    written, result = recorded
    scores, found = result.scores, written.summary
    for prefix, role in (("", "unlearned"), ("repaired/", "repaired"), ("original/", "original")):
        own, other = scores[role]["test_accuracy"], scores["reference"]["test_accuracy"]
        assert found[f"{prefix}final/test_accuracy"] == pytest.approx(own)
        assert found[f"{prefix}gap/test_accuracy"] == pytest.approx(own - other)
        assert found[f"{prefix}abs_gap/test_accuracy"] == pytest.approx(abs(own - other))
        assert found[f"{prefix}abs_gap/average"] == pytest.approx(scores[role]["average_gap"])
    assert found["reference/final/test_accuracy"] == pytest.approx(scores["reference"]["test_accuracy"])
    assert found["reference/cost/gradient_examples"] == 180 * 3
    assert found["cost/record_bytes"] == result.costs["unlearned"]["record_bytes"]
    assert "gap/test_js" not in found, "a score that compares with the reference has no gap"
    own = {name for name in found if not name.startswith("_")}
    assert all("/" in name for name in own), "every name has a section"
    scalars = {name for name in own if name.startswith(("final/", "gap/", "abs_gap/"))}
    assert all(len(written.curve(name)) == 1 for name in scalars), "a panel needs a logged point"


def test_a_score_of_all_seeds_that_has_several_values_is_tracked_as_their_mean() -> None:
    cell = {"ulira_auc": [0.5, 0.7], "klom": [1.5], "ulira_tpr_1": 0.25}
    found = scalars(replace(result("finetune", 0, 0.2), cell_scores=cell))
    own = {name: value for name, value in found.items() if name.startswith("cell/")}
    assert own == pytest.approx({"cell/ulira_auc": 0.6, "cell/klom": 1.5, "cell/ulira_tpr_1": 0.25})


def test_the_configuration_is_nested_as_the_options_are(recorded: tuple[Written, Any]) -> None:
    written, result = recorded
    config = written.config
    assert config["dataset"]["name"] == "digits" and config["dataset"]["flip"] is False
    assert config["model"]["name"] == "small_cnn" and config["model"]["widths"] == [4, 8]
    assert config["method"]["name"] == "per_sample_amnesiac"
    assert config["training"]["epochs"] == 3 and config["scenario"]["classes"] == [3]
    assert set(config["recorder"]) == {"per_sample", "checkpoints"}
    assert config["repair"]["epochs"] == 2 and config["seed"] == 1 and config["threads"] == 1
    assert config["key"] == result.key and config["forgotten_rows"] == 20
    assert config["commit"] == result.provenance["row"]["commit"]
    assert "seed=1" in config["overrides"]
    assert not [name for name in names_in(config) if "." in name]


def names_in(value: Any) -> list[str]:
    if not isinstance(value, Mapping):
        return []
    own = {name: inner for name, inner in value.items() if not name.startswith("_")}
    return [*own, *(name for inner in own.values() for name in names_in(inner))]


def test_a_confusion_matrix_is_a_chart_with_names_of_classes(recorded: tuple[Written, Any]) -> None:
    written, _ = recorded
    columns, lines = written.table("confusion/unlearned")
    assert columns == ["Actual", "Predicted", "nPredictions"]
    assert len(lines) == 100 and sum(count for *_, count in lines) == 200
    assert [line[0] for line in lines[20:50:10]] == ["two", "three (forgotten)", "four"]
    chart = written.config["_wandb/visualize/confusion/unlearned"]
    assert chart["panel_config"]["panelDefId"] == "wandb/confusion_matrix/v1"
    assert not list(written.path.parent.rglob("*.png"))


def test_a_table_shows_the_models_of_a_run(recorded: tuple[Written, Any]) -> None:
    written, result = recorded
    columns, lines = written.table("tables/models")
    assert [line[0] for line in lines] == ["original", "unlearned", "repaired", "reference"]
    at = columns.index("test_accuracy")
    assert [line[at] for line in lines] == pytest.approx(
        [result.scores[line[0]]["test_accuracy"] for line in lines]
    )


def test_the_environment_of_wandb_is_obeyed(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"PROJECT": "theirs", "NAME": "my run", "TAGS": "one, two", "RUN_GROUP": "many"}
    folder = quick().root / "elsewhere"
    folder.mkdir()
    for name, value in {**given, "ENTITY": "team", "DIR": str(folder)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    run(quick(*ON))
    (written,) = written_in(folder)
    assert (written.run.project, written.run.entity) == ("theirs", "team")
    assert (written.run.display_name, written.run.run_group) == ("my run", "many")
    assert list(written.run.tags) == ["one", "two"]
    assert not files(quick().root)


def test_options_come_before_the_environment(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROJECT": "theirs", "ENTITY": "team", "MODE": "disabled"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    run(quick(*ON, "tracking.project=ours", "tracking.entity=us", "tracking.mode=offline"))
    (written,) = written_in(quick().root)
    assert (written.run.project, written.run.entity) == ("ours", "us")


def test_the_environment_chooses_the_mode(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run(quick(*ON))
    assert not files(quick().root)


class Counting(Tracker):
    """Counts the points of each group of curves."""

    def __init__(self) -> None:
        self.points: Counter[str] = Counter()

    def curve(self, stage: str, values: Mapping[str, float]) -> None:
        self.points[stage] += 1


def test_the_trainings_that_sisa_stores_for_later_requests_are_no_curves_of_a_run(quick: Quick) -> None:
    """Push finds none of them, and a later run asks for fewer."""
    run(quick(*ON, "method=sisa", "method.shards=2", "method.slices=2", "training.batch_size=10"))
    (written,) = written_in(quick().root)
    sections = {name.partition("/")[2] for name in written.summary if name.startswith("points/")}
    assert sections == {"pretrain", "before", "unlearn", "retrain"}


@pytest.mark.parametrize(
    "options",
    [
        ["method=amnesiac", "recorder=[batch_updates,checkpoints]"],
        ["method=bad_teacher", "method.batch_size=10"],  # loads the original again
    ],
)
def test_a_run_tracks_each_curve_once_however_often_it_asks_for_the_model(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    for tracker in (Counting(), Counting()):  # the models are made, then found
        monkeypatch.setattr("runner.pipeline.track", lambda *_, here=tracker: nullcontext(here))
        run(quick("training.epochs=2", *options))
        assert tracker.points["pretrain"] == tracker.points["reference"] == 2


class Online:
    """A run online that processes begin, and that has the last value of every name for the next one."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.summary: dict[str, float] = {}

    def say(self, points: Sequence[Mapping[str, float]]) -> None:
        """Let a process log what it says of the stage unlearn."""
        client = SimpleNamespace(
            resumed=bool(self.logged),
            summary=dict(self.summary),
            log=self._log,
            define_metric=lambda *_, **__: None,
        )
        tracker = WandbTracker(client, ["0"], pytest.fail)
        for point in points:
            tracker.curve("unlearn", point)

    def _log(self, point: Mapping[str, float]) -> None:
        self.summary |= point
        named = {name: value for name, value in point.items() if not name.startswith("points/")}
        self.logged.append({name.partition("/")[2]: value for name, value in named.items()})


@pytest.mark.parametrize(
    "points",
    [
        [
            *({"epoch": n, "loss": 0.1} for n in (1, 2, 3)),
            *({"epoch": n, "plain_loss": 0.2} for n in (1, 2)),
        ],
        [{"epoch": n, f"{phase}_loss": 0.1} for n in (1, 2) for phase in ("forget", "retain")],
        [{"round": r, "epoch": n, "loss": 0.1} for r in (1, 2) for n in (1, 2)],
        [{"noise_loss": 0.3}, {"noise_loss": 0.2}, {"epoch": 1, "impair_loss": 0.1}],
        [point for n in (1, 2) for point in ({"pass": n, "test_js": 0.1}, {"epoch": n, "loss": 0.1})],
    ],
    ids=["phases in turn", "alternating phases", "rounds", "values of their own", "scored passes"],
)
def test_a_run_online_has_each_point_once_after_a_kill_anywhere_and_a_repetition(
    points: list[dict[str, float]],
) -> None:
    for killed in range(len(points) + 1):
        online = Online()
        online.say(points[:killed])
        online.say(points)
        assert online.logged == points
        online.say(points)
        assert online.logged == points


def test_every_job_of_a_process_has_its_own_closed_run(quick: Quick) -> None:
    for seed in (0, 1, 2):
        run(quick(*ON, f"seed={seed}"))
    written = written_in(quick().root)
    assert len({w.run.run_id for w in written}) == 3
    assert [w.exit_code for w in written] == [0, 0, 0]


def test_a_failing_job_closes_its_run_as_failed(quick: Quick) -> None:
    plan = quick(*ON, "training.lr=1e6", "training.epochs=40")
    with pytest.raises(Diverged):
        run(plan)
    assert [written.exit_code for written in written_in(plan.root)] == [1]


def test_the_salt_changes_the_id_and_off_writes_nothing(quick: Quick) -> None:
    run(quick(*ON))
    run(quick(*ON, "tracking.salt=again"))
    assert len({written.run.run_id for written in written_in(quick().root)}) == 2
    run(quick("seed=5"))
    assert len(files(quick().root)) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["tracking.project=a/b"], "tracking.project=a/b: write a name"),
        (["tracking.project='a#b'"], "without / "),
        (["tracking.project="], "tracking.project=: write a name of 1 to 128"),
        ([f"tracking.project={'a' * 129}"], "write a name of 1 to 128 characters"),
        (["tracking.entity=team/project"], "tracking.entity=team/project: write a name"),
        (["tracking.entity=''"], "tracking.entity=: write a name"),
    ],
)
def test_names_that_wandb_refuses_are_refused_before_work(
    quick: Quick, options: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        quick(*ON, *options)
    quick(*options)  # without tracking they matter to nobody


def test_a_name_in_the_environment_that_wandb_refuses_is_refused_before_work(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    with pytest.raises(UserError, match="WANDB_PROJECT"):
        quick(*ON)
    quick(*ON, "tracking.project=c")


def test_a_mode_that_is_none_is_refused_before_work(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "off")
    with pytest.raises(UserError, match="WANDB_MODE=off: set it to one of online, offline, disabled"):
        quick(*ON)
    quick(*ON, "tracking.mode=offline")
    quick()
    for mode in ("", "dryrun", "disabled", "online"):
        monkeypatch.setenv("WANDB_MODE", mode)
        quick(*ON)
