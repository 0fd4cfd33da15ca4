"""Trainings: all that a cell trains, whether it is stored or not."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from conf import Until
from data.requests import Request
from metrics.evidence import Needs
from metrics.metric import needs_of
from runner.plan import Plan, identities
from runner.roles import INITIAL, ORIGINAL, REPAIRED, UNLEARNED
from runner.stages.cell import (
    has_shadows,
    member_plan,
    request_plan,
    shadow_numbers,
    wanted_shadows,
    wanted_trainings,
)
from runner.stages.references import wanted_references
from runner.stages.request import stored_request
from runner.store import Artefact, Store, Wanted, fingerprint

PUBLIC, RECORD, RETRAINED, SHADOW = "public checkpoint", "record", "retrained model", "of a shadow"

# A stage, and the fingerprint of what trainings of one kind have in common.
Kind = tuple[str, str]

# What distinguishes trainings of one kind: the seeds, and the rows that a shadow leaves out.
OF_EACH = {"seed", "request_seed", "share"}

# Stands for a request that is not stored: its rows are not known, so none of its shadows is found.
UNKNOWN = Request(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))


@dataclass(frozen=True, eq=False)
class Training:
    """The training of one artefact.

    `label` names its kind. Where the store knows no cost of its own kind, it takes as long as `instead`.
    A record that is made later takes the training of its `original` once more. `option` is that of
    `evaluation` which asks for the training, None for one that the run makes anyway.
    """

    label: str
    wanted: Wanted
    artefact: Artefact
    instead: Wanted | None = None
    original: "Training | None" = None
    option: str | None = None

    @property
    def stored(self) -> bool:
        """Whether the store has the artefact. The run that needs it verifies its files."""
        return self.artefact.path.is_dir()

    @cached_property
    def kinds(self) -> list[Kind]:
        """The kind of the training, and that of the one that takes as long, if there is one."""
        return [kind(*each) for each in (self.wanted, self.instead) if each is not None]


def kind(stage: str, identity: Any) -> Kind:
    """Return the kind of the trainings of a stage with an identity."""
    return stage, fingerprint(_in_common(identity))


def _in_common(identity: Any) -> Any:
    """Return an identity without what distinguishes trainings of one kind."""
    if isinstance(identity, Mapping):
        return {name: _in_common(value) for name, value in identity.items() if name not in OF_EACH}
    return identity


def of_kinds(found: Iterable[Training]) -> str:
    """Return the kinds of trainings with their numbers."""
    kinds = Counter(each.label for each in found)
    return ", ".join(kind if number == 1 else f"{number} × {kind}" for kind, number in kinds.items())


def trainings(plan: Plan, store: Store) -> list[Training]:
    """Return the trainings of a run in their order, each once.

    Trainings that begin at a scored model (`relearn`, `recover`) are not among them: they are identified
    by the weights of models that may be missing.
    """
    found: dict[Artefact, Training] = {}
    for each in _all(plan, store):
        found.setdefault(each.artefact, each)
    return list(found.values())


def of_original(plan: Plan, store: Store) -> tuple[Training, list[Training]]:
    """Return the training of a run's original, and those of its records."""
    wanted = identities.wanted_original(plan)
    original = Training(ORIGINAL.label, wanted, store.find(*wanted))
    records: list[Training] = []
    for name, recorder in plan.recorders.items():
        own: Wanted = (RECORD, identities.record(plan, recorder))
        records.append(Training(f"{RECORD} {name}", own, store.find(*own), original=original))
    return original, records


def _all(plan: Plan, store: Store) -> Iterator[Training]:
    def one(label: str, wanted: Wanted, option: str | None = None) -> Training:
        instead = identities.wanted_original(plan) if _is_as_long(plan, label, wanted[0]) else None
        return Training(label, wanted, store.find(*wanted), instead, option=option)

    if plan.public is not None:
        yield one(PUBLIC, identities.wanted_original(plan.public))
    rows = _request(plan, store)
    if plan.until is Until.shadow:
        wanted = wanted_shadows(plan, rows, shadow_numbers(plan))
        yield from (one(_of_shadow(plan, each), each) for each in wanted)
        return
    original, records = of_original(plan, store)
    yield from (original, *records)
    if plan.until is Until.end:
        yield from (one(*each) for each in _own(plan))
        for option, found in _extras(plan, rows).items():
            yield from (one(_label(plan, option, wanted), wanted, option) for wanted in found)


def _is_as_long(plan: Plan, label: str, stage: str) -> bool:
    """Return whether a training that begins anew is as long as the original, but is no original."""
    if stage == UNLEARNED.stage:
        return label == RETRAINED or label.endswith(SHADOW) or plan.method.starts_fresh
    return stage == INITIAL.stage


def _own(plan: Plan) -> Iterator[tuple[str, Wanted]]:
    """Yield the trainings of the run's own models, but of the original, with their labels."""
    method, scoring = plan.names["method"], identities.scoring(plan)
    if plan.method.trains_before:
        initial = identities.initial_training(plan)
        yield INITIAL.label.format(name=method), (INITIAL.stage, initial)
    yield method, (UNLEARNED.stage, {**identities.own(plan), **scoring})
    repaired = identities.repair(plan)
    if repaired is not None:
        yield REPAIRED.label.format(name=method), (REPAIRED.stage, {**repaired, **scoring})
    yield from ((RETRAINED, own) for seed, own in wanted_references(plan).items() if seed == plan.seed)


def _extras(plan: Plan, rows: Request) -> dict[str, list[Wanted]]:
    """Return the trainings by the option of `evaluation` that asks for them; `rows` is the cell's
    request, which only shadows depend on."""
    references = wanted_references(plan)
    wanted = {"references": [references[seed] for seed in references if seed != plan.seed]}
    if Needs.POPULATION in needs_of(plan.metrics):
        members = [member_plan(plan, seed) for seed in range(plan.evaluation.references)]
        wanted["references"] += [each for member in members for each in wanted_trainings(member)]
    if has_shadows(plan):
        wanted["shadows"] = wanted_shadows(plan, rows, range(plan.evaluation.shadows))
    return wanted


def _label(plan: Plan, option: str, wanted: Wanted) -> str:
    """Return the kind of a training that an option of `evaluation` asks for."""
    stage, identity = wanted
    if option == "shadows":
        return _of_shadow(plan, wanted)
    if stage == "pretrain":
        return ORIGINAL.label
    reference = plan.reference
    retrained = reference is not None and identity["method"]["class"] == reference.kind
    return RETRAINED if retrained else plan.names["method"]


def _of_shadow(plan: Plan, wanted: Wanted) -> str:
    """Return the kind of a training that a shadow needs: of its original, or by the run's method."""
    own = ORIGINAL.label if wanted[0] == ORIGINAL.stage else plan.names["method"]
    return f"{own} {SHADOW}"


def _request(plan: Plan, store: Store) -> Request:
    """Return the request of the plan's cell, whose halves shadows forget, as far as it is stored."""
    if not (plan.until is Until.shadow or has_shadows(plan)):
        return UNKNOWN
    made = store.find("request", identities.request(request_plan(plan)))
    return stored_request(made) if made.path.is_dir() else UNKNOWN
