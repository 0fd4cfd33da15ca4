"""Remarks below a table: what its numbers rest on, and what they lack."""

from collections.abc import Collection, Mapping, Sequence

from omegaconf import OmegaConf

import conf
from runner.flags import AT_CHANCE, CLAMPED, CUT, SAME, UNMOVED
from runner.published import Published, notes
from runner.report.absent import Holders, held, of_absent, some
from runner.report.cells import Estimates
from runner.report.compare import Comparisons, Key
from runner.report.conditions import of_conditions, of_scoring
from runner.report.limits import of_limits
from runner.report.verdicts import FEWEST, false_flags
from runner.report.words import Names
from runner.results import Line, Result
from runner.roles import ORIGINAL, REFERENCE, UNLEARNED

# With fewer values than this, an interval rests on a single difference.
FEW = 3

# An accuracy on the rows to forget below which an original has not learned them.
LEARNED = 0.5

# The cure for such an original. The recipes are for whole data sets: few rows make few steps an epoch.
TEACH = "raise training.epochs, lower training.batch_size or change training.lr"

# Values of a result's costs that are remarks on the unlearned model, and the words for each.
FLAGS = {
    SAME: "the original bit for bit",
    UNMOVED: "moved no prediction",
    AT_CHANCE: "at chance on the retained rows",
    CUT: "cut short by budget.gradient_examples",
    CLAMPED: "a batch held a whole part of the rows, which is smaller than the method's batch",
}

# The marks of verdicts on forgetting and of unclear ones, as a text explains them.
MARKS = "under or over (forgets)", "? (unclear: "


def remarks(results: list[Result], names: Names, seeds: int, absent: Collection[str]) -> list[str]:
    """Return the remarks, one sentence each.

    `seeds` is the largest number of seeds of any cell; `absent` are the columns that no run has.
    """
    labels = names.lines
    found = []
    if seeds > 1:
        compared = any(REFERENCE.name in result.scores for result in results)
        paired = "; gaps are paired by seed" if compared else ""
        found.append(f"mean ± 95 % t-interval over {seeds} seeds{paired}")
    for result in results:
        if result.status != "done":
            label = labels[result.line(UNLEARNED)]
            found.append(f"{label}, seed {result.seed}: {result.status}: {result.error}")
    found += of_limits(results, labels)
    found += of_absent(results, names)
    found += _of_originals(results, labels)
    found += _of_models(results, labels)
    found += _of_references(results, names.retrained)
    found += of_conditions(results, labels)
    found += of_scoring(results, labels)
    if absent:
        found.append(f"no run has these columns: {', '.join(map(names.score, sorted(absent)))}")
    return found


def interval_remarks(
    estimates: Estimates,
    lines: Collection[Line],
    columns: Collection[str],
    retrained: str,
    by_seed: Collection[Key],
) -> list[str]:
    """Return the remarks on the number of values behind the intervals in these lines and columns.

    `retrained` is the name of the retrained models' line. In the lines and columns of `by_seed`, their
    value is the mean over those of one seed.
    """
    seeds, models, means = set[int](), set[int](), set[int]()
    for (line, name), each in estimates.items():
        if line in lines and name in columns and each.half_width == each.half_width:
            of_retrained = means if (line, name) in by_seed else models
            (of_retrained if line.cell == REFERENCE.name else seeds).add(int(each.n))
    over = [f"{_range(models)} retrained models"] if models else []
    if means:
        over.append(f"the means of {_range(means)} seeds, each of several retrained models of its own")
    found = []
    if over:
        found.append(
            f"{retrained}: mean ± 95 % t-interval over {', or '.join(over)}; scores that compare with a "
            "retrained model compare them with each other"
        )
    # a score that only the runs' own retrained models have rests on the seeds
    enough = max(models, default=0) >= FEWEST
    models_cure = (
        "run more seeds" if enough else f"set evaluation.references={FEWEST}, or run more seeds"
    )
    few = [
        f"{FEW - 1} {what}: {cure}"
        for counts, what, cure in (
            (seeds | means, "seeds", f"run {FEW} or more"),
            (models, "retrained models", models_cure),
        )
        if FEW - 1 in counts
    ]
    return found + [f"an interval rests on a single difference where it is over {each}" for each in few]


def _range(numbers: Collection[int]) -> str:
    return " to ".join(map(str, sorted({min(numbers), max(numbers)})))


def censored_remarks(ended: Collection[Key], names: Names, columns: Collection[str]) -> list[str]:
    """Return the remarks on the scores that are censored, by line, in these columns."""
    found = []
    for column in columns:
        if lines := [names.lines[line] for line, name in ended if name == column]:
            found.append(
                f"{names.score(column)}: the training of some models of {some(sorted(lines))} ended "
                "before; the means leave them out, and there is no verdict: raise "
                "evaluation.curve_batches"
            )
    return found


def published_remarks(published: Published, shown: Published, names: Names) -> list[str]:
    """Return the remarks on a paper's numbers: in what their lines differ, and which are not shown."""
    found = notes(shown)
    if len(shown) < len(published):
        others = {
            f"{names.option('dataset', each.dataset)}, {names.option('model', each.model)}"
            for key, each in published.items()
            if key not in shown
        }
        found.append(
            f"published numbers of {' and '.join(sorted(others))} stand beside no row: no run has that "
            "data set and model"
        )
    return found


def verdict_remarks(
    comparisons: Comparisons, lines: Collection[Line], columns: Collection[str], whole: bool
) -> list[str]:
    """Return the remarks on the verdicts in these lines and columns; none if there is no verdict.

    `whole` is true if the table has verdicts in whole words (see `marked`).
    """
    shown = [
        each
        for (line, name), each in comparisons.items()
        if line in lines and name in columns and each.verdict
    ]
    if not shown:
        return []
    several = any(each.difference.n > 1 for each in shown)
    beside = (
        "a verdict compares the seeds with all retrained models, the ± of a gap each seed with its own: "
        "with few seeds, one of the two may leave out 0 and the other not"
    )
    forgets, unclear = ("under-forgets, over-forgets", "unclear (") if whole else MARKS
    return [
        f"verdicts: matches (within the margin, two one-sided tests at 5 %); {forgets}, damaged, above, "
        f"differs (95 % interval without 0); {unclear}n seeds and as many retrained models would "
        "decide)",
        f"{len(shown)} verdicts; if all these models were retrained ones, "
        f"{false_flags(len(shown)):.1f} would wrongly differ",
        *([beside] if several else []),
    ]


def _of_models(results: list[Result], labels: Mapping[Line, str]) -> list[str]:
    """Return a remark for each flag of an unlearned model, with the lines and seeds that have it."""
    flagged: dict[str, Holders] = {}
    for result in results:
        costs = result.costs.get(UNLEARNED.name, {})
        for flag in FLAGS:
            # a model that is the original moves no prediction
            repeated = flag == UNMOVED and SAME in costs
            if costs.get(flag) and not repeated:
                label = labels[result.line(UNLEARNED)]
                flagged.setdefault(flag, {}).setdefault(label, []).append(str(result.seed))
    return [f"{words}: {held(flagged[flag])}" for flag, words in FLAGS.items() if flag in flagged]


def _of_originals(results: list[Result], labels: Mapping[Line, str]) -> list[str]:
    """Return a remark on each line of originals that have not learned the rows to forget, with the
    seeds."""
    weak: dict[str, dict[str, float]] = {}
    for result in results:
        share = result.scores.get(ORIGINAL.name, {}).get("train_forget_accuracy", 1.0)
        if share < LEARNED:
            weak.setdefault(labels[result.line(ORIGINAL)], {})[str(result.seed)] = share
    return [
        f"the {label} knows only {max(shares.values()):.3f} of the train forget rows (seed "
        f"{', '.join(shares)}), so there is little to forget, and a method that does nothing "
        f"may match: {TEACH}"
        for label, shares in weak.items()
    ]


def _of_references(results: list[Result], retrained: str) -> list[str]:
    found = []
    if any(result.reference_from == "weights" for result in results):
        found.append(
            f"{retrained}: starts from a file of weights, and is a reference only if these have not "
            "seen the rows to forget"
        )
    if any(result.reference_may_know for result in results):
        found.append(
            f"{retrained}: starts from a checkpoint of the same images, and is a reference only if the "
            "rows to forget are not among them"
        )
    return found


def are_chosen(columns: Sequence[str]) -> bool:
    """Return whether columns differ from the default ones.

    A run may lack some of the default ones: without forgotten test rows, it has no
    `test_forget_accuracy`.
    """
    default = OmegaConf.load(conf.FOLDER / "config.yaml")
    return list(columns) != list(default.table.columns)
