"""Figures show the numbers of results and of their models; published numbers stand beside ours."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.class_names import DIGITS
from data.errors import UserError
from runner.compose import composed
from runner.figure.__main__ import main
from runner.figure.confusion import ConfusionFigure, forgotten
from runner.figure.curves import CurvesFigure
from runner.figure.drawing import MOST, Drawing
from runner.figure.leaks import LeaksFigure
from runner.figure.logits import LogitsFigure
from runner.figure.phases import PhasesFigure
from runner.figure.runs import Runs
from runner.figure.scores import ScoresFigure
from runner.pipeline import run
from runner.plan import Plan, build
from runner.published import FOLDER, read
from runner.report import Report
from runner.results import Results
from tests.conftest import QUICK, options, plan_of

Quick = Callable[..., Plan]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A method on two requests, for two seeds."""
    root = tmp_path_factory.mktemp("drawn")
    for seed in (0, 1):
        for fraction in (0.1, 0.3):
            scenario = ["scenario=random", f"scenario.fraction={fraction}"]
            own = ["method=random_labels", *scenario, f"seed={seed}", "name=drawn", *QUICK]
            run(plan_of(f"paths.root={root}", *own), own)
    return Runs(Report(Results(root / "results").named("drawn"), ["test_accuracy"]), root)


def test_a_point_is_the_mean_over_seeds_at_its_cost(runs: Runs) -> None:
    (axes,) = ScoresFigure("gradient_examples", ["test_accuracy"], joined=False).draw(runs).axes
    found = {tuple(point) for line in axes.containers for point in line.lines[0].get_xydata()}  # type: ignore[attr-defined]
    wanted = set()
    results = runs.report.results
    for cell in {result.cells["unlearned"] for result in results}:
        mine = [result for result in results if result.cells["unlearned"] == cell]
        score = sum(result.scores["unlearned"]["test_accuracy"] for result in mine) / len(mine)
        wanted.add((mine[0].costs["unlearned"]["gradient_examples"], score))
    assert {(round(x), round(y, 9)) for x, y in found} == {(round(x), round(y, 9)) for x, y in wanted}


def test_an_option_can_be_the_axis(runs: Runs) -> None:
    (axes,) = ScoresFigure("scenario.fraction", ["test_accuracy"], joined=False).draw(runs).axes
    at = {line.lines[0].get_xdata()[0] for line in axes.containers}  # type: ignore[attr-defined]
    assert at == {0.1, 0.3}
    (axes,) = ScoresFigure("training.epochs", ["test_accuracy"], joined=False).draw(runs).axes
    assert len(axes.containers) == 2, "as the option is set, not as an identity names it"
    assert axes.get_xlabel() == "epochs in training"


def test_lines_of_one_name_are_joined_in_the_order_of_the_axis(runs: Runs) -> None:
    figure = ScoresFigure("scenario.fraction", ["test_accuracy"], joined=True).draw(runs)
    (axes,) = figure.axes
    assert {each.get_label() for each in axes.containers} == {"random labels"}
    assert [0.1, 0.3] in [list(line.get_xdata()) for line in axes.get_lines()]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["original", "retrained", "random labels"]


def test_a_curve_is_the_mean_over_seeds_of_what_was_logged(runs: Runs) -> None:
    """The one of method=random_labels with fraction 0.1, and its 95 % interval."""
    (axes,) = CurvesFigure("epoch", ["loss"]).draw(runs).axes
    labels = [line.get_label() for line in axes.get_lines()]
    place = labels.index("random labels, 10 % of the rows")
    results = [result for result in runs.report.results if result.parameters["scenario.fraction"] == 0.1]
    logged = [
        [point["loss"] for point in json.loads(file.read_text())]
        for file in (runs.root / "store" / "unlearn" / result.key / "curves.json" for result in results)
    ]
    assert len(results) == 2 and np.ptp(logged, axis=0).min() > 0
    assert axes.get_lines()[place].get_ydata() == pytest.approx(np.mean(logged, axis=0))
    band = axes.collections[place].get_paths()[0].vertices  # type: ignore[union-attr]
    # t₀.₉₇₅,₁ = 12.7062, and s / √2 of two values is half their distance
    top = np.mean(logged, axis=0) + 12.7062 * np.ptp(logged, axis=0) / 2
    assert np.asarray(band)[:, 1].max() == pytest.approx(top.max(), rel=1e-5)


def test_a_matrix_is_summed_over_seeds_by_true_class(runs: Runs) -> None:
    *panels, bar = ConfusionFigure("confusion").draw(runs).axes
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == list(DIGITS), "by name"
    assert len(panels) == 6 and bar.get_ylabel() == "% of the true class"
    for axes, (setting, cell) in zip(panels, runs.report.lines(), strict=True):
        shares = np.asarray(axes.images[0].get_array())
        assert shares.sum(axis=1) == pytest.approx(100)
        recalls = [
            100 * runs.report.cells["value"][setting, cell, f"class_{k}_accuracy"]
            for k in range(len(shares))
        ]
        assert np.diag(shares) == pytest.approx(recalls)


def test_logits_are_those_of_the_line_for_all_seeds(runs: Runs) -> None:
    every, third = LogitsFigure([3], 20).draw(runs).axes
    assert third.get_xlabel() == "logit of class 3"
    for axes in (every, third):
        assert len(axes.patches) == 6
        for histogram in axes.patches:
            values, edges, _ = histogram.get_data()  # type: ignore[attr-defined]
            assert len(values) == 20 and np.sum(values * np.diff(edges)) == pytest.approx(1)
    line = runs.report.lines()[1]
    values, edges, _ = third.patches[1].get_data()  # type: ignore[attr-defined]
    own = np.concatenate([model.logits[:, 3].numpy() for model in runs.models[line]])
    assert len(own) == 2 * len(runs.models[line][0].logits)
    mean = np.sum(values * np.diff(edges) * (edges[1:] + edges[:-1]) / 2)
    assert mean == pytest.approx(own.mean(), abs=float(edges[1] - edges[0]))


def test_a_histogram_of_leaks_is_that_of_the_forgotten_rows_of_all_seeds(runs: Runs) -> None:
    """A row's loss is ln(1 + e^−φ) of its log-odds φ, and the run's score is their mean."""
    (axes,) = LeaksFigure(20).draw(runs).axes
    for histogram, models in zip(axes.patches, runs.models.values(), strict=True):
        phi = [model.forgotten_margins.numpy() for model in models]
        for own, model in zip(phi, models, strict=True):
            score = model.result.scores[model.role.name]["train_forget_loss"]
            assert np.logaddexp(0, -own).mean() == pytest.approx(score, rel=1e-5)
        values, edges, _ = histogram.get_data()  # type: ignore[attr-defined]
        assert len(values) == 20 and np.sum(values * np.diff(edges)) == pytest.approx(1)
        mean = np.sum(values * np.diff(edges) * (edges[1:] + edges[:-1]) / 2)
        assert mean == pytest.approx(np.concatenate(phi).mean(), abs=float(edges[1] - edges[0]))


@pytest.mark.parametrize(
    ("drawing", "words"),
    [
        (
            ScoresFigure("nothing", ["test_accuracy"], False),
            r"figure\.scores\.x=nothing is no number of any run",
        ),
        (ScoresFigure("seconds", ["nothing"], False), r"figure\.scores\.y names nothing"),
        (
            CurvesFigure("epoch", ["kl"]),
            r"figure\.curves\.y names kl.*choose from accuracy, loss, lr$",
        ),
        (
            CurvesFigure("step", ["loss"]),
            r"figure\.curves\.y names loss.*with step.*that it was logged with: accuracy, epoch, lr$",
        ),
        (
            CurvesFigure("step", ["kl"]),
            r"figure\.curves\.y names kl.*with step: set figure\.curves\.x to one of accuracy, epoch,",
        ),
        (ScoresFigure("seconds", [], False), "the figure has no panel"),
        (
            ConfusionFigure("nothing"),
            r"set figure\.confusion\.matrix=confusion, or run `python -m runner\.score name=",
        ),
        (LogitsFigure([10], 20), r"figure\.logits\.classes names 10: choose from 0 to 9"),
    ],
)
def test_what_no_run_has_is_refused(drawing: Drawing, words: str, runs: Runs) -> None:
    with pytest.raises(UserError, match=words):
        drawing.draw(runs)


def test_curves_are_drawn_of_lines_that_have_them_and_the_others_are_named(tmp_path: Path) -> None:
    """Forgetting layers train for several rounds, each with its own epochs; SSD has none."""
    for method in ("random_labels", "forgetting_layers", "ssd"):
        own = [f"method={method}", "name=mixed", *QUICK]
        run(plan_of(f"paths.root={tmp_path}", *own), own)
    mixed = Runs(Report(Results(tmp_path / "results").named("mixed"), ["test_accuracy"]), tmp_path)

    def drawn(x: str) -> tuple[set[str], str]:
        figure = CurvesFigure(x, ["loss"]).draw(mixed)
        (axes,) = figure.axes
        names = {str(line.get_label()) for line in axes.get_lines()}
        return names, " ".join(figure.get_supxlabel().split())

    with pytest.raises(UserError, match=r"it is a single value, which table\.columns=\[selected"):
        CurvesFigure("step", ["selected"]).draw(mixed)
    names, told = drawn("epoch")
    assert names == {"original", "retrained", "random labels"}
    assert told.startswith("No curve of ") and told.endswith(": not one value at each epoch.")
    assert "forgetting layers (figure.curves.x=round draws it)" in told
    assert "selective dampening (SSD)" in told
    names, told = drawn("round")
    assert names == {"forgetting layers"} and "random labels (figure.curves.x=epoch draws it)" in told


def test_the_classes_that_a_request_forgets_are_its_own_however_weak_the_models_are(
    runs: Runs, tmp_path: Path
) -> None:
    """After one epoch on a few rows the retrained models predict few of the classes."""
    own = ["name=weak", *QUICK]
    run(plan_of(f"paths.root={tmp_path}", *own), own)
    weak = Runs(Report(Results(tmp_path / "results").named("weak"), ["test_accuracy"]), tmp_path)
    assert [forgotten(models) for models in weak.models.values()] == [[3]] * len(weak.models)
    assert not any(forgotten(models) for models in runs.models.values()), "single rows are no class"
    shutil.rmtree(tmp_path / "store" / "request")
    fresh = Runs(weak.report, tmp_path)
    assert not any(forgotten(models) for models in fresh.models.values())


@pytest.mark.parametrize("option", ["bins=0", "bins=99999999999999999999", "classes=[-1]"])
def test_numbers_of_figures_have_bounds(option: str) -> None:
    cfg, _ = composed(["figure=[logits]", f"figure.logits.{option}"])
    with pytest.raises(UserError, match=r"figure\.logits\.(bins|classes)=.*it must be at least [01]"):
        build(cfg.figure.logits, Drawing, "figure.logits")


def test_what_was_pruned_is_named_with_the_command_that_makes_it_again(
    runs: Runs, tmp_path: Path
) -> None:
    shutil.copytree(runs.root, tmp_path, dirs_exist_ok=True)
    pruned = replace(runs, root=tmp_path)
    for drawing, stage in (
        (CurvesFigure("epoch", ["loss"]), "unlearn"),
        (LogitsFigure([], 20), "predict"),
    ):
        drawing.draw(pruned)
        shutil.rmtree(tmp_path / "store" / stage)
        with pytest.raises(UserError, match="no longer in the store: run `python -m runner method="):
            drawing.draw(replace(runs, root=tmp_path))


def test_the_command_writes_every_picture(runs: Runs) -> None:
    kinds = [kind for kind in options("figure") if kind != "phases"]  # it needs records of checkpoints
    figures = ["figure.scores.y=[test_accuracy]", f"figure=[{','.join(kinds)}]"]
    main([f"paths.root={runs.root}", "name=drawn", *figures])
    for kind in kinds:
        picture = runs.root / "figures" / f"drawn_{kind}"
        assert picture.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        assert picture.with_suffix(".svg").exists()


def test_phases_go_from_the_first_epoch_to_the_repair(tmp_path: Path) -> None:
    own = [*QUICK, "name=phases", "recorder=[checkpoints]", "repair=epochs"]
    run(plan_of(f"paths.root={tmp_path}", *own), own)
    phases = Runs(Report(Results(tmp_path / "results").named("phases"), ["test_accuracy"]), tmp_path)
    (axes,) = PhasesFigure().draw(phases).axes
    # an epoch of training, the unlearned and the repaired model, for retained and for forgotten rows
    lengths = sorted(len(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == ".")
    assert lengths == [2, 2, 3, 3]
    shutil.rmtree(tmp_path / "store" / "record")
    with pytest.raises(UserError, match="no longer in the store: run `python -m runner"):
        PhasesFigure().draw(Runs(phases.report, tmp_path))


def test_phases_of_more_methods_than_colours_have_more_panels(tmp_path: Path) -> None:
    """Paper 002's preset has fifteen lines."""
    for number in range(MOST + 1):
        own = [*QUICK, "name=many", "recorder=[checkpoints]", f"method.lr=0.0{number + 1}"]
        run(plan_of(f"paths.root={tmp_path}", *own), own)
    phases = Runs(Report(Results(tmp_path / "results").named("many"), ["test_accuracy"]), tmp_path)
    drawn = [len(axes.get_legend_handles_labels()[1]) for axes in PhasesFigure().draw(phases).axes]
    assert drawn == [1 + MOST, 1 + 1]  # the original beside them


@pytest.mark.parametrize("preset", options("experiment"))
def test_the_figures_of_every_preset_build(preset: str) -> None:
    cfg, _ = composed([f"experiment={preset}"])
    assert all(build(cfg.figure[kind], Drawing, "figure") for kind in cfg.figure)
    assert cfg.figure or preset.startswith("paper"), "papers have presets of tables and of figures"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("paper*.csv")), ids=lambda path: path.stem)
def test_published_lines_are_lines_of_ours(path: Path) -> None:
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines and {line["line"] for line in lines} <= set(options("variant"))
    assert {line["role"] for line in lines} <= {"original", "unlearned", "repaired"}
    assert {line["dataset"] for line in lines} <= {*options("dataset"), "unnamed"}, (
        "paper 002 names none"
    )
    assert {line["model"] for line in lines} <= set(options("model"))
    assert all(0 <= printed.value <= 1 for printed in read(path.stem).values())


def test_ours_and_theirs_stand_in_one_cell(quick: Quick) -> None:
    """On digits and small: the numbers differ, their places must not."""
    preset = ["variant=amnesiac", "recorder=[batch_updates]", "repair=epochs", "name=beside"]
    plan = quick(*preset)
    run(plan)
    (result,) = Results(plan.root / "results").named("beside")
    published = read("paper004_table1")
    assert "(0.98)" not in Report([result], [], published=published).markdown(), "MNIST's, not digits'"
    published = {key: printed._replace(dataset="digits") for key, printed in published.items()}
    report = Report([result], ["test_forget_accuracy"], published=published)
    (line,) = [text for text in report.markdown().splitlines() if text.startswith("| amnesiac ")][-1:]
    unlearned = result.scores["unlearned"]["test_forget_accuracy"]
    repaired = result.scores["repaired"]["test_retain_accuracy"]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3] == f"{unlearned:.3f} (0)" and cells[6] == f"{repaired:.3f} (0.98)"
    (absent,) = [
        text
        for text in report.markdown().splitlines()
        if text.startswith("| partial amnesiac, 10 % kept ")
    ]
    assert "— (0.07)" in absent


def test_a_table_that_was_not_published_is_refused() -> None:
    with pytest.raises(UserError, match=r"table\.published=nowhere is not in"):
        read("nowhere")
