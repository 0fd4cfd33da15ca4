"""Records of a training: watching changes nothing, records add up, what is not tracked is refused."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import hypergeom
from torch.nn.utils import parameters_to_vector

from data.errors import UserError
from methods.meter import Meter
from methods.recorders.batch_updates import UpdateRecord
from methods.recorders.per_sample import PerSample, SampleRecord, coefficients
from methods.recording import Watched, share_of_batches_hit
from methods.training import Conditions, train
from runner.pipeline import run
from runner.plan import Plan
from runner.stages import MODEL, Stages
from runner.store import Artefact, Store
from runner.tracking import Tracker
from tests.conftest import options, plan_of, stages_of
from tests.test_factors import reference

Quick = Callable[..., Plan]
RECORD = ["recorder=[batch_updates]", "training.epochs=2"]


def weights(stages: Stages, made: Artefact | None = None) -> torch.Tensor:
    """All parameters in the model's order: before training, or those of an artefact."""
    plan = stages.plan
    source, seed = plan.source, stages.streams("pretrain").number("init")
    model = plan.architecture.fresh(source.channels, source.size, source.classes, seed)
    if made is not None:
        model.load_state_dict(load_file(made.path / MODEL))
    return parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("recorder", options("recorder"))
def test_watching_changes_no_bit(quick: Quick, recorder: str, tmp_path: Path) -> None:
    plain = stages_of(quick("training.epochs=2")).pretrain()
    watched = quick(f"recorder=[{recorder}]", "training.epochs=2", f"paths.root={tmp_path / 'w'}")
    assert stages_of(watched).pretrain().checksum(MODEL) == plain.checksum(MODEL)


def test_all_updates_lead_back_to_the_beginning(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD))
    final = weights(stages, stages.pretrain())
    record = UpdateRecord.open(stages.record("batch_updates").path)
    total = record.total(torch.ones(len(record.rows), dtype=torch.bool))
    assert torch.allclose(final - total, weights(stages), atol=1e-6)
    assert not record.total(torch.zeros(len(record.rows), dtype=torch.bool)).any()


def test_every_update_knows_its_rows(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD))
    stages.pretrain()
    record = UpdateRecord.open(stages.record("batch_updates").path)
    assert record.rows.shape == (8, 64)  # 200 rows in batches of 64, twice
    first = record.rows[:4].flatten()
    assert sorted(first[first >= 0].tolist()) == sorted(stages.dataset.train.rows.tolist())
    row = stages.dataset.train.rows[17]
    assert record.hit(row[None]).sum() == 2, "a row is in one batch per epoch"


def test_amnesiac_subtracts_the_updates_that_were_hit_and_no_others(
    quick: Quick, tmp_path: Path
) -> None:
    file = tmp_path / "rows.txt"
    file.write_text("17\n")
    request = ["scenario=given_rows", f"scenario.file={file}", "method=amnesiac"]
    stages = stages_of(quick(*RECORD, *request))
    original = stages.pretrain()
    record = UpdateRecord.open(stages.record("batch_updates").path)
    expected = weights(stages, original) - record.total(record.hit(torch.tensor([17])))
    made = stages.unlearn(original)
    assert torch.allclose(weights(stages, made), expected, atol=1e-7)
    assert made.read("curves.json") == [{"batches_hit": 0.25}]


def watched_by(stages: Stages, folder: Path) -> Watched:
    model = stages.plan.architecture.fresh(1, 8, 10, 0)
    train, recipe = stages.dataset.train, stages.plan.recipe
    return Watched(model, train, recipe, stages.streams("record"), folder)


class Epochs(Tracker):
    """Counts the epochs of pretraining that really happened."""

    def __init__(self) -> None:
        self.count = 0

    def curve(self, stage: str, values: Mapping[str, float]) -> None:
        self.count += stage == "pretrain"


def test_several_recorders_watch_one_training(quick: Quick) -> None:
    two = quick(*RECORD)
    (recorder,) = two.recorders.values()
    two = replace(two, recorders={"a": recorder, "b": replace(recorder, classes=[3])})
    tracker = Epochs()
    stages = Stages(two, Store(two.root / "store"), tracker)
    original = stages.pretrain()
    assert tracker.count == 2 * 2, "two epochs, told live and told again when the original is asked for"
    a, b = (UpdateRecord.open(stages.record(name).path) for name in ("a", "b"))
    everything = torch.ones(len(a.rows), dtype=torch.bool)
    assert torch.equal(a.total(a.hit(stages.request.rows)), b.total(b.hit(stages.request.rows)))
    assert torch.allclose(weights(stages, original) - a.total(everything), weights(stages), atol=1e-6)


def test_a_record_can_be_made_after_the_original_and_belongs_to_it(quick: Quick) -> None:
    before = stages_of(quick("training.epochs=2")).pretrain()
    stages = stages_of(quick(*RECORD))
    assert stages.pretrain().checksum(MODEL) == before.checksum(MODEL)
    assert len([a for a in Store(stages.plan.root / "store").artefacts() if a.stage == "pretrain"]) == 1


def test_a_record_that_belongs_to_other_weights_is_refused(quick: Quick) -> None:
    """As where the original was made with another thread count or on another device."""
    stages = stages_of(quick("training.epochs=2"))
    made = stages.pretrain()
    other = stages_of(quick("training.epochs=2", "seed=1")).pretrain()
    for file in other.path.iterdir():
        (made.path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="did not end in the weights of the stored original"):
        stages_of(quick(*RECORD)).pretrain()


def test_an_altered_record_is_made_again(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD))
    stages.pretrain()
    path = stages.record("batch_updates").path / "updates.entries"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    again = stages_of(quick(*RECORD))
    again.pretrain()
    assert (again.record("batch_updates").path / "updates.entries").read_bytes() == whole


def test_rows_that_are_not_tracked_are_refused_before_training(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD, "recorder.batch_updates.classes=[4]"))
    with pytest.raises(UserError, match=r"recorder\.batch_updates does not track it"):
        stages.pretrain()
    assert not list((stages.plan.root / "store").glob("*/[!.]*/" + MODEL))


def test_a_method_without_its_record_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="add recorder=batch_updates"):
        plan_of("method=amnesiac")


def test_a_record_that_cannot_fit_is_refused_before_training(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD, "training.epochs=1000000000000"))
    with pytest.raises(UserError, match=r"GiB are free: track fewer rows \(recorder\.batch_updates\.cl"):
        stages.pretrain()


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_the_bill_is_what_is_written(quick: Quick, dtype: str, size: int) -> None:
    stages = stages_of(quick(*RECORD, f"recorder.batch_updates.dtype={dtype}"))
    stages.pretrain()
    folder = stages.record("batch_updates").path
    watched = watched_by(stages, folder)
    written = (folder / "updates.entries").stat().st_size
    assert stages.plan.recorders["batch_updates"].bill(watched) == written
    assert written == 8 * watched.parameters * size
    record = UpdateRecord.open(folder)
    total = record.total(torch.ones(8, dtype=torch.bool))
    final = weights(stages, stages.pretrain())
    moved = final - weights(stages)
    assert (total - moved).norm() <= (1e-6 if dtype == "fp32" else 1e-2) * moved.norm()


@pytest.mark.parametrize(
    ("rows", "tracked", "batch"), [(60000, 6131, 64), (50000, 500, 64), (100, 1, 10)]
)
def test_the_share_of_batches_hit_is_hypergeometric(rows: int, tracked: int, batch: int) -> None:
    exact = 1 - hypergeom(rows, tracked, batch).pmf(0)
    assert share_of_batches_hit(rows, tracked, batch) == pytest.approx(exact, rel=1e-6)


def test_published_shares() -> None:
    """METHODS.md's finding: a class of ten hits every batch, a class of a hundred about half."""
    assert round(share_of_batches_hit(50000, 5000, 64), 3) == 0.999
    assert round(share_of_batches_hit(50000, 500, 64), 2) == 0.47
    assert share_of_batches_hit(10, 8, 5) == 1.0


def test_the_original_costs_the_same_in_a_row_with_and_without_a_record(quick: Quick) -> None:
    row = run(quick(*RECORD, "method=amnesiac"))
    assert row is not None
    assert row.costs["original"]["gradient_examples"] == 400
    assert row.costs["unlearned"]["gradient_examples"] == 0


# Per-sample gradients

SAMPLES = ["recorder=[per_sample]", "training.epochs=2", "recorder.per_sample.dtype=fp32"]


def shares_of(stages: Stages, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    original = stages.pretrain()
    record = SampleRecord.open(stages.record("per_sample").path)
    return record.share(model_of(stages, original), rows)


def model_of(stages: Stages, made: Artefact) -> torch.nn.Module:
    source = stages.plan.source
    model = stages.plan.architecture.fresh(source.channels, source.size, source.classes, 0)
    model.load_state_dict(load_file(made.path / MODEL))
    return model


def shares_by_vmap(stages: Stages, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same sums from torch.func.vmap(grad) at every step of the same training."""
    plan, split, streams = stages.plan, stages.dataset.train, stages.streams("pretrain")
    model = plan.architecture.fresh(1, 8, 10, streams.number("init"))
    (recorder,) = plan.recorders.values()
    assert isinstance(recorder, PerSample)
    shares = coefficients(plan.recipe, len(split), recorder.attribution)
    conditions = Conditions(streams, Meter(torch.device("cpu")), lambda values: None, plan.recipe)
    total: dict[str, torch.Tensor] = {}
    for step in train(model, split, plan.recipe, conditions):
        chosen = torch.isin(step.batch.rows, rows)
        each = reference(model, step.batch.images, step.batch.labels)
        for name, value in each.items():
            part = shares.each[step.number] * value[chosen].double().sum(0)
            total[name] = total.get(name, torch.zeros(())) + part
    return total


@pytest.mark.parametrize("form", ["auto", "factored", "dense"])
@pytest.mark.parametrize("attribution", ["exact", "step"])
def test_shares_are_the_sums_of_per_sample_gradients(quick: Quick, form: str, attribution: str) -> None:
    chosen = [f"recorder.per_sample.form={form}", f"recorder.per_sample.attribution={attribution}"]
    stages = stages_of(quick(*SAMPLES, *chosen))
    rows = stages.request.rows[::2]
    found, wanted = shares_of(stages, rows), shares_by_vmap(stages, rows)
    for name, value in wanted.items():
        assert (found[name] - value).norm() <= 1e-5 * value.norm(), name


def test_bf16_factors_lose_less_than_half_a_percent(quick: Quick) -> None:
    stages = stages_of(quick(*SAMPLES, "recorder.per_sample.dtype=bf16"))
    rows = stages.request.rows
    found, wanted = shares_of(stages, rows), shares_by_vmap(stages, rows)
    a, b = (torch.cat([d[name].flatten().double() for name in sorted(wanted)]) for d in (found, wanted))
    assert (a - b).norm() <= 5e-3 * b.norm()


def test_the_exact_coefficients_account_for_the_whole_training(quick: Quick) -> None:
    """A·θ₀ + Σ shares = θ_T, under momentum, weight decay, warm-up and a schedule."""
    hard = [
        "training.epochs=5", "training.momentum=0.9", "training.weight_decay=0.01", "training.lr=0.02",
        "training.schedule=cosine", "training.warmup=1", "recorder.per_sample.attribution=exact",
    ]  # fmt: skip
    stages = stages_of(quick(*SAMPLES, *hard))
    shares = shares_of(stages, stages.dataset.train.rows)
    original = stages.pretrain()
    record = SampleRecord.open(stages.record("per_sample").path)
    model = model_of(stages, original)
    total = torch.cat([shares[name].flatten() for name, _ in model.named_parameters()])
    rebuilt = record.beginning * weights(stages) + total
    assert (rebuilt - weights(stages, original)).norm() <= 1e-5 * weights(stages, original).norm()


def test_each_layer_takes_the_smaller_form_and_the_bill_says_what_it_takes(quick: Quick) -> None:
    stages = stages_of(quick(*SAMPLES, "model.hidden=64", "recorder.per_sample.classes=[3,4]"))
    stages.pretrain()
    folder = stages.record("per_sample").path
    layers = SampleRecord.open(folder).about["layers"]
    assert not layers["0"]["factored"], "a small filter on a large map"
    assert layers["6"]["factored"], "a large matrix"
    watched = watched_by(stages, folder)
    written = sum(
        file.stat().st_size for file in folder.iterdir() if file.suffix in (".bin", ".entries")
    )
    assert stages.plan.recorders["per_sample"].bill(watched) == written


@pytest.mark.parametrize(
    ("model", "images"),
    [("resnet18", ["model.stem=cifar"]), ("vit", ["model.dim=24", "model.depth=1", "model.heads=3"])],
)
def test_other_models_are_recorded_without_changing_a_bit(
    tmp_path: Path, model: str, images: list[str]
) -> None:
    shared = [
        f"model={model}", *images, "data.limit=6", "training.epochs=2", "training.batch_size=20",
        "training.warmup=0", "training.clip=null", "threads=1", "tracking=off", "method=original",
    ]  # fmt: skip
    plain = stages_of(plan_of(*shared, f"paths.root={tmp_path / 'plain'}")).pretrain()
    stages = stages_of(plan_of(*shared, *SAMPLES[:1], f"paths.root={tmp_path / 'recorded'}"))
    assert stages.pretrain().checksum(MODEL) == plain.checksum(MODEL)
    shares = shares_of(stages, stages.request.rows)
    assert all(value.isfinite().all() and value.any() for value in shares.values())


def test_the_rows_own_shares_keep_what_whole_batches_destroy(quick: Quick) -> None:
    """One original, one request for a whole class, served from both records."""
    learned = ["training.epochs=30", "training.lr=0.05", "recorder=[batch_updates,per_sample]"]
    kept = {}
    for method in ("amnesiac", "per_sample_amnesiac"):
        row = run(quick(*learned, f"method={method}"))
        assert row is not None and row.scores["original"]["train_forget_accuracy"] > 0.9
        assert row.scores["unlearned"]["train_forget_accuracy"] < 0.1
        kept[method] = row.scores["unlearned"]["train_retain_accuracy"]
    assert kept["amnesiac"] < 0.3 and kept["per_sample_amnesiac"] > 0.7


def test_the_exact_share_is_refused_where_there_is_none(quick: Quick) -> None:
    for override in ("training.optimizer=adam", "training.clip=1"):
        stages = stages_of(quick(*SAMPLES, override, "recorder.per_sample.attribution=exact"))
        with pytest.raises(UserError, match=r"set recorder\.per_sample\.attribution=step"):
            stages.pretrain()
