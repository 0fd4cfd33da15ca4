"""Outcomes: what stored models and results already tell about a sweep."""

from collections.abc import Collection, Iterator

from data.requests import Request
from runner import stages
from runner.doctor.findings import Finding
from runner.plan import identities
from runner.report import Report
from runner.report.remarks import LEARNED, TEACH
from runner.results import Results
from runner.roles import ORIGINAL
from runner.stages.workspace import Workspace


def of_original(ws: Workspace, request: Request) -> Iterator[Finding]:
    """Yield the finding on the original: it should have learned the rows to forget."""
    wanted = identities.wanted_original(ws.plan)
    if not ws.store.has(*wanted):
        yield Finding(
            "no original of this seed is stored, so nobody knows whether it learns the rows to forget",
            "run once with until=pretrain, and ask again",
        )
        return
    # found, and not made by its stage, which would train again for a record that is missing
    predictions = stages.predictions(ws, request, ws.store.find(*wanted))
    part = "train_forget" if "train_forget" in predictions.logits else "test"
    accuracy = predictions.accuracy(part)
    says = f"the original's accuracy on the {part.replace('_', ' ')} rows is {accuracy:.3f}"
    learned = accuracy >= LEARNED
    yield Finding(says, None if learned else f"it has not learned what it should forget: {TEACH}")


def of_results(ws: Workspace, columns: Collection[str]) -> Iterator[Finding]:
    """Yield the findings on the seeds that stored results need for their verdicts in these columns."""
    folder = Results(ws.plan.root / "results")
    if not (folder.root / ws.plan.name).exists():
        yield Finding("there are no results of this name, so the spread over seeds is not known")
        return
    report = Report(folder.named(ws.plan.name), [])
    known = report.comparisons.items()
    shown = {key: each for key, each in known if key[1] in columns and each.verdict}
    unclear = {key: each for key, each in shown.items() if each.verdict == "unclear"}
    yield Finding(f"the stored results have {len(shown)} verdicts, {len(unclear)} of them unclear")
    for (line, name), each in sorted(unclear.items()):
        if line.cell != ORIGINAL.name:
            yield of_unclear(report.labels[line], name, each.needed)


def of_unclear(label: str, name: str, needed: int | None) -> Finding:
    """Return the finding on a score whose verdict needs so many seeds, None if too many."""
    says = f"{name} of {label} is unclear"
    if needed is None:
        return Finding(says, "its spread is too wide for its margin at any number of seeds below 200")
    seeds = f"seed={','.join(map(str, range(needed)))}" if needed <= 8 else f"'seed=range({needed})'"
    return Finding(says, f"run {needed} seeds ({seeds}) with evaluation.references={needed}")
