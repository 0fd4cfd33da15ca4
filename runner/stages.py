"""The stages: what each is made from, and how. The only file that reads or writes artefacts."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.requests import Request
from data.split import Dataset, Split
from data.streams import Streams
from methods.base import Access, Method, Problem
from methods.meter import Cost, Meter
from methods.training import Conditions, Diverged, fit, require_finite
from metrics.predictions import Predictions, by_part, predict
from runner.plan import Plan
from runner.progress import Bar
from runner.provenance import provenance
from runner.store import Artefact, Store
from runner.tracking import Tracker

MODEL = "model.safetensors"
TENSORS = "tensors.safetensors"


@dataclass
class Stages:
    """The stages of one run. Each returns an artefact, made now or long ago; `used` lists them."""

    plan: Plan
    store: Store
    tracker: Tracker

    def __post_init__(self) -> None:
        self.used: list[Artefact] = []

    @cached_property
    def dataset(self) -> Dataset:
        """The data on the device; loaded only if a stage must be made."""
        plan = self.plan
        with Bar(f"load {plan.names['dataset']}", delay=0):
            dataset = plan.source.load(plan.data_root, plan.download)
        dataset = dataset if plan.limit is None else dataset.limited(plan.limit)
        return dataset.to(plan.device)

    @cached_property
    def request(self) -> Request:
        """The rows to forget. Raises UserError where this run cannot work with so many."""

        def produce(folder: Path) -> None:
            dataset = self.dataset.to(torch.device("cpu"))
            request = self.plan.scenario.select(dataset, self.streams("request"))
            save_file({"rows": request.rows, "test": request.test}, folder / TENSORS)
            sizes = {
                "all": len(dataset.train),
                "forget": len(request.rows),
                "retain": len(_retained(dataset.train, request)),
            }
            _write(folder / "request.json", {"target": request.target, "sizes": sizes})

        made = self._get("request", self.plan.request_identity, produce)
        tensors, about = load_file(made.path / TENSORS), made.read("request.json")
        self.plan.check_request(**about["sizes"])
        return Request(tensors["rows"], tensors["test"], about["target"])

    def pretrain(self) -> Artefact:
        """The original: a fresh model trained on all rows."""

        def produce(folder: Path) -> None:
            streams = self.streams("pretrain")
            model, train = self._fresh(streams), self.dataset.train
            with self._conditions(folder, "pretrain", streams, budget=None) as conditions:
                with conditions.meter:
                    fit(model, train, self.plan.recipe, conditions)
                _save(model, folder)

        return self._get("pretrain", self.plan.pretrain_identity, produce)

    def unlearn(self, original: Artefact) -> Artefact:
        """The model that the run's method makes of the original, within the budget."""
        return self._unlearn("unlearn", self.plan.method, self.plan.budget, original)

    def reference(self, reference: Method, original: Artefact) -> Artefact:
        """The model that others are compared with, whatever they may spend."""
        return self._unlearn("reference", reference, None, original)

    def _unlearn(self, role: str, method: Method, budget: int | None, original: Artefact) -> Artefact:
        def produce(folder: Path) -> None:
            with self._conditions(folder, role, self.streams("unlearn"), budget) as conditions:
                problem = self.problem(method, original, conditions)
                with conditions.meter:
                    model = method.unlearn(problem)
                _save(model, folder)

        return self._get("unlearn", self.plan.unlearn_identity(method, budget), produce, role)

    def predictions(self, made: Artefact) -> Predictions:
        """The logits of an artefact's model on all rows, cut into the parts of the request."""

        def produce(folder: Path) -> None:
            model = self._load(made)
            tensors: dict[str, Tensor] = {}
            for name, split in (("train", self.dataset.train), ("test", self.dataset.test)):
                with Bar(f"predict {name}") as bar:
                    bar.expect(len(split))
                    bf16 = self.plan.recipe.precision.name == "bf16"
                    logits = predict(model, split, self.plan.batch_size, bf16, bar.advance)
                tensors |= {f"{name}_logits": logits, f"{name}_labels": split.labels.cpu()}
                tensors[f"{name}_rows"] = split.rows.cpu()
            save_file(tensors, folder / TENSORS)

        identity = self.plan.predict_identity(weights_of(made))
        tensors = load_file(self._get("predict", identity, produce).path / TENSORS)
        train, test = (
            tuple(tensors[f"{name}_{what}"] for what in ("logits", "labels", "rows"))
            for name in ("train", "test")
        )
        request = self.request
        return by_part(train, test, (request.rows, request.test), request.target)

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
            for point in artefact.read("curves.json"):
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
        _write(folder / "cost.json", asdict(meter.cost))
        _write(folder / "curves.json", points)

    def problem(self, method: Method, original: Artefact, conditions: Conditions) -> Problem:
        """What the method may see, and nothing else."""
        train, request = self.dataset.train, self.request
        forget = train.only(request.rows) if Access.FORGET in method.access else None
        retain = _retained(train, request) if Access.RETAIN in method.access else None
        model = self._load(original)
        return Problem(model, self._fresh, self.dataset.classes, conditions, forget, retain)

    def _fresh(self, streams: Streams) -> nn.Module:
        plan = self.plan
        model = plan.architecture.fresh(
            plan.source.channels, plan.source.size, plan.source.classes, streams.number("init")
        )
        return model.to(plan.device)

    def _load(self, made: Artefact) -> nn.Module:
        model = self._fresh(self.streams("load"))
        model.load_state_dict(load_file(made.path / MODEL))
        return model


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


def weights_of(artefact: Artefact) -> str:
    """The checksum of the artefact's weights."""
    return artefact.checksum(MODEL)


def _save(model: nn.Module, folder: Path) -> None:
    require_finite(model)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / MODEL)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
