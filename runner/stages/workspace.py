"""The workspace that the stages of one run share, and the only place that seeds the generator."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch

from data.contracts import returned
from data.loading import load
from data.split import Dataset
from data.streams import Streams
from methods.training.checkpoint import NO_CHECKPOINT, Checkpoint
from methods.training.cost import Cost, Meter
from methods.training.divergence import Diverged
from methods.training.loop import Conditions
from runner.own_code import digests
from runner.plan import Plan
from runner.processes import TEAM
from runner.progress import Bar
from runner.provenance import maker, provenance
from runner.say import say
from runner.stages.checkpoint import StoredCheckpoint
from runner.store import Artefact, Identity, Making, Store, Wanted
from runner.tracking import Tracker
from runner.tracking.sections import EPOCH, PASS

COST, CURVES, PROVENANCE = "cost.json", "curves.json", "provenance.json"

# In the provenance of an original that did not train alone: the number of models that trained together.
TOGETHER = "together"


@dataclass
class Workspace:
    """The plan, the store, the tracker and the data of one run. `used` lists its artefacts. Without a
    tracker nothing is tracked.

    The workspace of a member shares the loaded data of its `owner`.
    """

    plan: Plan
    store: Store
    tracker: Tracker = field(default_factory=Tracker)
    used: list[Artefact] = field(default_factory=list)
    owner: "Workspace | None" = None
    _tracked: set[tuple[str, Path]] = field(default_factory=set)

    @cached_property
    def dataset(self) -> Dataset:
        """The data on the device that the original is trained on: corrupted if the scenario corrupts
        them, and less what a share leaves out."""
        found = self._corrupted() if self.owner is None else self.owner.dataset
        if self.plan.share is None:
            return found
        return replace(found, train=found.train.without(self.plan.share.left_out))

    @cached_property
    def clean(self) -> Dataset:
        """The data before any corruption, on the CPU, loaded when the first stage needs them.

        A source that draws from the global random generator finds the same there in every stage.
        """
        return self._loaded() if self.owner is None else self.owner.clean

    def member(self, plan: Plan) -> "Workspace":
        """Return the workspace of a plan that differs at most in its seed or its share. Nothing of it is
        tracked, and its artefacts count as used by this run."""
        return Workspace(plan, self.store, used=self.used, owner=self)

    def of_reference(self) -> "Workspace":
        """Return the workspace that makes the reference, which may start at other weights."""
        plan = self.plan.of_reference()
        return self if plan is self.plan else replace(self, plan=plan, owner=self)

    def _corrupted(self) -> Dataset:
        scenario = self.plan.scenario
        corrupted = scenario.corrupt(self.clean)
        dataset = returned(scenario, "corrupt", corrupted, Dataset, "a data.split.Dataset")
        return dataset.to(self.plan.device)

    def _loaded(self) -> Dataset:
        plan = self.plan
        with Bar(f"load {plan.names['dataset']}", delay=0), self._generator("data"):
            dataset = load(plan.source, plan.data_root, plan.data.download)
        if plan.data.limit is not None:
            dataset = dataset.limited(plan.data.limit)
        for label, rows in plan.rare.items():
            dataset = dataset.thinned(label, rows)
        return dataset

    def streams(self, scope: str) -> Streams:
        """Return the random streams of a scope for the run's seed."""
        assert self.plan.seed is not None
        return Streams(self.plan.seed, scope)

    def get(
        self, stage: str, identity: Identity, produce: Callable[[Path], None], curves: str = ""
    ) -> Artefact:
        """Return the artefact of a stage, making it if it is absent (see `get_many`)."""
        return self.get_one(stage, identity, lambda making: produce(making.folders[stage]), curves)

    def get_one(
        self, stage: str, identity: Identity, produce: Callable[[Making], None], curves: str = ""
    ) -> Artefact:
        """Return the artefact of a stage as `get`. Its work can keep a state, to go on after a kill."""

        def one(making: Making) -> None:
            produce(making)
            self.keep(making, stage)

        return self.get_many({stage: (stage, identity)}, one, stage, {stage: curves or stage})[stage]

    def get_many(
        self,
        wanted: Mapping[str, Wanted],
        produce: Callable[[Making], None],
        scope: str,
        curves: Mapping[str, str],
        together: bool = False,
    ) -> dict[str, Artefact]:
        """Return artefacts by name; `produce` makes those that are absent (see `Store.get_many`).

        `produce` runs with the global random generator forked and seeded for `scope`, so no result
        depends on which stages were stored already. `curves` names the group of the curves of an
        artefact: if it was stored already, its curves go to the tracker again, so that a dashboard looks
        the same whichever run did the work. A run tracks them once, however often it asks.
        """
        made_now: set[str] = set()

        def seeded(making: Making) -> None:
            made_now.update(making.folders)
            with self._generator(scope):
                produce(making)

        plan = self.plan
        identities = [identity for _, identity in wanted.values()]
        made_on = partial(maker, plan.device, plan.threads, identities)
        found = self.store.get_many(wanted, seeded, made_on, together)
        self.used.extend(found.values())
        for name in found.keys() - made_now:
            _say_if_edited(found[name], digests(wanted[name][1]))
        for name, group in curves.items():
            if name in found:
                self._track_stored(found[name], group, name in made_now)
        return found

    def _track_stored(self, made: Artefact, group: str, tracked: bool) -> None:
        """Track the curves of an artefact, unless they are tracked already."""
        if not tracked and (group, made.path) not in self._tracked and (made.path / CURVES).exists():
            for point in curves_of(made):
                self.tracker.curve(group, point)
        self._tracked.add((group, made.path))

    def keep(self, making: Making, name: str, facts: Mapping[str, Any] | None = None) -> Artefact:
        """Write the provenance, with further facts, into a folder, and make it an artefact at once."""
        found = provenance(self.plan.device, self.plan.threads) | digests(making.identity(name))
        write(making.folders[name] / PROVENANCE, {**found, **(facts or {})})
        return making.keep(name)

    @contextmanager
    def _generator(self, scope: str) -> Iterator[None]:
        """Fork the global random generator and seed it. In training, only dropout draws from it."""
        device = self.plan.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.streams(scope).number("dropout"))
            yield

    @contextmanager
    def conditions(
        self,
        folder: Path | None,
        curves: str,
        streams: Streams,
        budget: int | None,
        making: Making | None = None,
    ) -> Iterator[Conditions]:
        """Yield the conditions under which a stage trains.

        Afterwards, even if the body fails, write the cost and the curves into the folder. If `folder` is
        None, as for a training that is only repeated, write and track nothing. `making` is the
        work that keeps a state, None if it cannot go on after a kill. Raise Diverged with the name of
        the curves in front if the body raises it.
        """
        points = Points(lambda values: None if folder is None else self.tracker.curve(curves, values))
        checkpoint = NO_CHECKPOINT if making is None else self._checkpoint(making)
        checkpoint.add("points", points)

        import torch._dynamo  # noqa: F401  torch would import it at the first metered step

        with Bar(curves) as bar:
            meter = Meter(self.plan.device, budget, bar)
            try:
                yield Conditions(
                    streams,
                    meter,
                    points.log,
                    self.plan.recipe,
                    checkpoint=checkpoint,
                    processes=TEAM.processes,
                )
            except Diverged as error:
                raise Diverged(f"{curves}: {error}") from error
            finally:
                if folder is not None:
                    write(folder / COST, asdict(meter.cost))
                    write(folder / CURVES, points.all)

    def _checkpoint(self, making: Making) -> Checkpoint:
        return StoredCheckpoint(making, self.plan.recipe.checkpoint_minutes, self.store.say)


class Points:
    """The points of the curves, as a part of a training's state. `track` sees every point too."""

    def __init__(self, track: Callable[[Mapping[str, float]], object]) -> None:
        self.all: list[dict[str, float]] = []
        self._track = track

    def log(self, values: Mapping[str, float]) -> None:
        self.all.append(dict(values))
        self._track(values)

    def state_dict(self) -> list[dict[str, float]]:
        return self.all

    def load_state_dict(self, state: Sequence[Mapping[str, float]]) -> None:
        """Take the points of the killed process, which had a tracker of its own. Earlier trainings of
        the work were repeated to get here: their points come first, and are tracked already."""
        tracked = len(self.all)
        self.all = [dict(values) for values in state]
        for values in self.all[tracked:]:
            self._track(values)


def _say_if_edited(stored: Artefact, code: Mapping[str, str]) -> None:
    """Say which of the user's components have other code than the one that made a stored artefact."""
    made = stored.read(PROVENANCE) if code else {}
    for words, digest in code.items():
        if made.get(words, digest) != digest:
            _say_edited(words)


@cache
def _say_edited(words: str) -> None:
    """Say it once, however much of it is stored."""
    say(
        f"the {words} was edited, and what is stored was made before: if it computes something else "
        "now, raise its version, and everything is made anew"
    )


def write(path: Path, value: Any) -> None:
    """Write a JSON file of a stage."""
    path.write_text(json.dumps(value, indent=1) + "\n")


def cost_of(artefact: Artefact) -> dict[str, float]:
    """Return the cost of making an artefact, by the field names of `Cost`."""
    return asdict(Cost(**artefact.read(COST)))


def conditions_of(artefact: Artefact) -> dict[str, Any]:
    """Return the provenance of an artefact. One that counts no processes is of a single one."""
    return {"processes": 1, **artefact.read(PROVENANCE)}


def content_bytes(artefact: Artefact) -> int:
    """Return the bytes of an artefact that its inputs decide: without the files that hold its times and
    the machine, whose numbers have more digits in one run than in another."""
    return artefact.size(without=(COST, PROVENANCE))


def curves_of(artefact: Artefact) -> list[dict[str, float]]:
    """Return the points that were logged while an artefact was made."""
    points: list[dict[str, float]] = artefact.read(CURVES)
    return points


def remarks_of(artefact: Artefact) -> dict[str, float]:
    """Return the values that were logged once while an artefact was made, by name.

    Such a value is the step at which a method stopped, or the strength that it found. Points of an
    epoch or a pass are left out.
    """
    points = [point for point in curves_of(artefact) if not {EPOCH, PASS} & point.keys()]
    return {name: value for point in points for name, value in point.items()}
