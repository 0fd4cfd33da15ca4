"""The listing of a command: its cells, how each one stands, and what is left to do; by `plan=true`."""

from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate

from conf import Until
from methods.recording.estimates import in_words
from runner.arguments import PLAN, parsed
from runner.compose import jobs
from runner.launch.notes import STAYS
from runner.launch.task import labels
from runner.say import duration, without_estimate
from runner.state.cells import cells_of
from runner.state.costs import CostLeft, Ledger
from runner.state.locks import machine_of
from runner.state.manifest import manifests
from runner.state.standing import Standing, standings
from runner.state.states import State, notes_of
from runner.state.trainings import Training, of_kinds
from runner.store import Store
from runner.sweep import command


def listing(arguments: Sequence[str]) -> str:
    """Return the listing of a command, by its arguments: of one run, or of every cell of a sweep.

    Nothing is trained or written. Raise Hydra's errors for overrides that do not compose.
    """
    given = [text for text in arguments if not PLAN.fullmatch(text)]
    asked = parsed(given)
    found = jobs(asked.overrides) if asked.multirun else [asked.overrides]
    cells = cells_of(found)
    roots = sorted({cell.plan.root for cell in cells if cell.plan is not None})
    notes = notes_of(sweep for root in roots for sweep in manifests(root))
    each = standings(cells, notes)
    texts = [_table(each, labels(found))]
    refused = any(one.cell.plan is None for one in each)
    for root in roots:
        own = [one for one in each if one.cell.plan is not None and one.cell.plan.root == root]
        texts += _left(own, Ledger(Store(root / "store").artefacts()), refused)
    if any(one.state is State.diverged for one in each):
        texts.append(STAYS)
    if any(one.is_left for one in each):
        texts.append(f"make it: {command(given)}")
    return "\n\n".join(texts)


def _table(found: Sequence[Standing], names: Sequence[str]) -> str:
    """Return a line for each cell, below the number of cells in each state."""
    lines = [
        (
            one.state.value,
            name,
            "; ".join(filter(None, [one.why, of_kinds(one.missing) if one.is_left else ""])),
        )
        for one, name in zip(found, names, strict=True)
    ]
    table = tabulate(lines, headers=["state", "cell", "missing"], disable_numparse=True)
    return f"{counts(found)}\n\n{table}"


def counts(found: Sequence[Standing]) -> str:
    """Return the number of cells in each state that there is."""
    number = Counter(one.state for one in found)
    states = ", ".join(f"{number[state]} {state.value}" for state in State if number[state])
    return f"{len(found)} {'cell' if len(found) == 1 else 'cells'}: {states}"


def _left(found: Sequence[Standing], ledger: Ledger, refused: bool) -> list[str]:
    """Return a table of the trainings by kind, each counted once, and what is left in all. Those of
    cells that diverged are not made. `refused` is true if the command has refused cells too."""
    wanted = [one for one in found if one.state is not State.diverged]
    distinct = {each.artefact: each for one in wanted for each in one.trainings}
    kinds: dict[str, list[Training]] = {}
    for each in distinct.values():
        kinds.setdefault(each.label, []).append(each)
    lines = [_kind(label, each, ledger.left(each)) for label, each in kinds.items()]
    heads = ["trainings", "stored", "missing", "time left", "space left"]
    table = tabulate(lines, headers=heads, disable_numparse=True)
    scored = all(one.cell.plan is None or one.cell.plan.until is Until.end for one in found)
    if not any(one.is_left for one in found):
        every = "every cell that is not refused" if refused else "every cell"
        made = "its result" if scored else "what it makes until then"
        return [*([table] if lines else []), f"nothing is left: {every} has {made}"]
    return [table, _in_all(ledger.left(distinct.values()), kinds, scored)]


def _kind(label: str, found: Sequence[Training], left: CostLeft) -> tuple[str, ...]:
    missing = sum(not each.stored for each in found)
    known = left.unknown < missing
    time, space = (duration(left.cost.seconds), in_words(left.cost.bytes)) if known else ("?", "?")
    if not missing:
        time = space = ""
    more = f" ({without_estimate(left.unknown, 'training')})" if known and left.unknown else ""
    working = sorted({host for each in found if (host := machine_of(each.artefact)) is not None})
    name = f"{label} (at work on {', '.join(working)})" if working else label
    return name, str(len(found) - missing), str(missing), time + more, space + more


def _in_all(left: CostLeft, kinds: dict[str, list[Training]], scored: bool) -> str:
    missing = sum(not each.stored for found in kinds.values() for each in found)
    if not missing:
        return "every training is stored; what is left is to score the models"
    unknown = (
        f"what {left.unknown} of {missing} trainings cost is not known, as the store has none of their "
        "kinds: python -m runner.doctor estimates those that are as long as an original"
    )
    if left.unknown == missing:
        return unknown
    says = (
        f"left: about {duration(left.cost.seconds)} of training in one process and "
        f"{in_words(left.cost.bytes)}, as trainings of the same kinds have taken"
        f"{'; scores come on top' if scored else ''}"
    )
    return f"{says}\n{unknown}" if left.unknown else says
