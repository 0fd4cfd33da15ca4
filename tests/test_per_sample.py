"""Records of per-sample gradients: their sums are those of vmap(grad), in every form."""

import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data.errors import UserError
from methods.recording.files import Entries
from methods.recording.per_sample import PerSample, SampleRecord, coefficients, record
from methods.training.cost import Meter
from methods.training.descent import Step
from methods.training.loop import Conditions, train
from runner.pipeline import run
from runner.plan import Plan
from runner.stages.models import MODEL
from tests.conftest import Stages, plan_of, stages_of
from tests.recording import SAMPLES, model_of, shares_of, training_of, weights
from tests.test_per_sample_gradients import reference

Quick = Callable[..., Plan]

GROUPED = [*SAMPLES, "recorder.per_sample.group_by=class"]


def shares_by_vmap(stages: Stages, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the same sums from torch.func.vmap(grad) at every step of the same training."""
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


def test_a_request_is_served_with_one_chunk_in_memory(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = stages_of(quick(*SAMPLES, "recorder.per_sample.form=factored"))
    rows = stages.request.rows
    whole, chunks, read = shares_of(stages, rows), list[weakref.ref[torch.Tensor]](), Entries.read

    def counted(entries: Entries, numbers: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        assert not any(chunk() is not None for chunk in chunks)
        found = read(entries, numbers, dtype)
        chunks.append(weakref.ref(found))
        return found

    monkeypatch.setattr(record, "CHUNK", 3)
    monkeypatch.setattr(Entries, "read", counted)
    found = shares_of(stages, rows)
    assert len(chunks) == -(-2 * len(rows) // 3)  # an entry for each row and epoch
    for name, value in whole.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-7), name


def test_no_rows_have_a_share_of_zero(quick: Quick) -> None:
    shares = shares_of(stages_of(quick(*SAMPLES)), torch.empty(0, dtype=torch.int64))
    assert shares and not any(value.any() for value in shares.values())


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
def test_a_layer_is_summed_where_that_halves_its_bytes_and_the_estimate_is_what_is_written(
    quick: Quick, dtype: str
) -> None:
    chosen = ["recorder.per_sample.classes=[3,4]", f"recorder.per_sample.dtype={dtype}"]
    stages = stages_of(quick(*SAMPLES, "model.hidden=64", *chosen))
    stages.pretrain()
    folder = stages.record("per_sample").path
    layers = SampleRecord.open(folder).about["layers"]
    assert not layers["0"]["factored"], "a small filter on a large map"
    # 2 epochs of 4·6·6 + 8·4·4 numbers are 544, the gradient is 4·8·3·3 + 8 = 296 of them
    assert layers["2"]["factored"], "a sum has fewer numbers, but more than half as many"
    assert layers["6"]["factored"], "a large matrix"
    watched = training_of(stages, folder)
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
        result = run(quick(*learned, f"method={method}"))
        assert result is not None and result.scores["original"]["train_forget_accuracy"] > 0.9
        assert result.scores["unlearned"]["train_forget_accuracy"] < 0.1
        kept[method] = result.scores["unlearned"]["train_retain_accuracy"]
    assert kept["amnesiac"] < 0.3 and kept["per_sample_amnesiac"] > 0.7


def test_the_exact_share_is_refused_where_there_is_none(quick: Quick) -> None:
    for override in ("training.optimizer=adam", "training.clip=1"):
        stages = stages_of(quick(*SAMPLES, override, "recorder.per_sample.attribution=exact"))
        with pytest.raises(UserError, match=r"set recorder\.per_sample\.attribution=step"):
            stages.pretrain()


# Groups


def test_a_group_has_one_sum_for_all_its_rows(quick: Quick) -> None:
    grouped = stages_of(quick(*GROUPED))
    single = stages_of(quick(*SAMPLES))
    rows = grouped.request.rows
    a, b = shares_of(grouped, rows), shares_of(single, rows)
    assert all((a[name] - b[name]).norm() <= 1e-5 * b[name].norm() for name in b)
    size = (grouped.record("per_sample").path / "sums.bin").stat().st_size
    assert size == 10 * sum(value.numel() for value in b.values()) * 4, "ten classes"


def test_the_rows_and_steps_of_a_record_without_factors_are_not_kept(quick: Quick) -> None:
    """Sums of groups take the same bytes for any number of rows and epochs."""
    stored = load_file(stages_of(quick(*GROUPED)).record("per_sample").path / "rows.safetensors")
    assert len(stored["rows"]) == len(stored["steps"]) == 0
    stages = stages_of(quick(*SAMPLES))
    single = load_file(stages.record("per_sample").path / "rows.safetensors")
    entries = len(single["tracked"]) * stages.plan.recipe.epochs
    assert len(single["rows"]) == len(single["steps"]) == entries


def test_a_part_of_a_group_is_refused(quick: Quick) -> None:
    request = ["scenario=random", "scenario.fraction=0.1", "method=per_sample_amnesiac"]
    stages = stages_of(quick(*GROUPED, *request))
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


# Masked sums, and Adam's coefficient


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
    assert stages.plan.recorders["per_sample"].estimated_bytes(training_of(stages, folder)) == written


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
        """Divide after the update, when Adam's state is the one that the update divided by."""
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
