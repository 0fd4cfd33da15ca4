"""Figures that do not mislead: who is who, how sure it is, in which unit and on which axis."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from runner.figure.confusion import _frame
from runner.figure.curves import CurvesFigure
from runner.figure.drawing import COLOURS, MARKERS, MOST, histograms, in_lines
from runner.figure.pareto import ParetoFigure
from runner.figure.runs import Runs
from runner.figure.scores import ScoresFigure
from runner.report import Report
from runner.report.cells import Estimate, interval, least_of
from runner.results import Result
from tests.test_report import result

METHODS = [f"method_{number}" for number in range(60)]
FIGURE = ScoresFigure("gradient_examples", ["test_accuracy"], joined=False)


def runs(results: list[Result]) -> Runs:
    return Runs(Report(results, ["test_accuracy"]), Path("nowhere"))


def spent(made: Result, examples: float) -> Result:
    """Return the result with another cost of its unlearned model."""
    return replace(made, costs={**made.costs, "unlearned": {"gradient_examples": examples}})


def legend_of(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def title_of(axes: Axes) -> str:
    found = axes.get_legend()
    assert found is not None
    return str(found.get_title().get_text())


def test_sixty_names_share_no_panel_with_their_likes_and_no_legend_is_cut() -> None:
    figure = FIGURE.draw(runs([result(name, 0, 0.3 + i / 100) for i, name in enumerate(METHODS)]))
    figure.draw_without_rendering()
    assert len(figure.axes) == -(-60 // MOST) and MOST <= 8
    shown = []
    for axes in figure.axes:
        looks = [(c.lines[0].get_color(), c.lines[0].get_marker()) for c in axes.containers]  # type: ignore[attr-defined]
        assert len({colour for colour, _ in looks}) == len({mark for _, mark in looks}) == len(looks)
        legend = axes.get_legend()
        assert legend is not None
        box, page = legend.get_window_extent(), figure.bbox
        assert (
            page.x0 <= box.x0
            and box.x1 <= page.x1 + 1
            and page.y0 - 1 <= box.y0
            and box.y1 <= page.y1 + 1
        )
        shown += [text.split(" (")[0] for text in legend_of(axes)[2:]]
    assert sorted(shown) == sorted(name.replace("_", " ") for name in METHODS)


def test_the_colours_differ_in_lightness_or_hue_for_all_eyes() -> None:
    """Without red-green vision, by Machado's matrix of deuteranopia, no two colours fall together."""
    seen = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    for matrix in (np.eye(3), seen):
        found = [matrix @ np.array(to_rgb(colour)) for colour in COLOURS]
        apart = [np.linalg.norm(a - b) for i, a in enumerate(found) for b in found[:i]]
        assert min(apart) > 0.2
    assert len(set(MARKERS)) == len(COLOURS)


def test_one_seed_is_hollow_and_the_legend_says_so() -> None:
    many = [result("finetune", seed, 0.3 + seed / 10) for seed in range(3)]
    (axes,) = FIGURE.draw(runs([*many, spent(result("scrub", 0, 0.8), 10.0)])).axes
    faces = {c.get_label(): c.lines[0].get_markerfacecolor() for c in axes.containers}  # type: ignore[attr-defined]
    assert faces == {"fine-tuning": COLOURS[0], "SCRUB": "white"}
    assert title_of(axes) == "hollow: one seed"
    assert not any(c.has_yerr for c in axes.containers if c.get_label() == "SCRUB")  # type: ignore[attr-defined]
    (axes,) = FIGURE.draw(runs(many)).axes
    assert title_of(axes) == ""


def test_points_in_one_place_show_around_each_other() -> None:
    made = [result("finetune", 0, 0.3), result("scrub", 0, 0.3), spent(result("ssd", 0, 0.9), 5.0)]
    (axes,) = FIGURE.draw(runs(made)).axes
    sizes = {str(c.get_label()).split(" (")[0]: c.lines[0].get_markersize() for c in axes.containers}  # type: ignore[attr-defined]
    assert sizes["fine-tuning"] > sizes["SCRUB"] == 6
    below = {str(c.get_label()).split(" (")[0]: c.lines[0].get_zorder() for c in axes.containers}  # type: ignore[attr-defined]
    assert below["fine-tuning"] < below["SCRUB"]


@pytest.mark.parametrize(("p", "half"), [(0.625, 1.352), (0.02, 0.1), (0.999, 0.2), (0.5, 0.0)])
def test_the_interval_of_a_share_lies_inside(p: float, half: float) -> None:
    low, high = interval(Estimate(p, half, 3), share=True)
    assert 0 <= low <= p <= high <= 1
    assert interval(Estimate(p, half, 3), share=False) == (p - half, p + half)


def test_the_interval_of_a_share_is_that_of_its_logit() -> None:
    # odds 0.25 · exp(± 0.1/(0.2 · 0.8)) = 0.133815 and 0.467062, and p = odds/(1 + odds)
    assert interval(Estimate(0.2, 0.1, 3), share=True) == pytest.approx((0.118022, 0.318365), abs=1e-6)
    assert interval(Estimate(0.0, 0.0, 3), share=True) == (0.0, 0.0)


def test_bars_of_shares_stay_inside_and_those_of_others_do_not() -> None:
    made = [result("finetune", seed, score) for seed, score in enumerate([0.1, 0.9, 0.95])]
    (axes,) = FIGURE.draw(runs(made)).axes
    (point,) = axes.containers
    ends = point.lines[2][0].get_segments()[0][:, 1]  # type: ignore[attr-defined]
    assert ends.min() > 0 and ends.max() < 1


def test_bars_of_losses_do_not_reach_below_zero() -> None:
    made = [
        replace(each, scores={role: {"test_loss": loss} for role in each.scores})
        for seed, loss in enumerate([0.1, 0.9])
        for each in [result("finetune", seed, loss)]
    ]
    (axes,) = ScoresFigure("gradient_examples", ["test_loss"], joined=False).draw(runs(made)).axes
    (point,) = axes.containers
    ends = point.lines[2][0].get_segments()[0][:, 1]  # type: ignore[attr-defined]
    # 0.5 ± t₀.₉₇₅,₁ · 0.4
    assert list(ends) == pytest.approx([0, 0.5 + 12.7062 * 0.4], rel=1e-5)


def test_bands_of_losses_do_not_reach_below_zero() -> None:
    drawn = runs([result("finetune", 0, 0.4), result("finetune", 1, 0.5)])
    for model in [model for models in drawn.models.values() for model in models]:
        model.__dict__["logged"] = [{"epoch": 1, "loss": 0.1 + 0.8 * (model.result.seed or 0)}]
    (axes,) = CurvesFigure("epoch", ["loss"]).draw(drawn).axes
    heights = np.concatenate(
        [np.asarray(band.get_paths()[0].vertices)[:, 1] for band in axes.collections]
    )
    # 0.5 ± t₀.₉₇₅,₁ · 0.4
    assert (heights.min(), heights.max()) == pytest.approx((0, 0.5 + 12.7062 * 0.4), rel=1e-5)


@pytest.mark.parametrize(
    ("score", "values", "least"),
    [
        ("loss", [0.1, 2.0], 0),
        ("test_forget_loss", [0.0], 0),
        ("loss", [-0.1, 2.0], -math.inf),
        ("test_loss - train_loss", [0.1], -math.inf),
        ("kl", [0.1], -math.inf),
    ],
)
def test_a_loss_without_negative_values_has_no_interval_below_zero(
    score: str, values: list[float], least: float
) -> None:
    assert least_of(score, values) == least


def test_a_logarithmic_axis_says_so() -> None:
    near = [spent(result("finetune", 0, 0.3), 100.0), spent(result("scrub", 0, 0.4), 200.0)]
    far = [*near, spent(result("ssd", 0, 0.5), 9000.0)]
    for made, label in ((near, "gradient examples"), (far, "gradient examples (log scale)")):
        (axes,) = FIGURE.draw(runs(made)).axes
        assert axes.get_xlabel() == label


def test_the_front_is_marked_and_its_axes_can_be_read() -> None:
    """Distances from 0.5 are 0.2, 0.05 and 0.3, of forgetting and of utility alike."""
    made = [
        spent(result("finetune", 0, 0.3), 10.0),
        spent(result("scrub", 0, 0.45), 100.0),
        spent(result("ssd", 0, 0.8), 50.0),
    ]
    figure = ParetoFigure("test_accuracy", "test_accuracy", "gradient_examples").draw(runs(made))
    utility, cost = figure.axes
    assert legend_of(cost) == ["SCRUB", "fine-tuning", "behind the Pareto front"]
    for axis in (utility.xaxis, utility.yaxis, cost.xaxis):
        told = [tick.get_text() for tick in axis.get_ticklabels()]
        assert told == ["0", "0.003", "0.01", "0.03", "0.1", "0.3"]
    (stairs,) = [line for line in cost.get_lines() if line.get_ls() == ":"]
    assert stairs.get_xydata()[1:-1] == pytest.approx(np.array([[0.05, 100], [0.2, 10]]))  # type: ignore[index]
    (stairs,) = [line for line in utility.get_lines() if line.get_ls() == ":"]
    assert stairs.get_xydata()[1:-1] == pytest.approx(np.array([[0.05, 0.05]]))  # type: ignore[index]


def test_a_method_has_one_colour_in_all_panels_of_a_row_also_where_others_have_no_values() -> None:
    from matplotlib.figure import Figure

    shown = runs([result("finetune", 0, 0.4), result("scrub", 0, 0.6)])
    first, second = Figure().subplots(1, 2)
    own = {line: np.arange(4.0) for line in shown.models if line.shared_role is None}
    (scrub,) = [line for line in own if shown.report.titles[line] == "SCRUB"]
    histograms(first, shown, list(shown.models), own, 2)
    histograms(second, shown, list(shown.models), {scrub: own[scrub]}, 2)
    colours = [
        {each.get_label(): each.get_edgecolor() for each in axes.patches} for axes in (first, second)
    ]
    assert colours[1] == {"SCRUB": colours[0]["SCRUB"]}


def test_a_long_title_takes_several_lines_beside_its_axis() -> None:
    """An axis is 4 inches tall, and the title of a difference longer than that."""
    long = "accuracy - test accuracy on forgotten training rows"
    assert in_lines(long) == "accuracy - test accuracy on\nforgotten training rows"
    assert in_lines("accuracy on test rows") == "accuracy on test rows"


def test_a_forgotten_class_is_framed_and_the_axis_says_so() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    _frame(axes, [1], 3)
    (frame,) = axes.patches
    assert frame.get_bbox().bounds == (-0.5, 0.5, 3, 1)  # type: ignore[attr-defined]
    assert "framed: forgotten" in axes.get_ylabel()
