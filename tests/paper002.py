"""python -m tests.paper002

Write the tables of paper 002's networks into results/paper002_table1.md, from the rows of its CSV: means
over seeds, with a 95 % t-interval where there are several, and in brackets what the paper prints.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import nan
from pathlib import Path
from statistics import fmean

from runner.papers.rules import table
from runner.report import rows
from runner.report.cells import Estimate, half_width_of
from runner.report.text import cell
from tests.glossary import between
from tests.tables import markdown

NAME = "paper002_table1"
RESULTS = Path(__file__).parent.parent / "results"
PAGE = RESULTS / f"{NAME}.md"

COMMAND = "python -m tests.paper002"

# The lines around the tables.
START, END = f"<!-- {COMMAND} writes these tables -->", "<!-- end of the tables -->"

NETWORKS = {"alexnet": "AlexNet", "resnet50": "ResNet-50", "vit": "small ViT", "resnet18": "ResNet-18"}

# The lines of a network, by the end of the variant and the role.
LINES = {
    "original": ("", "original"),
    "all updates taken back": ("_amnesiac", "unlearned"),
    "… and repaired": ("_amnesiac", "repaired"),
    "a part taken back": ("_amnesiac_partial", "unlearned"),
    "… repaired, too": ("_amnesiac_partial", "repaired"),
    "nothing taken back, repaired": ("_original", "repaired"),
    "retrained": ("", "reference"),
}

ACCURACIES = {
    "ships": "test_forget_accuracy",
    "others": "test_retain_accuracy",
    **{f"class {k}": f"class_{k}_accuracy" for k in (0, 6, 9)},
    "record": "record_bytes",
}

# What the paper names and does not print.
BESIDE = {
    "F1 of the others": "test_retain_macro_f1",
    "loss attack, AUC": "mia_loss_auc",
    "distance to the original": "distance_to_original",
    "relearned after": "relearn_batches",
    "recovered after": "recovery_batches",
    "repaired at step": "recovered_at_step",
}

# Scores in batches, and the budget of the first two.
COUNTS = ("relearn_batches", "recovery_batches", "recovered_at_step")
BUDGET = 40

# The values of a line by metric, one for each seed.
Scores = Mapping[str, Sequence[float]]


def lines_of(network: str, found: Iterable[rows.Row]) -> Iterator[tuple[str, str, Scores, int]]:
    """Yield the lines of a network that have rows: label, variant, scores, and the number of seeds."""
    own = [row for row in found if row.model == network]
    for label, (end, role) in LINES.items():
        by_seed = {
            row.seed: row
            for row in own
            if row.role == role and end in ("", row.variant.removeprefix(network))
        }
        scores = defaultdict[str, list[float]](list)
        for row in by_seed.values():
            for name, value in row.scores.items():
                scores[name].append(value)
        if by_seed:
            yield label, network + end, scores, len(by_seed)


def text_of(scores: Scores, metric: str, seeds: int) -> str:
    """Return a cell: the mean over seeds, and its interval if there are several."""
    values = scores.get(metric, [])
    if not values:
        return f"not within {BUDGET}" if metric in COUNTS[:2] else ""
    if metric == "record_bytes":
        return f"{fmean(values) / 1e9:.2f} GB"
    half = half_width_of(values) if len(values) > 1 else nan
    return cell(Estimate(fmean(values), half, len(values)), expected=seeds, count=metric in COUNTS)


def printed() -> dict[tuple[str, str], str]:
    """Return the paper's numbers, by our line and metric that stand for theirs at scale=cpu."""
    known = table(NAME)
    line, metric = known.instead["cpu"], known.metrics["cpu"]
    return {
        (line.get(each.line, each.line), metric.get(each.metric, each.metric)): each.text
        for each in known.cells
    }


def tables() -> Iterator[str]:
    """Yield the tables of each network that has rows, as Markdown."""
    found, theirs = list(rows.read(RESULTS / f"{NAME}_cpu_rows.csv")), printed()
    for network, title in NETWORKS.items():
        own = list(lines_of(network, found))
        for columns in (ACCURACIES, BESIDE) if own else ():
            body = [[title, *columns], [":--", *["--:"] * len(columns)]]
            for label, variant, scores, seeds in own:
                texts = [text_of(scores, metric, seeds) for metric in columns.values()]
                if label.startswith(("all", "a part")):
                    of_paper = [theirs.get((variant, metric)) for metric in columns.values()]
                    texts = [
                        text if value is None else f"{text} ({value})"
                        for text, value in zip(texts, of_paper, strict=True)
                    ]
                body.append([label, *texts])
            yield markdown(body)


def written() -> str:
    """Return the page with the tables of today's rows."""
    return between(PAGE.read_text(), START, END, "\n" + "\n".join(tables()) + "\n")


if __name__ == "__main__":
    PAGE.write_text(written())
