"""python -m tests.shelf

Write the verdicts on every method into results/shelf.md, and its gradient examples over retraining's, by
the CSVs beside it; and those on the authors' recipes, with their accuracies.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.glossary import between
from tests.tables import by_line, markdown

PAGE = Path(__file__).parent.parent / "results" / "shelf.md"

COMMAND = "python -m tests.shelf"

# The lines around each table.
METHODS = f"<!-- {COMMAND} writes this table -->", "<!-- end of the table -->"
RECIPES = f"<!-- {COMMAND} writes these recipes -->", "<!-- end of the recipes -->"

# The requests, and the CSV of each.
REQUESTS = {
    "digit 3": "metrics_mnist_class",
    "digit 7": "shelf_class_7",
    "random rows": "metrics_mnist_random",
    "a part of a class": "metrics_cifar20_part",
}

# A request of random rows has no forgotten test rows.
JUDGED = (
    "train_forget_accuracy",
    "train_retain_accuracy",
    "test_forget_accuracy",
    "test_retain_accuracy",
)

# The verdicts that a method may have and still do as retraining does.
MATCHES = {"matches", "above"}

UNCLEAR = "unclear"

# In the order of the table; a verdict against the method is `no`.
WORDS = ("yes", UNCLEAR, "no")

Lines = Mapping[str, Mapping[str, Mapping[str, str]]]


def word(verdicts: Iterable[str]) -> str:
    """Return "yes" if all verdicts match or lie above, "no" with those against the method if any is, and
    "unclear" otherwise."""
    found = set(verdicts) - MATCHES
    against = ", ".join(sorted(found - {UNCLEAR}, reverse=True))
    return f"no: {against}" if against else UNCLEAR if found else "yes"


def judged(line: Mapping[str, Mapping[str, str]]) -> str:
    """Return the word for a line of a CSV, by the verdicts on its accuracies."""
    return word(line[metric]["verdict"] for metric in JUDGED if metric in line)


def cost(lines: Lines, label: str, retrained: str = "retrain") -> str:
    """Return the gradient examples of a line over those of the line of a retraining."""
    own, whole = (float(lines[each]["gradient_examples"]["value"]) for each in (label, retrained))
    return "< 0.01" if 0 < own / whole < 0.005 else f"{own / whole:.2f}"


def requests() -> dict[str, Lines]:
    """Return the lines of the CSV of every request."""
    return {request: by_line(PAGE.parent / f"{name}.csv") for request, name in REQUESTS.items()}


def methods(lines: Lines) -> list[str]:
    """Return the labels of the original and of the methods, each after the request."""
    return [label for label in lines if label != "retrain" and ", before" not in label]


def table() -> str:
    """Return a line for the original and for each method, as Markdown: first those that match on
    digit 3, and the cheapest first among them."""
    found = requests()
    of_class = next(iter(found.values()))

    def place(label: str) -> tuple[bool, int, float]:
        answer = judged(of_class[label]).partition(":")[0]
        examples = float(of_class[label]["gradient_examples"]["value"])
        return label != "original", WORDS.index(answer), examples

    heads = ["", *(cell for request in found for cell in (request, "×"))]
    lines = [heads, [":--", *[":--", "--:"] * len(found)]]
    for label in sorted(methods(of_class), key=place):
        cells = [
            cell
            for each in found.values()
            for cell in ((judged(each[label]), cost(each, label)) if label in each else ("—", "—"))
        ]
        lines.append([f"`{label}`", *cells])
    return markdown(lines)


def recipes() -> str:
    """Return a line for each model of each digit in the CSV of the authors' recipes, as Markdown."""
    found = by_line(PAGE.parent / "shelf_recipes.csv")
    heads = ["digit", "", "verdict", "×", *(metric.replace("_", " ") for metric in JUDGED)]
    lines = [heads, ["--:", ":--", ":--", *["--:"] * (1 + len(JUDGED))]]
    for label in sorted(found, key=lambda each: each.partition("(")[2]):
        name, options = label.split(" ", 1)
        (digit,) = re.findall(r"scenario\.classes=\[(\d)\]", options)
        shown = [found[label][metric] for metric in JUDGED]
        cells = [f"{float(each['value']):.3f} ± {float(each['half_width']):.3f}" for each in shown]
        said = "—" if name == "retrain" else judged(found[label])
        lines.append([digit, f"`{name}`", said, cost(found, label, f"retrain {options}"), *cells])
    return markdown(lines)


def written(text: str) -> str:
    """Return the page with the tables of today in place of those that it holds."""
    return between(between(text, *METHODS, table()), *RECIPES, recipes())


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
