"""Agreement of metrics: the verdicts of a name's results side by side, and where metrics contradict.

    python -m runner.report.agreement name=shelf 'table.columns=[train_forget_accuracy,train_forget_js]'

prints, as Markdown, the verdict of every line by score, the lines that match the retrained models in all
scores, and for each two scores the lines that one finds to match and the other finds to differ.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

from runner.errors import run_command
from runner.naming import folder_of, run_name
from runner.report.compare import Comparisons
from runner.report.glossary import choice_of
from runner.report.table import Report
from runner.report.text import MARKDOWN, marked
from runner.results import Line, Results

# Verdicts by line, then by score.
Verdicts = Mapping[Line, Mapping[str, str]]


def verdicts_of(comparisons: Comparisons, columns: Sequence[str]) -> Verdicts:
    """Return the verdicts on these scores by line, in the order of the columns."""
    found: dict[Line, dict[str, str]] = {}
    for column in columns:
        for (line, name), each in comparisons.items():
            if name == column and each.verdict is not None:
                found.setdefault(line, {})[name] = each.verdict
    return found


def matching(verdicts: Verdicts) -> list[Line]:
    """Return the lines that match in every score that has a verdict in any line of their setting."""
    judged: dict[str, set[str]] = {}
    for line, each in verdicts.items():
        judged.setdefault(line.setting, set()).update(each)
    return [
        line
        for line, each in verdicts.items()
        if each.keys() == judged[line.setting] and set(each.values()) == {"matches"}
    ]


def contradictions(verdicts: Verdicts) -> dict[tuple[str, str], list[Line]]:
    """Return, for each two scores, the lines that one finds to match and the other finds to differ.

    An unclear verdict contradicts nothing.
    """
    names = list(dict.fromkeys(name for each in verdicts.values() for name in each))
    found: dict[tuple[str, str], list[Line]] = {}
    for one, other in combinations(names, 2):
        for line, each in verdicts.items():
            both = {each.get(one), each.get(other)}
            if "matches" in both and not both & {None, "unclear"} and len(both) > 1:
                found.setdefault((one, other), []).append(line)
    return found


def text(report: Report, columns: Sequence[str]) -> str:
    """Return the page: the verdicts, the lines that match, and the contradictions."""
    verdicts = verdicts_of(report.comparisons, columns)
    labels = report.titles
    lines = [line for line in report.lines() if line in verdicts]
    shown = [column for column in columns if any(column in each for each in verdicts.values())]
    body = [[labels[line], *(_word(verdicts[line].get(column)) for column in shown)] for line in lines]
    same = ", ".join(labels[line] for line in lines if line in matching(verdicts)) or "none"
    rows = [
        [
            report.title(one),
            report.title(other),
            str(len(found)),
            ", ".join(labels[line] for line in found),
        ]
        for (one, other), found in sorted(
            contradictions(verdicts).items(), key=lambda item: -len(item[1])
        )
    ]
    heads = [MARKDOWN.heading(column, report.title(column)) for column in shown]
    parts = [
        MARKDOWN.table(["verdicts", *heads], body, ""),
        f"Match the retrained models in every score: {same}.",
        MARKDOWN.table(["score", "contradicts", "lines", "which"], rows, ""),
    ]
    return "\n\n".join(parts) + "\n"


def _word(verdict: str | None) -> str:
    return "" if verdict is None else marked(verdict, None)


def main(overrides: list[str]) -> None:
    """Print the page of the name that the options give."""
    from runner.reading import TABLE, composed_for

    cfg, names = composed_for(overrides, *TABLE)
    root, name = folder_of("paths.root", cfg.paths.root), run_name(cfg.name, names)
    results = Results(root / "results").named(name)
    columns = list(cfg.table.columns)
    report = Report(results, columns)
    if columns:
        report.check_columns()
        print(text(report, columns))
    else:
        print(choice_of(report.known, report.about))


if __name__ == "__main__":
    run_command(main, __doc__)
