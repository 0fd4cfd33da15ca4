"""Shared trainings: what several cells of a sweep need, and would wait for while one of them makes it.

A sweep makes them first: originals with their records, then the retrained models.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from omegaconf import DictConfig

from conf import Until
from runner import process, stages
from runner.compose import without_hydra
from runner.extra import require_time
from runner.launch.notes import SHARED
from runner.launch.task import Shared, Task
from runner.pipeline import checked_request
from runner.plan import Plan
from runner.say import say
from runner.stages.references import members, wanted_references
from runner.stages.workspace import Workspace
from runner.state.cells import Cells
from runner.state.trainings import of_original
from runner.store import Artefact, Store


@dataclass(frozen=True)
class Need:
    """A training that a cell needs: the artefacts that it makes, and those that it reads."""

    label: str
    shared: Shared
    makes: frozenset[Artefact]
    reads: frozenset[Artefact] = frozenset()


def with_shared(planned: Cells, cells: Sequence[Task]) -> list[Task]:
    """Return the missing trainings that several cells need, and then the cells, which wait for them."""
    if len(cells) < 2:
        return list(cells)
    needs = {cell: list(_needs_of(planned, cell)) for cell in cells}
    chosen = _chosen(needs)
    ahead = _tasks(chosen)
    places = {
        made: task.place for task, (need, _) in zip(ahead, chosen, strict=True) for made in need.makes
    }
    waiting = [
        replace(cell, after=frozenset(places[made] for made in _made_for(found) if made in places))
        for cell, found in needs.items()
    ]
    return [*ahead, *waiting]


def _chosen(needs: Mapping[Task, Sequence[Need]]) -> list[tuple[Need, Task]]:
    """Return the trainings to make first, each with a cell that needs it.

    Each makes an artefact that is missing, that several cells need, and that no earlier one makes.
    Originals come first, those with the most records before others, and then retrained models.
    """
    users = Counter(made for found in needs.values() for made in _made_for(found))
    missing = {made for made, number in users.items() if number > 1 and not _is_stored(made)}
    chosen = []
    for need, cell in sorted(
        ((need, cell) for cell, found in needs.items() for need in found),
        key=lambda each: (each[0].shared.reference is not None, -len(each[0].makes)),
    ):
        if need.makes & missing:
            missing -= need.makes
            chosen.append((need, cell))
    return chosen


def _made_for(needs: Iterable[Need]) -> set[Artefact]:
    return {made for need in needs for made in need.makes}


def _tasks(chosen: Sequence[tuple[Need, Task]]) -> list[Task]:
    """Return the shared trainings as tasks. Each waits for the earlier ones whose artefacts it uses."""
    found: list[Task] = []
    for number, (need, cell) in enumerate(chosen, start=1):
        uses = need.makes | need.reads
        earlier = zip(found, chosen, strict=False)
        after = frozenset(task.place for task, (other, _) in earlier if other.makes & uses)
        found.append(
            replace(
                cell,
                place=f"shared {number}/{len(chosen)}",
                label=need.label,
                folder=cell.folder.parent / SHARED / str(number),
                shared=need.shared,
                after=after,
            )
        )
    return found


def make(config: DictConfig, shared: Shared) -> None:
    """Make a shared training of the cell with this configuration.

    Raise UserError, as the cell does, if it cannot be served or the references take too long.
    """
    plan = Plan.of(*without_hydra(config))
    process.prepare(plan.device, plan.threads)
    ws = Workspace(plan, Store(plan.root / "store", say))
    request = checked_request(ws)
    stages.make_public(ws)
    if shared.reference is None:
        stages.pretrain(ws, request)
        return
    if _waits_for_original(plan):
        require_time(ws, request, stages.pretrain(ws, request))
    member = members(plan)[shared.reference]
    stages.reference(ws if member is plan else ws.member(member), request)


def _needs_of(planned: Cells, cell: Task) -> Iterator[Need]:
    """Yield the trainings that a cell may share with another one; none if it cannot be planned, which
    the cell itself will say."""
    known = planned.get(cell.overrides)
    plan = None if known is None else known.plan
    if plan is None or plan.until is Until.shadow:
        return
    store = Store(plan.root / "store")
    original, records = of_original(plan, store)
    makes = frozenset(each.artefact for each in (original, *records))
    yield Need(f"original, seed={plan.seed}", Shared(None), makes)
    if plan.until is not Until.end:
        return
    reads = frozenset({original.artefact}) if _waits_for_original(plan) else frozenset()
    for seed, wanted in wanted_references(plan).items():
        made = frozenset({store.find(*wanted)})
        yield Need(f"retrained model, seed={seed}", Shared(seed), made, reads)


def _waits_for_original(plan: Plan) -> bool:
    """Return whether a retrained model waits for the original.

    The original's seconds say how long retraining takes, unless that is confirmed, and it makes the
    public checkpoint.
    """
    return not plan.evaluation.confirm or plan.public is not None


def _is_stored(made: Artefact) -> bool:
    return made.path.is_dir() and made.damage(thorough=False) is None
