"""Models taken away: a file of weights, its configuration beside it, and a line that loads it again."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data.errors import UserError
from methods.training.divergence import Diverged
from runner.exported import load
from runner.pipeline import run
from runner.plan import Plan
from runner.stages.models import MODEL, weights_of
from runner.store import Artefact, Store
from runner.store.export import export
from tests.conftest import QUICK, Stages, result_of, results_in, stages_of
from tests.test_store import shown

Quick = Callable[..., Plan]

NAME = "name=digits_small_cnn_whole_class"
FAST = [*QUICK, "evaluation=quick", "metric=[accuracy]"]


def same_logits(stages: Stages, model: torch.nn.Module, expected: str) -> bool:
    """Return whether a module has the stored logits of a role's model on the test set."""
    made = {"unlearned": stages.unlearn, "original": lambda original: original}[expected](
        stages.pretrain()
    )
    method = stages.plan.method if expected == "unlearned" else None
    images = next(stages.dataset.test.batches(len(stages.dataset.test))).images
    logits = stages.predictions(made, method).logits
    wanted = torch.cat([logits["test_forget"], logits["test_retain"]])
    with torch.no_grad():
        found = model(images)
    order = torch.argsort(wanted[:, 0]), torch.argsort(found[:, 0])
    return torch.allclose(wanted[order[0]], found[order[1]], atol=1e-5)


@pytest.mark.parametrize("method", ["finetune", "sisa"])
def test_an_exported_model_is_loaded_by_one_line(
    quick: Quick, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one with an architecture of its own."""
    smaller = ["method.shards=2", "method.slices=2"] if method == "sisa" else []
    command = [*FAST, f"method={method}", *smaller]
    plan = quick(*command)
    result_of(plan, *command)
    file = tmp_path / "away" / "model.safetensors"
    code, text = shown(capsys, "--root", str(tmp_path), "export", NAME, str(file))
    assert (code, text) == (0, f"{file}, {file.with_suffix('.json')}\n")
    assert same_logits(stages_of(plan), load(file), "unlearned")
    told = json.loads(file.with_suffix(".json").read_text())
    assert told["command"] == ["python", "-m", "runner", *command]
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="has another checksum"):
        load(file)


def test_keys_choose_among_several_models(quick: Quick, tmp_path: Path) -> None:
    for seed in (0, 1):
        command = [*FAST, f"seed={seed}"]
        result_of(quick(*command), *command)
    first, second = results_in(tmp_path)
    file = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=rf"has 2 models: (?s:.*){first.key} (?s:.*){second.key} "):
        export(tmp_path, NAME, file)
    damaged = tmp_path / "results" / "another" / "a.json"
    damaged.parent.mkdir()
    damaged.write_text("{}")
    export(tmp_path, second.key, file)
    assert json.loads(file.with_suffix(".json").read_text())["sha256"] == second.weights["unlearned"]
    (original,) = [key for stage, key in first.artefacts if stage == "pretrain"]
    export(tmp_path, original, file)
    assert same_logits(stages_of(quick(*FAST, "seed=0")), load(file), "original")
    with pytest.raises(UserError, match="has a model 0123"):
        export(tmp_path, "0123", file)
    with pytest.raises(UserError, match="give it the suffix"):
        export(tmp_path, second.key, tmp_path / "model.pt")


def test_a_retrained_model_is_exported_without_the_unlearned_one(quick: Quick, tmp_path: Path) -> None:
    """Both lie in one stage of the store, and the key says which of them is asked for."""
    command = [*FAST, "evaluation=standard", "metric=[closeness]"]
    plan = quick(*command)
    result_of(plan, *command)
    (result,) = results_in(tmp_path)
    stored = filter(is_model, Store(tmp_path / "store").artefacts())
    keys = {weights_of(made): made.key for made in stored}
    unlearned, retrained = (keys[result.weights[role]] for role in ("unlearned", "reference"))
    shutil.rmtree(tmp_path / "store" / "unlearn" / unlearned)
    file = tmp_path / "model.safetensors"
    export(tmp_path, retrained, file)
    told = json.loads(file.with_suffix(".json").read_text())
    assert (told["role"], told["sha256"]) == ("reference", result.weights["reference"])
    load(file)
    shutil.rmtree(tmp_path / "store" / "unlearn" / retrained)
    for key in (unlearned, retrained):
        with pytest.raises(UserError, match=rf"{key} .*no longer in the store: run `python -m runner "):
            export(tmp_path, key, file)


def is_model(made: Artefact) -> bool:
    return (made.path / MODEL).exists()


def test_a_name_whose_runs_all_diverged_has_no_model(quick: Quick, tmp_path: Path) -> None:
    command = [*FAST, "method=finetune", "method.lr=1e6"]
    with pytest.raises(Diverged):
        run(quick(*command), command)
    with pytest.raises(UserError, match=r"every run of .* diverged"):
        export(tmp_path, NAME, tmp_path / "model.safetensors")


def test_a_table_has_a_csv_with_one_line_per_model_and_seed(quick: Quick, tmp_path: Path) -> None:
    from runner.report import Report

    for seed in (0, 1):
        run(quick(f"seed={seed}"), [f"seed={seed}", f"paths.root={tmp_path}"])
    results = results_in(tmp_path)
    Report(results, ["test_accuracy", "gradient_examples"]).write(tmp_path / "tables", "mine")
    with (tmp_path / "tables" / "mine_rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["seed"], line["role"]) for line in lines] == [
        (seed, role) for seed in ("0", "1") for role in ("original", "reference", "unlearned")
    ]
    (line,) = [line for line in lines if (line["role"], line["seed"]) == ("unlearned", "1")]
    assert float(line["test_accuracy"]) == results[1].scores["unlearned"]["test_accuracy"]
    assert line["key"] == results[1].key and line["variant"] == "finetune"
    assert "seed=1" in line["overrides"] and str(tmp_path) not in line["overrides"], (
        "no place of a machine"
    )
    assert float(line["gradient_examples"]) == results[1].costs["unlearned"]["gradient_examples"]
