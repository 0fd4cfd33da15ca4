"""The stages: what each is made from, and how. The only file that reads or writes artefacts."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.contracts import named, returned
from data.errors import UserError
from data.requests import Request
from data.split import Dataset, Split
from data.streams import Streams
from methods.base import Access, CachedTraining, Method, Problem
from methods.recording.files import Damaged
from methods.recording.recorder import (
    ABOUT,
    LOST,
    ROWS,
    RecordedTraining,
    Stopwatch,
    check_request,
    require_space,
)
from methods.training.cost import Cost, Meter
from methods.training.descent import Step
from methods.training.loop import Conditions, Diverged, curves, require_finite, train
from metrics.predictions import Predictions, by_part, numbers, predict, scored
from models.precision import Precision
from runner.plan import Plan
from runner.progress import Bar
from runner.provenance import provenance
from runner.store import Artefact, Store, fingerprint
from runner.tracking import Tracker

MODEL = "model.safetensors"
TENSORS = "tensors.safetensors"
MODEL_MADE = "the model that it made, a torch.nn.Module"
ORIGINAL = "original.json"  # in a record: whose training it is of

# The stage that makes the model of a role.
STAGES = {
    "original": "pretrain",
    "before": "before",
    "unlearned": "unlearn",
    "repaired": "repair",
    "reference": "unlearn",
}


class RecordLost(UserError):
    """A record was given up, and the training was not."""


class MadeElsewhere(Exception):
    """Another process has made one of several records: nothing was trained here for the others."""


@dataclass
class Stages:
    """The stages of one run. Each returns an artefact, made now or long ago; `used` lists them."""

    plan: Plan
    store: Store
    tracker: Tracker

    def __post_init__(self) -> None:
        self.used: list[Artefact] = []
        self._lost: list[RecordLost] = []

    @cached_property
    def dataset(self) -> Dataset:
        """The data on the device; loaded only if a stage must be made."""
        plan = self.plan
        with Bar(f"load {plan.names['dataset']}", delay=0):
            loaded = plan.source.load(plan.data_root, plan.download)
        dataset = returned(plan.source, "load", loaded, Dataset, "a data.split.Dataset")
        dataset = dataset if plan.limit is None else dataset.limited(plan.limit)
        for label, rows in plan.rare.items():
            dataset = dataset.thinned(label, rows)
        return dataset.to(plan.device)

    @cached_property
    def request(self) -> Request:
        """The rows to forget. Raises UserError where this run cannot work with so many."""

        def produce(folder: Path) -> None:
            dataset = self.dataset.to(torch.device("cpu"))
            selected = self.plan.scenario.select(dataset, self.streams("request"))
            request = returned(
                self.plan.scenario, "select", selected, Request, "a data.requests.Request"
            )
            save_file({"rows": request.rows, "test": request.test}, folder / TENSORS)
            retained = _retained(dataset.train, request)
            kept = set(retained.labels.unique().tolist())
            facts = {
                "all": len(dataset.train),
                "forget": len(request.rows),
                "retain": len(retained),
                "gone": [label for label in range(dataset.classes) if label not in kept],
                "relabels": request.target is not None,
            }
            _write(folder / "request.json", {"target": request.target, "facts": facts})

        made = self._get("request", self.plan.request_identity, produce)
        tensors, about = load_file(made.path / TENSORS), made.read("request.json")
        self.plan.check_request(about["facts"])
        return Request(tensors["rows"], tensors["test"], about["target"])

    def pretrain(self) -> Artefact:
        """The original: a fresh model trained on all rows, watched by every recorder whose record is
        not there yet."""
        while missing := self._missing():
            with suppress(MadeElsewhere):
                self._record(missing, {})
            if self._lost:
                raise self._lost[0]
        return self._get("pretrain", self.plan.pretrain_identity, self._train)

    def _missing(self) -> list[str]:
        """A recorder for every record that is not there yet: one, where several would write the same,
        and in an order that all processes share, so that none waits for one that waits for it."""
        recorders = self.plan.recorders
        names = {fingerprint(self.plan.record_identity(r)): name for name, r in recorders.items()}
        return [
            names[key]
            for key in sorted(names)
            if not self.store.has("record", self.plan.record_identity(recorders[names[key]]))
        ]

    def record(self, name: str) -> Artefact:
        """What a recorder wrote during pretraining. Raises UserError where it cannot serve a request for
        the rows that are to be forgotten."""
        made = self._recorded(name)
        check_request(load_file(made.path / ROWS), self.request.rows, f"recorder.{name}")
        return made

    def record_cost(self, name: str) -> dict[str, float]:
        """What a record takes: `record_bytes` on disk, and `record_seconds` of its training."""
        made = self._recorded(name)
        return {"record_bytes": made.size(), "record_seconds": made.read("cost.json")["seconds"]}

    def _recorded(self, name: str) -> Artefact:
        identity = self.plan.record_identity(self.plan.recorders[name])
        return self._get("record", identity, self._recording(name, [], {}))

    def _record(self, names: list[str], folders: Mapping[str, Path]) -> None:
        """One training for all records that are named: each one's folder is made around the next
        one's. A record that was given up takes no other with it."""
        if not names:
            self._train_recorded(folders)
            return
        name, *others = names
        recorder = self.plan.recorders[name]
        if name == self.plan.record_of(self.plan.method):
            check_request(recorder.index(self.dataset.train), self.request.rows, f"recorder.{name}")
        try:
            identity = self.plan.record_identity(recorder)
            self._get("record", identity, self._recording(name, others, folders))
        except RecordLost as lost:
            self._lost.append(lost)

    def _recording(
        self, name: str, others: list[str], folders: Mapping[str, Path]
    ) -> Callable[[Path], None]:
        def produce(folder: Path) -> None:
            self._record(others, {**folders, name: folder})
            if not any((folder / end).exists() for end in (ABOUT, LOST)):
                raise MadeElsewhere
            if (folder / LOST).exists():
                raise RecordLost(
                    f"recorder.{name}: the disk filled up, and the training went on without the record: "
                    "the original is kept; free some space, or track less, and run again"
                )

        return produce

    def _train_recorded(self, folders: Mapping[str, Path]) -> None:
        self._require_the_originals_conditions()
        with TemporaryDirectory(prefix=".training-", dir=next(iter(folders.values()))) as scratch:
            try:
                self._train(Path(scratch), folders)
            except BaseException:
                if (Path(scratch) / MODEL).exists():  # trained to the end, whatever became of a record
                    self._keep_trained(Path(scratch))
                raise
            made = self._keep_trained(Path(scratch))
            for folder in folders.values():
                _write(folder / ORIGINAL, {"weights": weights_of(made)})
            same = _weights(Path(scratch)), _weights(made.path)
        if any(not torch.equal(same[0][name], same[1][name]) for name in same[0]):
            threads = made.read("provenance.json")["threads"]
            raise UserError(
                "the recorded training did not end in the weights of the stored original, which was "
                f"made with threads={threads}: use the same, on the same device"
            )

    def _require_the_originals_conditions(self) -> None:
        """Raises UserError where a stored original was made otherwise than this run would record it."""
        identity = self.plan.pretrain_identity
        if not self.store.has("pretrain", identity):
            return
        stored = json.loads((self.store.path("pretrain", identity) / "provenance.json").read_text())
        here = provenance(self.plan.device, self.plan.threads)
        for option in ("threads", "device"):
            if stored[option] != here[option]:
                raise UserError(
                    f"the stored original was made with {option}={stored[option]}, and its training is "
                    f"recorded with the same: set {option}, here {here[option]}, or another paths.root"
                )

    def _keep_trained(self, scratch: Path) -> Artefact:
        return self._get("pretrain", self.plan.pretrain_identity, lambda folder: _copy(scratch, folder))

    def _train(self, folder: Path, recorders: Mapping[str, Path] = MappingProxyType({})) -> None:
        """Pretrains into `folder`; each named recorder writes to its own. What recording took is the
        record's cost, and not the original's."""
        plan, streams = self.plan, self.streams("pretrain")
        model, split = self._fresh(streams), self.dataset.train
        watches = {name: Stopwatch() for name in recorders}
        asked = len(self.request.rows) if recorders else 0  # before the seed: finding out draws numbers
        torch.manual_seed(streams.number("dropout"))  # the same drops, recorded or not
        with self._conditions(folder, "pretrain", streams, budget=None) as conditions:
            with conditions.meter:
                steps = curves(train(model, split, plan.recipe, conditions), conditions.log)
                steps = _then(steps, lambda: _save(model, folder))
                watched = {
                    name: RecordedTraining(
                        model, split, plan.recipe, self.streams("record"), recorders[name]
                    )
                    for name in plan.recorders
                    if name in recorders
                }
                for name, each in watched.items():
                    plan.recorders[name].check(each, f"recorder.{name}")
                    self.store.say(plan.recorders[name].summary(each, f"recorder.{name}", asked))
                require_space(
                    {f"recorder.{name}": plan.recorders[name] for name in watched},
                    {f"recorder.{name}": each for name, each in watched.items()},
                )
                for name, each in watched.items():
                    watch, recorder = watches[name], plan.recorders[name]
                    recorded = recorder.watch(watch.excluding(steps), each)
                    meaning = "an iterator of the steps"
                    recorded = returned(recorder, "watch", recorded, Iterator, meaning)  # type: ignore[type-abstract]
                    steps = watch.counting(recorded)
                for _ in steps:
                    pass
            for name, place in recorders.items():
                conditions.meter.cost.seconds -= watches[name].seconds
                _write(place / "cost.json", {"seconds": watches[name].seconds})

    def unlearn(self, original: Artefact) -> Artefact:
        """The model that the run's method makes of the original, within the budget."""
        return self._unlearn("unlearn", self.plan.method, self.plan.budget, original)

    def repair(self, repair: Method, unlearned: Artefact) -> Artefact:
        """The unlearned model, repaired with what is left of the budget."""
        plan = self.plan
        spent = unlearned.read("cost.json")["gradient_examples"]
        left = None if plan.budget is None else plan.budget - spent
        identity = plan.repair_identity
        assert identity is not None

        def produce(folder: Path) -> None:
            self._apply("repair", repair, left, unlearned, folder)

        return self._get("repair", {**identity, **plan.looks_identity}, produce, "repair")

    def reference(self, reference: Method, original: Artefact) -> Artefact:
        """The model that others are compared with, whatever they may spend."""
        return self._unlearn("reference", reference, None, original)

    def _unlearn(self, role: str, method: Method, budget: int | None, original: Artefact) -> Artefact:
        name = self.plan.record_of(method)
        record = None if name is None else self.record(name)
        recording = None if record is None else record.path
        if record is not None and record.read(ORIGINAL)["weights"] != weights_of(original):
            self.store.set_aside(record)
            raise UserError(
                f"recorder.{name} is of a training that ended in other weights than the stored "
                "original: it is set aside: run again, and it is made anew"
            )

        def produce(folder: Path) -> None:
            try:
                self._apply(role, method, budget, original, folder, recording)
            except Damaged as error:
                assert record is not None
                self.store.set_aside(record)
                raise Damaged(f"{error}; it is set aside: run again, and it is made anew") from error

        identity = self.plan.unlearn_identity(method, budget)
        if role == "unlearn":
            identity = {**identity, **self.plan.looks_identity}
        return self._get("unlearn", identity, produce, role)

    def _apply(
        self,
        role: str,
        method: Method,
        budget: int | None,
        start: Artefact,
        folder: Path,
        recording: Path | None = None,
    ) -> None:
        """Lets a method work on a model, and writes what it makes into the folder."""
        scope = "repair" if role == "repair" else "unlearn"
        with self._conditions(folder, role, self.streams(scope), budget) as conditions:
            maker = self.plan.method if role == "repair" else None
            problem = self.problem(method, start, conditions, maker)
            problem.declared_recording = recording
            if role != "reference" and self.plan.looks_identity:
                problem.conditions = replace(conditions, passed=self._looks(problem.model, conditions))
            with conditions.meter:
                made = method.unlearn(problem)
                model = returned(method, "unlearn", made, nn.Module, MODEL_MADE)
            if conditions.meter.cut:
                conditions.log({"cut_by_budget": 1})
            _save(model, folder)

    def _looks(self, model: nn.Module, conditions: Conditions) -> Callable[[nn.Module], None]:
        """What scores the model after every so many of its passes, in the log as `pass`. Teachers and
        other models that a method trains on its way are not scored, nor passes that a budget forbids."""
        passes = spent = 0
        every = self.plan.every
        assert every is not None

        def passed(trained: nn.Module) -> None:
            nonlocal passes, spent
            before, spent = spent, conditions.meter.cost.gradient_examples
            if spent == before or all(part is not model for part in trained.modules()):
                return
            passes += 1
            if passes % every == 0:
                with conditions.meter.paused():
                    predictions = self._cut({name: self._look(model, name) for name in self._splits})
                    scores = numbers(scored(self.plan.metrics, predictions, None))
                conditions.log({"pass": passes, **scores})

        return passed

    def before(self, method: Method) -> Artefact | None:
        """The model that a method would have had before the request, where that is not the original.
        What it keeps for requests is logged as `record_bytes`."""
        if type(method).initial_training is Method.initial_training:
            return None

        def produce(folder: Path) -> None:
            others = len(self.used)
            with self._conditions(folder, "before", self.streams("unlearn"), None) as conditions:
                problem = self.problem(method, self.pretrain(), conditions)
                with conditions.meter:
                    made = method.initial_training(problem)
                    model = returned(method, "initial_training", made, nn.Module, MODEL_MADE)
                kept = sum(made.size() for made in self.used[others:] if made.stage == "slice")
                conditions.log({"record_bytes": kept})
                _save(model, folder)

        return self._get("before", self.plan.before_identity(method), produce, "before")

    def predictions(self, made: Artefact, method: Method | None = None) -> Predictions:
        """The logits of an artefact's model, cut into the parts of the request; `method` made it, where
        it is not the original. Training rows are predicted only where the evaluation asks for them."""
        return self._cut({name: self._predicted(made, method, name) for name in self._splits})

    @property
    def _splits(self) -> list[str]:
        return ["train", "test"] if self.plan.evaluate_train else ["test"]

    def _cut(self, found: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Predictions:
        request = self.request
        return by_part(found, {"train": request.rows, "test": request.test}, request.target)

    def _predicted(
        self, made: Artefact, method: Method | None, name: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, labels and rows of one whole split."""

        def produce(folder: Path) -> None:
            logits, labels, rows = self._look(self._load(made, method), name)
            if not logits.isfinite().all():
                raise Diverged(
                    "the outputs are no longer finite: lower the learning rate, set clip, or choose "
                    "smaller options of the method"
                )
            save_file({"logits": logits, "labels": labels, "rows": rows}, folder / TENSORS)

        identity = self.plan.predict_identity(weights_of(made), name)
        tensors = load_file(self._get("predict", identity, produce).path / TENSORS)
        return tensors["logits"], tensors["labels"], tensors["rows"]

    def _look(self, model: nn.Module, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, labels and rows of one whole split, as the model is now; of the data set's classes
        alone, where a method has given it another for a while."""
        plan, split = self.plan, getattr(self.dataset, name)
        with Bar(f"predict {name}") as bar:
            bar.expect(len(split))
            bf16 = plan.recipe.precision is Precision.bf16
            logits = predict(model, split, plan.batch_size, bf16, bar.advance)
        return logits[:, : self.dataset.classes], split.labels.cpu(), split.rows.cpu()

    def streams(self, scope: str) -> Streams:
        assert self.plan.seed is not None
        return Streams(self.plan.seed, scope)

    def _get(
        self,
        stage: str,
        identity: Mapping[str, Any],
        produce: Callable[[Path], None],
        role: str = "",
    ) -> Artefact:
        """The artefact; where it was already there, its curves are told to the tracker again, so that
        a dashboard looks the same whichever run did the work."""
        made_now = False

        def watched(folder: Path) -> None:
            nonlocal made_now
            made_now = True
            torch.manual_seed(self.streams(stage).number("dropout"))
            produce(folder)
            _write(folder / "provenance.json", provenance(self.plan.device, self.plan.threads))

        artefact = self.store.get(stage, identity, watched)
        self.used.append(artefact)
        if not made_now and (artefact.path / "curves.json").exists():
            for point in curves_of(artefact):
                self.tracker.curve(role or stage, point)
        return artefact

    @contextmanager
    def _conditions(
        self, folder: Path, stage: str, streams: Streams, budget: int | None
    ) -> Iterator[Conditions]:
        """Conditions under which to train; what its meter took and the curves are written into the
        folder at the end. A divergence is told with the stage that it happened in."""
        points: list[dict[str, float]] = []

        def log(values: Mapping[str, float]) -> None:
            points.append(dict(values))
            self.tracker.curve(stage, values)

        import torch._dynamo  # noqa: F401  torch would import it at the first metered step

        with Bar(stage) as bar:
            meter = Meter(self.plan.device, budget, bar)
            try:
                yield Conditions(streams, meter, log, self.plan.recipe)
            except Diverged as error:
                raise Diverged(f"{stage}: {error}") from error
            finally:
                _write(folder / "cost.json", asdict(meter.cost))
                _write(folder / "curves.json", points)

    def problem(
        self, method: Method, start: Artefact, conditions: Conditions, maker: Method | None = None
    ) -> Problem:
        """What the method may see, and nothing else; `maker` made the start, where it is no original."""
        train, request = self.dataset.train, self.request
        forget = train.only(request.rows) if Access.FORGET in method.sees() else None
        retain = _retained(train, request) if Access.RETAIN in method.sees() else None
        return Problem(
            model=self._load(start, maker),
            original=lambda: self._load(self.pretrain()),
            fresh=self._fresh,
            randomly_initialised=self._randomly_initialised,
            classes=self.dataset.classes,
            conditions=conditions,
            declared_forget=forget,
            declared_retain=retain,
            forget_rows=request.rows,
            cached_training=self._cached_training(conditions.meter),
        )

    def _fresh(self, streams: Streams) -> nn.Module:
        return self._new(self.plan.architecture.fresh, streams)

    def _randomly_initialised(self, streams: Streams) -> nn.Module:
        return self._new(self.plan.architecture.randomly_initialised, streams)

    def _new(self, make: Callable[[int, int, int, int], nn.Module], streams: Streams) -> nn.Module:
        source = self.plan.source
        model = make(source.channels, source.size, source.classes, streams.number("init"))
        return model.to(self.plan.device)

    def _load(self, made: Artefact, method: Method | None = None) -> nn.Module:
        """The model of an artefact that a method made; without one, of the original's own kind."""
        state = load_file(made.path / MODEL)
        model = self._fresh(self.streams("load"))
        if method is not None:
            shell = method.module(lambda: self._fresh(self.streams("load")), state)
            model = returned(method, "module", shell, nn.Module, "a torch.nn.Module")
            model = model.to(self.plan.device)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            if method is None:
                raise
            reason = " ".join(str(error).split()[:20])
            raise UserError(
                f"{named(method, 'module')} must return a module that fits what unlearn made: {reason}…"
            ) from error
        return model

    def _cached_training(self, outer: Meter) -> CachedTraining:
        """Keeps trainings in the store, as `slice`."""

        def kept(
            identity: Mapping[str, Any],
            make: Callable[[Conditions], nn.Module],
            shell: nn.Module,
            budget: int | None,
        ) -> Cost:
            def produce(folder: Path) -> None:
                with self._conditions(folder, "slice", self.streams("slice"), budget) as conditions:
                    with conditions.meter:
                        model = make(conditions)
                    _save(model, folder)

            started = time.perf_counter()
            made = self._get("slice", self.plan.slice_identity(identity, budget), produce)
            shell.load_state_dict(load_file(made.path / MODEL))
            outer.cost.seconds -= time.perf_counter() - started
            return Cost(**made.read("cost.json"))

        return kept


def _retained(train: Split, request: Request) -> Split:
    """What may still be used: the other rows; in a request to relabel, all rows relabelled."""
    if request.target is None:
        return train.without(request.rows)
    labels = train.labels.clone()
    labels[torch.isin(train.rows, request.rows.to(train.rows.device))] = request.target
    return train.relabelled(labels)


def cost_of(artefact: Artefact) -> dict[str, float]:
    """What making the artefact cost, by the names of `Cost`."""
    return asdict(Cost(**artefact.read("cost.json")))


def curves_of(artefact: Artefact) -> list[dict[str, float]]:
    """What making the artefact logged, point by point."""
    points: list[dict[str, float]] = artefact.read("curves.json")
    return points


def remarks(artefact: Artefact) -> dict[str, float]:
    """What making the artefact logged once, and not epoch by epoch: where it stopped, what it found."""
    points = [point for point in curves_of(artefact) if not {"epoch", "pass"} & point.keys()]
    return {name: value for point in points for name, value in point.items()}


def weights_of(artefact: Artefact) -> str:
    """The checksum of the artefact's weights."""
    return artefact.checksum(MODEL)


def logits_of(artefact: Artefact) -> Tensor:
    """(N, K) the logits that predictions of a split hold."""
    return load_file(artefact.path / TENSORS)["logits"]


def _weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / MODEL)


def _then(steps: Iterator[Step], finish: Callable[[], None]) -> Iterator[Step]:
    yield from steps
    finish()


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _save(model: nn.Module, folder: Path) -> None:
    require_finite(model)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / MODEL)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
