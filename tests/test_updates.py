"""Records of updates: they add up to the whole training, whole or in part."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.stats import hypergeom

from methods.recording.batch_updates import UpdateRecord
from methods.recording.estimates import share_of_batches_hit
from methods.recording.layerwise import Layerwise, Part
from runner.pipeline import run
from runner.plan import Plan
from tests.conftest import Stages, stages_of
from tests.recording import RECORD, training_of, weights

Quick = Callable[..., Plan]


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


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_the_estimated_bytes_are_what_is_written(quick: Quick, dtype: str, size: int) -> None:
    stages = stages_of(quick(*RECORD, f"recorder.batch_updates.dtype={dtype}"))
    stages.pretrain()
    folder = stages.record("batch_updates").path
    watched = training_of(stages, folder)
    written = (folder / "updates.entries").stat().st_size
    assert stages.plan.recorders["batch_updates"].estimated_bytes(watched) == written
    assert written == 8 * watched.parameters * size
    record = UpdateRecord.open(folder)
    total = record.total(torch.ones(8, dtype=torch.bool))
    final = weights(stages, stages.pretrain())
    moved = final - weights(stages)
    assert (total - moved).norm() <= (1e-6 if dtype == "fp32" else 1e-2) * moved.norm()


@pytest.mark.parametrize(
    ("rows", "tracked", "batch"), [(60000, 6131, 64), (50000, 500, 64), (100, 1, 10), (181, 1, 180)]
)
def test_the_share_of_batches_hit_is_hypergeometric(rows: int, tracked: int, batch: int) -> None:
    sizes = [min(batch, rows - start) for start in range(0, rows, batch)]
    each = {size: 1 - hypergeom(rows, tracked, size).pmf(0) for size in set(sizes)}
    exact = sum(each[size] for size in sizes) / len(sizes)
    assert share_of_batches_hit(rows, tracked, batch) == pytest.approx(exact, rel=1e-6)


def test_published_shares() -> None:
    """One class of ten hits every batch of 64; one class of a hundred hits about half."""
    assert round(share_of_batches_hit(50000, 5000, 64), 3) == 0.999
    assert round(share_of_batches_hit(50000, 500, 64), 2) == 0.47
    assert share_of_batches_hit(10, 8, 5) == 1.0


def test_a_row_is_in_one_batch_of_every_epoch_whatever_the_size_of_the_last(quick: Quick) -> None:
    """The estimate for a single row is exact: 30 updates for 181 rows in batches of 180."""
    one = ["data.rare=[3:1]", "recorder.batch_updates.classes=[3]", "training.batch_size=180"]
    stages = stages_of(quick("recorder=[batch_updates]", *one, "training.epochs=30"))
    stages.pretrain()
    folder = stages.record("batch_updates").path
    written = (folder / "updates.entries").stat().st_size
    assert stages.plan.recorders["batch_updates"].estimated_bytes(training_of(stages, folder)) == written


def test_the_share_of_batches_is_of_all_batches_whatever_is_tracked(quick: Quick) -> None:
    """With batches of 4, some hold no row of the class."""
    found = []
    for tracked in ("null", "[3]"):
        record = ["recorder=[batch_updates]", f"recorder.batch_updates.classes={tracked}"]
        result = run(quick(*record, "method=amnesiac", "training.batch_size=4"))
        assert result is not None
        found.append(result.costs["unlearned"]["batches_hit"])
    assert found[0] == found[1] < 1


# Parts of updates


LAYERS = ["recorder=[batch_updates,layerwise]", "training.epochs=2", "method=amnesiac_partial"]


def both_totals(stages: Stages) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums of all updates: of the whole record, and of the layer-wise one."""
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
        recorder.packing(training_of(stages, Path()))
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
