"""Phases: the accuracies of the test rows through training, unlearning and repair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from runner.figure.drawing import Drawing, in_groups, legend, panels, styles
from runner.figure.runs import Model, Runs
from runner.naming import command_of
from runner.report.cells import ABSENT, values
from runner.results import Line
from runner.roles import ORIGINAL, REPAIRED, UNLEARNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The scores of the two parts, and their strokes.
PARTS = {"test_retain_accuracy": "-", "test_forget_accuracy": "--"}

# The phases after the training, in order.
LATER = (UNLEARNED, REPAIRED)

# The lines of the phases that the runs of a method have, by the line of its unlearned model.
Made = dict[Line, list[Line]]


@dataclass(frozen=True)
class PhasesFigure(Drawing):
    """Accuracies against epochs, and then after unlearning and after repair: a panel for every original,
    or several, as one shows at most `MOST` methods.

    Training is that of the first seed, from its record of checkpoints. Unlearned and repaired models are
    means over seeds. Retained rows have a solid line, forgotten ones a dashed one, and a dotted vertical
    line marks the request.
    """

    def draw(self, runs: Runs) -> "Figure":
        """Raise UserError if a training has no stored checkpoints, or the request no test rows."""
        originals = [line for line in runs.models if line.cell == ORIGINAL.name]
        trained = {line: _trained(runs.models[line][0]) for line in originals}
        shown = [(line, group) for line in originals for group in _groups(runs, line)]
        figure, all_axes = panels(len(shown), 1, 5.2, 4)
        for axes, (line, group) in zip(all_axes, shown, strict=True):
            _panel(axes, runs, line, group, trained[line])
        legend(figure, [[axes] for axes in all_axes])
        return figure


def _panel(
    axes: "Axes", runs: Runs, original: Line, made: Made, trained: Mapping[str, Sequence[float]]
) -> None:
    """Draw the training of an original, and models that were made from it."""
    labels, known = runs.report.titles, values(runs.report.cells)
    look, last = styles([original, *made], labels), len(next(iter(trained.values()))) - 1
    for part, stroke in PARTS.items():
        _draw(axes, look[original]["color"], stroke, labels[original], 0, trained[part])
        for line, after in made.items():
            means = [known.get((each, part), ABSENT).mean for each in after]
            shown = [trained[part][-1], *means]
            _draw(axes, look[line]["color"], stroke, labels[line], last, shown)
    axes.axvline(last + 0.5, color="black", ls=":", lw=1)
    axes.set_xticks([0, last, *(last + 1 + i for i in range(len(LATER)))])
    axes.set_xticklabels(["0", str(last), *(role.name for role in LATER)], fontsize="small", rotation=30)
    axes.set(title=labels[original], xlabel="epochs of training", ylabel="accuracy", ylim=(-0.02, 1.02))


def _draw(
    axes: "Axes", color: Any, stroke: str, label: str, start: int, scores: Sequence[float]
) -> None:
    """Draw accuracies from an epoch on. The legend has a line once, with a solid stroke."""
    named = label if stroke == "-" else f"_{label}"
    axes.plot(range(start, start + len(scores)), scores, ls=stroke, marker=".", color=color, label=named)


def _groups(runs: Runs, original: Line) -> list[Made]:
    """Return what was made from an original, in groups of at most `MOST`, by name: originals with the
    same variants have one colour for each."""
    labels, found = runs.report.titles, _made_from(runs, original)
    made = sorted(found.items(), key=lambda each: labels[each[0]])
    return [dict(group) for group in in_groups(made)]


def _made_from(runs: Runs, original: Line) -> Made:
    found: Made = {}
    for result in runs.report.results:
        own = [result.line(role) for role in LATER if role.name in result.cells and role in result.roles]
        if own and own[0].setting == original.setting and own[0] in runs.models:
            found[own[0]] = own
    return found


def _trained(model: Model) -> dict[str, list[float]]:
    """Return the accuracies after every epoch of a training, from 0, by score, from the record of its
    checkpoints."""
    from methods.recording.checkpoints import Checkpoints, weights_after
    from metrics.predictions import predict
    from models.precision import Precision
    from runner.plan import identities
    from runner.stages import request

    workspace = model.workspace
    plan, network = workspace.plan, model.network
    recorders = [each for each in plan.recorders.values() if isinstance(each, Checkpoints)]
    if not recorders:
        raise UserError(
            "the figure phases needs the weights after every epoch: add recorder=[checkpoints]"
        )
    wanted = "record", identities.record(plan, recorders[0])
    if not workspace.store.has(*wanted):
        raise UserError(
            "the figure phases needs a record of checkpoints that is no longer in the store: run "
            f"`{command_of(model.result.overrides)}` again"
        )
    record = workspace.store.find(*wanted)
    asked, _ = request(workspace)
    test = workspace.dataset.test
    if not len(asked.test):
        raise UserError("the figure phases needs forgotten test rows, which random requests lack")
    parts = dict(zip(PARTS, (test.without(asked.test), test.only(asked.test)), strict=True))
    bf16 = plan.recipe.precision is Precision.bf16
    scores: dict[str, list[float]] = {part: [] for part in parts}
    for epoch in range(plan.recipe.epochs + 1):
        network.load_state_dict(weights_after(record.path, epoch))
        for part, split in parts.items():
            logits = predict(network, split, plan.evaluation.batch_size, bf16)
            scores[part].append((logits.argmax(1) == split.labels.cpu()).double().mean().item())
    return scores
