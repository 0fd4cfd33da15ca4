"""Records of a training: watching changes nothing, records add up, what is not tracked is refused."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.stats import hypergeom
from torch.nn.utils import parameters_to_vector

from data.errors import UserError
from methods.per_sample_amnesiac import smallest
from methods.recording.batch_updates import UpdateRecord
from methods.recording.files import EntryFile, Writer
from methods.recording.layerwise import Layerwise, Part
from methods.recording.per_sample import PerSample, SampleRecord, coefficients
from methods.recording.recorder import RecordedTraining, share_of_batches_hit
from methods.training.cost import Meter
from methods.training.descent import Step
from methods.training.loop import Conditions, Diverged, train
from runner.pipeline import run
from runner.plan import Plan
from runner.stages import MODEL, MadeElsewhere, Stages, curves_of
from runner.store import Artefact, Store
from runner.tracking import Tracker
from tests.conftest import options, plan_of, stages_of
from tests.test_per_sample_gradients import reference

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


def watched_by(stages: Stages, folder: Path) -> RecordedTraining:
    model = stages.plan.architecture.fresh(1, 8, 10, 0)
    train, recipe = stages.dataset.train, stages.plan.recipe
    return RecordedTraining(model, train, recipe, stages.streams("record"), folder)


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


def test_a_record_with_other_threads_than_the_originals_is_refused_before_training(quick: Quick) -> None:
    stages_of(quick("training.epochs=2")).pretrain()
    stages = stages_of(quick(*RECORD, "threads=2"))
    with pytest.raises(UserError, match="made with threads=1"):
        stages.pretrain()


def test_a_record_that_belongs_to_other_weights_is_refused(quick: Quick) -> None:
    """As where the original was made by another release of torch."""
    stages = stages_of(quick("training.epochs=2"))
    made = stages.pretrain()
    other = stages_of(quick("training.epochs=2", "seed=1")).pretrain()
    put_weights_of(other, made)
    with pytest.raises(UserError, match="did not end in the weights of the stored original"):
        stages_of(quick(*RECORD)).pretrain()


def put_weights_of(other: Artefact, made: Artefact) -> None:
    """As if `made` had ended in the weights of `other`."""
    (made.path / MODEL).write_bytes((other.path / MODEL).read_bytes())
    sums = made.read("checksums.json") | {MODEL: other.checksum(MODEL)}
    (made.path / "checksums.json").write_text(json.dumps(sums))


def test_a_record_is_not_used_with_another_original(quick: Quick) -> None:
    """As where the original was deleted and made again on another machine."""
    amnesiac = [*RECORD, "method=amnesiac"]
    stages = stages_of(quick(*amnesiac))
    stages.pretrain()
    put_weights_of(stages_of(quick("training.epochs=2", "seed=1")).pretrain(), stages.pretrain())
    again = stages_of(quick(*amnesiac))
    with pytest.raises(UserError, match=r"recorder\.batch_updates .* other weights .* is set aside"):
        again.unlearn(again.pretrain())


def test_an_altered_record_is_made_again(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD))
    stages.pretrain()
    path = stages.record("batch_updates").path / "updates.entries"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    again = stages_of(quick(*RECORD))
    again.pretrain()
    assert (again.record("batch_updates").path / "updates.entries").read_bytes() == whole


def test_a_record_that_no_method_reads_need_not_serve_the_request(quick: Quick) -> None:
    narrow = ["recorder=[batch_updates,per_sample]", "recorder.per_sample.classes=[4]"]
    stages = stages_of(quick(*narrow, "method=amnesiac"))
    stages.unlearn(stages.pretrain())
    assert stages.store.has("record", stages.plan.record_identity(stages.plan.recorders["per_sample"]))


def test_rows_that_are_not_tracked_are_refused_before_training(quick: Quick) -> None:
    stages = stages_of(quick(*RECORD, "method=amnesiac", "recorder.batch_updates.classes=[4]"))
    with pytest.raises(UserError, match=r"recorder\.batch_updates does not track it"):
        stages.pretrain()
    assert not list((stages.plan.root / "store").glob("*/[!.]*/" + MODEL))


def test_a_method_without_its_record_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"add recorder=\[batch_updates\]"):
        plan_of("method=amnesiac")


def test_a_record_that_cannot_fit_is_refused_before_training(quick: Quick) -> None:
    huge = ["training.epochs=100000", "training.batch_size=1", "model.hidden=65536"]
    stages = stages_of(quick(*RECORD, *huge))
    with pytest.raises(UserError, match=r"GiB are free: track fewer rows \(recorder\.batch_updates\.cl"):
        stages.pretrain()


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_the_bill_is_what_is_written(quick: Quick, dtype: str, size: int) -> None:
    stages = stages_of(quick(*RECORD, f"recorder.batch_updates.dtype={dtype}"))
    stages.pretrain()
    folder = stages.record("batch_updates").path
    watched = watched_by(stages, folder)
    written = (folder / "updates.entries").stat().st_size
    assert stages.plan.recorders["batch_updates"].estimated_bytes(watched) == written
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


@pytest.mark.parametrize(("dtype", "lost"), [("bf16", 5e-3), ("int8", 2e-2)])
def test_smaller_factors_lose_little(quick: Quick, dtype: str, lost: float) -> None:
    small = [f"recorder.per_sample.dtype={dtype}", "recorder.per_sample.form=factored"]
    stages = stages_of(quick(*SAMPLES, *small))
    rows = stages.request.rows
    found, wanted = shares_of(stages, rows), shares_by_vmap(stages, rows)
    a, b = (torch.cat([d[name].flatten().double() for name in sorted(wanted)]) for d in (found, wanted))
    assert (a - b).norm() <= lost * b.norm()


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


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_each_layer_takes_the_smaller_form_and_the_bill_says_what_it_takes(
    quick: Quick, dtype: str
) -> None:
    chosen = ["recorder.per_sample.classes=[3,4]", f"recorder.per_sample.dtype={dtype}"]
    stages = stages_of(quick(*SAMPLES, "model.hidden=64", *chosen))
    stages.pretrain()
    folder = stages.record("per_sample").path
    layers = SampleRecord.open(folder).about["layers"]
    assert not layers["0"]["factored"], "a small filter on a large map"
    assert layers["6"]["factored"], "a large matrix"
    watched = watched_by(stages, folder)
    written = sum(
        file.stat().st_size for file in folder.iterdir() if file.suffix in (".bin", ".entries")
    )
    assert stages.plan.recorders["per_sample"].estimated_bytes(watched) == written


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


# Parts of updates

LAYERS = ["recorder=[batch_updates,layerwise]", "training.epochs=2", "method=amnesiac_partial"]


def both_totals(stages: Stages) -> tuple[torch.Tensor, torch.Tensor]:
    """The sums of all updates: whole, and what the layer-wise record kept of them."""
    stages.pretrain()
    whole = UpdateRecord.open(stages.record("batch_updates").path)
    part = UpdateRecord.open(stages.record("layerwise").path, Part)
    every = torch.ones(len(whole.rows), dtype=torch.bool)
    assert torch.equal(whole.rows, part.rows)
    return whole.total(every), part.total(every)


def test_entries_of_any_length_are_read_out_of_one_block() -> None:
    """Seven numbers of six bytes: the second entry begins at no multiple of four."""
    part = Part([7], [1.0], "magnitude", "bf16", 0, "test")
    updates = torch.arange(21.0).view(3, 7)
    block = torch.stack([part.pack(number, update) for number, update in enumerate(updates)])
    total = torch.zeros(7)
    for number, entry in enumerate(block):
        part.add(total, number, entry)
    assert torch.equal(total, updates.sum(0))


@pytest.mark.parametrize("mask", ["fresh", "fixed", "magnitude"])
def test_all_of_a_layer_is_the_update(quick: Quick, mask: str) -> None:
    whole, part = both_totals(
        stages_of(quick(*LAYERS, "recorder.layerwise.keep_first=1", f"recorder.layerwise.mask={mask}"))
    )
    assert torch.allclose(whole, part, atol=1e-7)


def test_a_fixed_mask_keeps_the_same_numbers_of_every_update(quick: Quick) -> None:
    options = ["recorder.layerwise.keep_first=0.25", "recorder.layerwise.mask=fixed"]
    whole, part = both_totals(stages_of(quick(*LAYERS, *options)))
    kept = part != 0
    assert torch.allclose(part[kept], whole[kept], atol=1e-7)
    assert kept.double().mean().item() == pytest.approx(0.25, abs=0.02)


def test_fresh_masks_keep_their_share_of_everything(quick: Quick) -> None:
    options = ["recorder.layerwise.keep_first=0.25", "training.epochs=20"]
    whole, part = both_totals(stages_of(quick(*LAYERS, *options)))
    assert (part != 0).double().mean() > 0.99, "80 updates leave no number out"
    assert (part @ whole / (whole @ whole)).item() == pytest.approx(0.25, abs=0.05)


def test_the_largest_numbers_weigh_more_than_random_ones(quick: Quick) -> None:
    kept = {}
    for mask in ("fixed", "magnitude"):
        options = ["recorder.layerwise.keep_first=0.1", f"recorder.layerwise.mask={mask}"]
        whole, part = both_totals(stages_of(quick(*LAYERS, *options)))
        kept[mask] = ((whole - part).norm() / whole.norm()).item()
    assert kept["magnitude"] < 0.8 * kept["fixed"]


def test_the_kept_share_rises_from_the_first_layer_to_the_last(quick: Quick) -> None:
    options = ["recorder.layerwise.keep_first=0.1", "recorder.layerwise.keep_last=0.7"]
    stages = stages_of(quick(*LAYERS, *options))
    (packing,) = [
        recorder.packing(watched_by(stages, Path()))
        for recorder in stages.plan.recorders.values()
        if isinstance(recorder, Layerwise)
    ]
    assert isinstance(packing, Part)
    assert packing.keeps == pytest.approx([0.1, 0.3, 0.5, 0.7])
    sizes = zip(packing.kept, packing.keeps, packing.sizes, strict=True)
    assert all(kept == max(1, round(keep * size)) for kept, keep, size in sizes)


def test_amnesiac_partial_subtracts_the_kept_part_of_what_was_hit(quick: Quick) -> None:
    stages = stages_of(quick(*LAYERS))
    original = stages.pretrain()
    record = UpdateRecord.open(stages.record("layerwise").path, Part)
    expected = weights(stages, original) - record.total(record.hit(stages.request.rows))
    assert torch.allclose(weights(stages, stages.unlearn(original)), expected, atol=1e-7)


def test_checkpoints_hold_the_way_from_the_beginning_to_the_original(quick: Quick) -> None:
    stages = stages_of(quick("recorder=[checkpoints]", "training.epochs=3"))
    original = stages.pretrain()
    folder = stages.record("checkpoints").path
    states = [load_file(folder / f"epoch_{epoch}.safetensors") for epoch in range(4)]
    final = load_file(original.path / MODEL)
    assert all(torch.equal(states[3][name], final[name]) for name in final)
    beginning = torch.cat([value.flatten() for value in states[0].values()])
    assert beginning.sort().values.equal(weights(stages).sort().values), "in another order"
    assert not any(torch.equal(a["0.weight"], b["0.weight"]) for a, b in pairwise(states))


# Which rows


def test_rows_of_a_file_are_tracked_and_no_others(quick: Quick, tmp_path: Path) -> None:
    listed, asked = tmp_path / "tracked.txt", tmp_path / "rows.txt"
    listed.write_text("3\n17\n40\n")
    recorder = ["recorder=[per_sample]", f"recorder.per_sample.rows={listed}"]
    for rows, refused in (("17\n40\n", False), ("17\n41\n", True)):
        asked.write_text(rows)
        request = ["scenario=given_rows", f"scenario.file={asked}", "method=per_sample_amnesiac"]
        stages = stages_of(quick(*recorder, *request))
        if refused:
            with pytest.raises(UserError, match=r"row 41 is to be forgotten, but recorder\.per_sample"):
                stages.unlearn(stages.pretrain())
        else:
            stages.unlearn(stages.pretrain())
            found = load_file(stages.record("per_sample").path / "rows.safetensors")
            assert found["tracked"].tolist() == [3, 17, 40] and len(found["rows"]) == 3


def test_a_group_has_one_sum_for_all_its_rows(quick: Quick) -> None:
    grouped = stages_of(quick(*SAMPLES, "recorder.per_sample.group_by=class"))
    single = stages_of(quick(*SAMPLES))
    rows = grouped.request.rows
    a, b = shares_of(grouped, rows), shares_of(single, rows)
    assert all((a[name] - b[name]).norm() <= 1e-5 * b[name].norm() for name in b)
    size = (grouped.record("per_sample").path / "sums.bin").stat().st_size
    assert size == 10 * sum(value.numel() for value in b.values()) * 4, "ten classes"


def test_a_part_of_a_group_is_refused(quick: Quick) -> None:
    request = ["scenario=random", "scenario.fraction=0.1", "method=per_sample_amnesiac"]
    stages = stages_of(quick(*SAMPLES, "recorder.per_sample.group_by=class", *request))
    with pytest.raises(UserError, match="only a part of group"):
        stages.pretrain()


def test_groups_can_be_users_of_a_file(quick: Quick, tmp_path: Path) -> None:
    users, asked = tmp_path / "users.txt", tmp_path / "rows.txt"
    train = stages_of(quick()).dataset.train
    of_user = torch.arange(int(train.rows.max()) + 1) % 7
    users.write_text("\n".join(map(str, of_user.tolist())))
    mine = train.rows[of_user[train.rows] == 2]
    asked.write_text("\n".join(map(str, mine.tolist())))
    request = ["scenario=given_rows", f"scenario.file={asked}"]
    grouped = stages_of(quick(*SAMPLES, f"recorder.per_sample.group_by={users}", *request))
    single = stages_of(quick(*SAMPLES, *request))
    a, b = shares_of(grouped, mine), shares_of(single, mine)
    assert all((a[name] - b[name]).norm() <= 1e-5 * b[name].norm() for name in b)


# Masked sums, and Adam's own coefficient


def test_a_whole_mask_is_the_dense_sum(quick: Quick) -> None:
    rows = stages_of(quick()).request.rows
    masked = shares_of(stages_of(quick(*SAMPLES, "recorder.per_sample.form=masked")), rows)
    dense = shares_of(stages_of(quick(*SAMPLES, "recorder.per_sample.form=dense")), rows)
    assert all(torch.allclose(masked[name], dense[name], atol=1e-7) for name in dense)


def test_a_masked_sum_keeps_its_share_row_by_row(quick: Quick) -> None:
    options = ["recorder.per_sample.form=masked", "recorder.per_sample.keep=0.25"]
    stages = stages_of(quick(*SAMPLES, *options))
    dense = stages_of(quick(*SAMPLES, "recorder.per_sample.form=dense"))
    one = stages.request.rows[:1]
    part, whole = (
        torch.cat([share[name].flatten() for name in sorted(share)])
        for share in (shares_of(stages, one), shares_of(dense, one))
    )
    kept = part != 0
    assert torch.allclose(part[kept], whole[kept], atol=1e-8)
    assert 0.1 < kept.double().mean() < 0.27, "a quarter of the numbers, some of which are zero"
    folder = stages.record("per_sample").path
    written = sum(file.stat().st_size for file in folder.glob("*.bin"))
    assert stages.plan.recorders["per_sample"].estimated_bytes(watched_by(stages, folder)) == written


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_preconditioned_shares_are_divided_by_adams_root_at_the_step(
    quick: Quick, optimizer: str
) -> None:
    options = [
        "recorder.per_sample.form=dense", "recorder.per_sample.attribution=preconditioned",
        f"training.optimizer={optimizer}", "training.weight_decay=0.1", "training.lr=0.01",
    ]  # fmt: skip
    stages = stages_of(quick(*SAMPLES, *options))
    rows = stages.request.rows
    found = shares_of(stages, rows)
    plan, split, streams = stages.plan, stages.dataset.train, stages.streams("pretrain")
    model = plan.architecture.fresh(1, 8, 10, streams.number("init"))
    conditions = Conditions(streams, Meter(torch.device("cpu")), lambda values: None, plan.recipe)
    wanted = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    waiting: tuple[Step, dict[str, torch.Tensor]] | None = None

    def settle() -> None:
        """After the update, Adam's own state is the one that it divided by."""
        if waiting is not None:
            step, parts = waiting
            for name, parameter in model.named_parameters():
                state = step.optimizer.state[parameter]
                root = (state["exp_avg_sq"] / (1 - 0.999 ** state["step"])).sqrt() + 1e-8
                wanted[name] -= step.lr * parts[name] / root

    for step in train(model, split, plan.recipe, conditions):
        settle()
        chosen = torch.isin(step.batch.rows, rows)
        each = reference(model, step.batch.images, step.batch.labels)
        waiting = step, {name: value[chosen].sum(0) for name, value in each.items()}
    settle()
    for name, value in wanted.items():
        assert (found[name] - value).norm() <= 1e-4 * value.norm(), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["form=masked", "keep=0"], "keep=0.0: it must be above 0 and at most 1"),
        (["form=masked", "keep=1.5"], "keep=1.5: it must be above 0 and at most 1"),
        (["keep=0.5"], "set recorder.per_sample.form=masked"),
        (["attribution=preconditioned"], "set recorder.per_sample.form=dense or masked"),
        (["group_by=class", "form=factored"], "set recorder.per_sample.form=dense or masked"),
        (["classes=[1]", "rows=x.npy"], "track classes or rows"),
        (["rows=nowhere.npy"], "recorder.per_sample.rows=nowhere.npy does not exist"),
    ],
)
def test_records_that_make_no_sense_are_refused_at_once(options: list[str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_of("recorder=[per_sample]", *(f"recorder.per_sample.{option}" for option in options))
    assert words in str(refused.value)


def test_a_share_to_keep_lies_between_nothing_and_all() -> None:
    with pytest.raises(UserError, match=r"keep_first=0\.0: it must be above 0 and at most 1"):
        plan_of("recorder=[layerwise]", "recorder.layerwise.keep_first=0")


# How much to subtract


@given(threshold=st.floats(0.001, 1000))
def test_the_search_finds_the_smallest_strength_that_is_enough(threshold: float) -> None:
    tried: list[float] = []

    def reached(strength: float) -> bool:
        tried.append(strength)
        return strength >= threshold

    found, evaluations = smallest(reached)
    assert found >= threshold and evaluations == len(tried)
    assert found - threshold <= max(1, 2 * threshold) / 32


@pytest.mark.parametrize(
    "own",
    [
        ["method=amnesiac", "recorder=[batch_updates]"],
        ["method=per_sample_amnesiac", "recorder=[per_sample]"],
    ],
)
def test_a_training_without_steps_leaves_nothing_to_take_back(own: list[str], quick: Quick) -> None:
    row = run(quick("training.epochs=0", *own))
    assert row is not None and row.weights["unlearned"] == row.weights["original"]


def test_nothing_is_subtracted_where_nothing_has_to_be() -> None:
    assert smallest(lambda strength: True) == (0.0, 1)


def test_auto_says_how_often_it_looked_and_reaches_its_target(quick: Quick) -> None:
    learned = ["training.epochs=30", "training.lr=0.05", "recorder=[per_sample]"]
    method = ["method=per_sample_amnesiac", "method.strength=auto", "method.target=0.2"]
    row = run(quick(*learned, *method))
    assert row is not None and row.scores["unlearned"]["train_forget_accuracy"] <= 0.2
    stages = stages_of(quick(*learned, *method))
    (point,) = stages.unlearn(stages.pretrain()).read("curves.json")
    assert row.costs["unlearned"]["forward_examples"] == 20 * point["evaluations"] > 0


def test_a_target_that_no_strength_reaches_is_told() -> None:
    with pytest.raises(UserError, match="no strength up to 1024 reaches the target"):
        smallest(lambda strength: False)


# Disks


def test_an_entry_that_was_altered_is_found_when_it_is_read_and_recorded_anew(quick: Quick) -> None:
    """The store looks at the length of entries alone when it opens a record."""
    request = ["recorder=[batch_updates]", "method=amnesiac"]
    stages = stages_of(quick(*request))
    stages.pretrain()
    path = stages.record("batch_updates").path / "updates.entries"
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert stages.record("batch_updates").damage() == "updates.entries differs from what was written"
    again = stages_of(quick(*request))
    with pytest.raises(UserError, match="set aside: run again, and it is made anew"):
        again.unlearn(again.pretrain())
    third = stages_of(quick(*request))
    third.unlearn(third.pretrain())
    assert path.read_bytes() == whole


def full(*jobs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("on_full", ["stop", "go_on"])
def test_a_disk_that_fills_up_ends_the_record_and_the_training_if_asked(
    quick: Quick, on_full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EntryFile, "append", full)
    several = ["recorder=[batch_updates,checkpoints]", "training.epochs=3"]
    stages = stages_of(quick(*several, f"recorder.batch_updates.on_full={on_full}"))
    with pytest.raises(UserError, match=r"disk .* full|disk filled up"):
        stages.pretrain()
    kept = {artefact.stage for artefact in stages.store.artefacts()}
    assert kept == ({"request"} if on_full == "stop" else {"request", "pretrain", "record"})
    assert not stages.store.leftovers()
    monkeypatch.undo()
    again = stages_of(quick("recorder=[batch_updates,checkpoints]"))
    again.pretrain()
    assert len(UpdateRecord.open(again.record("batch_updates").path).rows) == 4


def test_a_training_that_ended_is_kept_when_a_record_of_it_fails_later(quick: Quick) -> None:
    """The Bayesian record begins after the last step."""
    stages = stages_of(quick("recorder=[bayesian]", "recorder.bayesian.initial=1e30"))
    with pytest.raises(Diverged):
        stages.pretrain()
    assert {artefact.stage for artefact in stages.store.artefacts()} == {"request", "pretrain"}
    plain = stages_of(quick())
    assert plain.pretrain().read("cost.json")["gradient_examples"] == 200
    assert len(curves_of(plain.pretrain())) == 1


def test_what_a_writer_fails_at_is_raised_where_it_was_asked_for(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), Writer(tmp_path, go_on=True) as writer:
        writer.do(fail)


class Filling(Tracker):
    """Another program, which leaves so many bytes of a disk after the first epoch."""

    def __init__(self, disk: Path, left: int) -> None:
        self.disk, self.left = disk, left

    def curve(self, stage: str, point: Mapping[str, float]) -> None:
        if not (self.disk / "filler").exists():
            size = shutil.disk_usage(self.disk).free - self.left
            (self.disk / "filler").write_bytes(bytes(size))


@pytest.mark.parametrize("recorder", ["batch_updates", "checkpoints"])
def test_the_training_outlives_a_disk_that_is_really_full(
    quick: Quick, small_disk: Callable[[int], Path], recorder: str
) -> None:
    """What the record held makes room for the model."""
    root = small_disk(24)
    options = [f"recorder=[{recorder}]", f"recorder.{recorder}.on_full=go_on", "model.hidden=256"]
    plan = quick(*options, "training.epochs=8", "training.batch_size=40", f"paths.root={root}")
    stages = Stages(plan, Store(root / "store"), Filling(root, 200_000))
    with pytest.raises(UserError, match="the disk filled up, and the training went on"):
        stages.pretrain()
    assert {artefact.stage for artefact in stages.store.artefacts()} == {"request", "pretrain"}


def test_records_that_fit_one_by_one_and_not_together_are_refused(
    quick: Quick, small_disk: Callable[[int], Path]
) -> None:
    several = ["recorder=[batch_updates,layerwise]", "recorder.layerwise.keep_first=1"]
    updates = ["recorder.layerwise.keep_last=1", "training.epochs=8", "model.hidden=256"]
    plan = quick(*several, *updates, f"paths.root={small_disk(2)}")
    stages = stages_of(plan)
    with pytest.raises(UserError, match=r"recorder\.batch_updates and recorder\.layerwise would write"):
        stages.pretrain()
    assert not list(plan.root.glob("store/pretrain/*"))


def test_a_record_that_another_process_made_meanwhile_leaves_no_empty_one(quick: Quick) -> None:
    """What was missing when this run looked is there when its turn comes."""
    stages = stages_of(quick("recorder=[batch_updates,checkpoints]"))
    first, second = stages._missing()
    stages_of(quick(f"recorder=[{second}]")).pretrain()
    with pytest.raises(MadeElsewhere):
        stages._record([first, second], {})
    assert {a.stage for a in stages.store.artefacts()} == {"request", "record", "pretrain"}
    assert stages._missing() == [first]
    stages.pretrain()
    assert stages.record(first).read("about.json")


def test_records_are_locked_in_one_order_by_all(quick: Quick) -> None:
    one = stages_of(quick("recorder=[batch_updates,checkpoints]"))
    other = stages_of(quick("recorder=[checkpoints,batch_updates]"))
    assert one._missing() == other._missing()


def test_the_share_of_batches_is_of_all_batches_whatever_is_tracked(quick: Quick) -> None:
    """With batches of 4, some hold no row of the class."""
    found = []
    for tracked in ("null", "[3]"):
        record = ["recorder=[batch_updates]", f"recorder.batch_updates.classes={tracked}"]
        row = run(quick(*record, "method=amnesiac", "training.batch_size=4"))
        assert row is not None
        found.append(row.costs["unlearned"]["batches_hit"])
    assert found[0] == found[1] < 1


def test_the_cost_sheet_comes_before_the_first_step(quick: Quick) -> None:
    told: list[str] = []
    plan = quick("recorder=[batch_updates,per_sample]")
    stages = Stages(plan, Store(plan.root / "store", told.append), Tracker())
    stages.pretrain()
    updates, samples = told
    assert "recorder.batch_updates: " in updates and " per tracked row, " in updates
    assert "a request for 20 rows hits 100.0% of the batches" in updates
    assert samples.endswith("3 of 4 layers as factors, the others as sums")


def test_a_row_says_what_its_record_takes(quick: Quick) -> None:
    row = run(quick("recorder=[batch_updates]", "method=amnesiac"))
    assert row is not None
    size = row.costs["unlearned"]["record_bytes"]
    assert 4 * 4 * 1000 < size < 4 * 4 * 10000 + 100_000
    assert row.costs["unlearned"]["record_seconds"] > 0
    assert "record_bytes" not in row.costs["reference"]


def test_the_exact_share_is_refused_where_there_is_none(quick: Quick) -> None:
    for override in ("training.optimizer=adam", "training.clip=1"):
        stages = stages_of(quick(*SAMPLES, override, "recorder.per_sample.attribution=exact"))
        with pytest.raises(UserError, match=r"set recorder\.per_sample\.attribution=step"):
            stages.pretrain()
