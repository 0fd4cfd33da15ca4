"""A run may begin at a model of another data set; so does its retraining."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import UserError
from data.medmnist import OrganAMNIST
from runner.plan import Plan, identities
from runner.remarks import warn_if_references_may_know
from runner.report import Report
from runner.results import Result
from runner.stages import Workspace
from runner.stages.models import fresh, weights
from runner.state.cells import cells_of
from runner.state.standing import standings
from runner.store import Store, fingerprint
from tests.conftest import QUICK, plan_of, result_of

PUBLIC = ["pretrained=digits_parity", "pretrained.training.epochs=2", "pretrained.training.warmup=0"]


def run(root: Path, *overrides: str) -> tuple[Plan, Result]:
    plan = plan_of(*QUICK, *overrides, f"paths.root={root}")
    return plan, result_of(plan)


def state(root: Path, stage: str, key: str) -> dict[str, torch.Tensor]:
    return weights(root / "store" / stage / key)


def test_the_checkpoint_is_the_original_of_its_own_data_set(tmp_path: Path) -> None:
    """A run of that data set, with the same recipe and seed, would make and find the same artefact."""
    plan = plan_of(*QUICK, *PUBLIC)
    assert plan.public is not None
    own = plan_of(
        "dataset=digits_parity", "scenario.classes=[1]", *QUICK, "data.limit=null", "training.epochs=2"
    )
    assert identities.pretrain(plan.public) == identities.pretrain(own)
    run(tmp_path, *PUBLIC)
    assert Store(tmp_path / "store").has(*identities.wanted_original(own))


def test_originals_and_retrained_models_begin_at_the_checkpoint_but_for_the_head(tmp_path: Path) -> None:
    """With no epoch of their own, they are the checkpoint, with heads of their own."""
    given = [*PUBLIC, "training.epochs=0", "method=retrain", "evaluation.references=2"]
    plan, result = run(tmp_path, *given)
    assert plan.public is not None
    public = state(tmp_path, "pretrain", fingerprint(identities.pretrain(plan.public)))
    heads = []
    for stage, key in {tuple(made) for made in result.artefacts}:
        if stage not in ("pretrain", "unlearn") or key == fingerprint(identities.pretrain(plan.public)):
            continue
        found = state(tmp_path, stage, key)
        heads.append(found["8.weight"])
        assert found["8.weight"].shape == (10, 16) and public["8.weight"].shape == (2, 16)
        body = {name for name in public if not name.startswith("8.")}
        assert all(torch.equal(found[name], public[name]) for name in body)
    assert len(heads) == 3 and not torch.equal(heads[0], heads[1])


def test_a_checkpoint_that_was_deleted_is_told_with_its_cure(tmp_path: Path) -> None:
    plan = plan_of(*QUICK, *PUBLIC, f"paths.root={tmp_path}")
    ws = Workspace(plan, Store(tmp_path / "store"))
    with pytest.raises(UserError, match=r"pretrained= is no longer in the store: run the command"):
        fresh(ws, ws.streams("pretrain"))


def test_the_checkpoint_is_in_the_keys_of_what_begins_at_it() -> None:
    plain, begun = plan_of(), plan_of(*PUBLIC)
    assert begun.key != plain.key
    assert "public" not in identities.pretrain(plain)
    keys = {plan_of(*PUBLIC, extra).key for extra in ("pretrained.seed=1", "pretrained.limit=9")}
    assert len({*keys, begun.key}) == 3


def test_seeds_and_methods_share_one_checkpoint() -> None:
    plans = [plan_of(*PUBLIC, "seed=0"), plan_of(*PUBLIC, "seed=1", "method=random_labels")]
    one, other = (identities.pretrain(plan.public) for plan in plans if plan.public is not None)
    assert one == other


def test_a_reference_from_scratch_leaves_the_checkpoint_to_the_original(tmp_path: Path) -> None:
    _, begun = run(tmp_path, *PUBLIC)
    _, made = run(tmp_path, *PUBLIC, "reference.weights=null")
    _, plain = run(tmp_path)
    assert (begun.reference_from, made.reference_from) == ("checkpoint", "scratch")
    assert made.weights["original"] == begun.weights["original"] != plain.weights["original"]
    assert made.weights["reference"] == plain.weights["reference"] != begun.weights["reference"]
    assert made.key == begun.key and made.setting != begun.setting


def test_a_reference_starts_at_a_file_in_place_of_the_checkpoint(tmp_path: Path) -> None:
    _, plain = run(tmp_path)
    (key,) = (key for stage, key in plain.artefacts if stage == "pretrain")
    file = tmp_path / "store" / "pretrain" / key / "model.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    own = [f"reference.weights={file}", f"reference.sha256={digest}"]
    _, made = run(tmp_path, *PUBLIC, *own, "training.epochs=0")
    assert made.reference_from == "weights" and made.weights["reference"] == plain.weights["original"]


@pytest.mark.parametrize(
    ("given", "knows"),
    [
        (["pretrained=digits_parity"], True),
        (["dataset=digits_parity", "scenario=random", "pretrained=digits_parity"], True),
        (["dataset=cifar20", "pretrained=cifar100"], True),
        (["dataset=cifar100", "pretrained=cifar100", "model=vit"], True),
        (["dataset=cifar20", "pretrained=cifar10"], False),
        (["dataset=mnist", "pretrained=digits_parity", "model.input_size=8"], False),
        (["dataset=cifar20", "pretrained=cifar100", "reference.weights=null"], False),
        (["pretrained=digits_parity", "evaluation=quick"], False),
        ([], False),
    ],
)
def test_a_checkpoint_of_the_runs_own_images_may_know_the_rows_to_forget(
    given: list[str], knows: bool
) -> None:
    plan, said = plan_of(*given), list[str]()
    warn_if_references_may_know(plan, said.append)
    assert plan.reference_may_know == knows == any("the reference is retrained from" in s for s in said)


def test_a_reference_that_may_know_is_told_before_any_training_and_below_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, made = run(tmp_path, *PUBLIC)
    said = capsys.readouterr().err
    assert "the reference is retrained from the checkpoint of pretrained=, too: if its rows" in said
    assert (
        "retrain: starts from a checkpoint of the same images"
        in Report([made], ["test_loss"]).terminal()
    )
    _, made = run(tmp_path, *PUBLIC, "reference.weights=null")
    assert "the checkpoint of pretrained=" not in capsys.readouterr().err
    assert "the same images" not in Report([made], ["test_loss"]).terminal()


def test_shadow_models_of_such_a_checkpoint_are_told() -> None:
    said: list[str] = []
    warn_if_references_may_know(plan_of(*PUBLIC, "evaluation=privacy"), said.append)
    assert any("the shadow models start at the checkpoint of pretrained=, too" in each for each in said)


def test_a_checkpoint_of_other_images_is_refused() -> None:
    with pytest.raises(
        UserError, match="have 3 channels and 32 pixels a side, and those of the run 1 and 8"
    ):
        plan_of("pretrained=cifar10")
    assert plan_of("dataset=mnist", "pretrained=digits_parity", "model.input_size=16").public is not None


def test_a_missing_checkpoint_of_paper_001_is_named_with_the_place_for_it(tmp_path: Path) -> None:
    said = r"^model\.weights=.*/google/vit-base-patch16-224/model\.safetensors .*: fetch .* of "
    with pytest.raises(
        UserError, match=rf"{said}huggingface\.co/google/vit-base-patch16-224 .* put it there"
    ):
        plan_of("experiment=paper001_table1", "variant=finetune", f"data.root={tmp_path}")


def organs(root: Path) -> OrganAMNIST:
    """Write a file of MedMNIST's layout with 22 training rows and 11 test rows; return its source."""
    parts = {"train": 22, "val": 11, "test": 11}
    arrays = {f"{part}_images": np.full((n, 28, 28), n, np.uint8) for part, n in parts.items()}
    labels = {f"{part}_labels": np.arange(n, dtype=np.uint8)[:, None] % 11 for part, n in parts.items()}
    file = root / "organamnist.npz"
    np.savez(file, **arrays, **labels)

    class Written(OrganAMNIST):
        md5 = hashlib.md5(file.read_bytes()).hexdigest()

    return Written(mean=[0.5], std=[0.5], crop=0, flip=False)


ORGANS = OrganAMNIST(mean=[0.5], std=[0.5], crop=0, flip=False)


def test_medmnists_files_are_read_without_their_validation_rows(tmp_path: Path) -> None:
    found = organs(tmp_path).load(tmp_path, download=False)
    assert found.train.images.shape == (22, 1, 28, 28) and int(found.train.images[0, 0, 0, 0]) == 22
    assert found.train.labels.tolist() == [*range(11), *range(11)]
    assert found.test.labels.tolist() == list(range(11)) and found.classes == len(ORGANS.names) == 11


def test_a_missing_or_other_file_of_medmnist_is_named(tmp_path: Path) -> None:
    """Two versions of MedMNIST have files of this name, and keys do not hold what is in a file."""
    with pytest.raises(UserError, match=r"organamnist.npz is missing: fetch organamnist.npz"):
        ORGANS.load(tmp_path, download=False)
    (listed,) = standings(cells_of([["dataset=organamnist", f"data.root={tmp_path}"]]), {})
    assert "organamnist.npz is missing: fetch organamnist.npz" in listed.why, "plan=true says so, too"
    organs(tmp_path)
    with pytest.raises(UserError, match=r"is another file or damaged .* fetch organamnist.npz"):
        ORGANS.load(tmp_path, download=False)
