"""From a composed configuration to checked, typed parts, and to the identity of every stage."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from torch import nn

from conf import Tracking, Until
from data.bounds import check_bounds
from data.component import Component, identity_of
from data.errors import UserError
from data.requests import Scenario, check_classes
from data.sources import Source
from methods.base import Facts, Method
from methods.recording.recorder import Recorder
from methods.training.checks import batch_fits
from methods.training.descent import Recipe
from methods.weights.layers import refuse_strides_over_a_pixel
from metrics.predictions import Metric
from models.architecture import Architecture
from models.precision import Precision
from runner.naming import run_name
from runner.published import read
from runner.store import Identity, fingerprint
from runner.tracking import check_settings

Part = TypeVar("Part", bound=Component)

# What a stage makes of the same inputs: raise a number when its meaning changes, and old artefacts
# are left alone. A test pins the keys that follow.
VERSIONS = {
    "request": 2,
    "pretrain": 1,
    "record": 2,  # 1 did not say whose training it is of
    "before": 2,  # 1 did not say what it keeps
    "slice": 1,
    "unlearn": 1,
    "repair": 1,
    "predict": 2,
}


def build(node: Any, kind: type[Part], option: str) -> Part:
    """The component that a configuration node names by `_target_`, every field checked and converted
    against its annotation.

    Raises UserError, naming the option, where the target is no component of this kind, and where a
    field is unknown, missing or of the wrong type.
    """
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(f"{option} names no component: choose one with {option}=<name>")
    target = node["_target_"]
    try:
        cls = get_class(target)
    except Exception as error:  # whatever its module raises while it is imported
        raise UserError(f"{option}: cannot import {target} ({error})") from error
    if not (issubclass(cls, kind) and is_dataclass(cls)):
        raise UserError(f"{option}: {target} is no {kind.__name__.lower()}")
    given = OmegaConf.to_container(node, resolve=True)
    assert isinstance(given, dict)
    del given["_target_"]
    known = {field.name for field in fields(cls)}
    for name in given:
        if name not in known:
            raise UserError(f"{option}.{name} is no parameter of {cls.__name__}: {sorted(known)}")
    try:
        part = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), given))
    except MissingMandatoryValue as error:
        missing = str(error.full_key)
        raise UserError(f"{option}.{missing} is not set: add {option}.{missing}=…") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{option}.{error.full_key}: {str(error).splitlines()[0]}") from error
    for name, value in vars(part).items():  # OmegaConf lets them into lists of numbers
        if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
            raise UserError(f"{option}.{name}={value}: write one list of single values")
    assert isinstance(part, kind)
    check_bounds(option, part)
    return part


@dataclass(frozen=True)
class Plan:
    """One run, checked before any work. `names` are the names of the chosen options, which label
    tables and decide nothing."""

    names: Mapping[str, str]
    name: str
    seed: int | None
    source: Source
    limit: int | None
    rare: Mapping[int, int]
    architecture: Architecture
    recipe: Recipe
    scenario: Scenario
    recorders: Mapping[str, Recorder]
    reads: str | None
    method: Method
    repair: Method | None
    budget: int | None
    reference: Method | None
    metrics: list[Metric]
    evaluate_train: bool
    every: int | None
    batch_size: int
    device: torch.device
    threads: int
    until: Until
    root: Path
    data_root: Path
    download: bool
    tracking: Tracking

    @staticmethod
    def of(cfg: DictConfig, names: Mapping[str, str]) -> "Plan":
        """The plan of a composed configuration. Raises UserError for whatever can be refused without
        reading data."""
        metrics = cfg.evaluation.metrics
        reference = None
        if cfg.evaluation.reference is not None:
            reference = build(cfg.evaluation.reference, Method, "evaluation.reference")
        if cfg.table.published is not None:
            read(cfg.table.published)  # refuses an unknown one now and not after the sweep
        if cfg.table.seeds is not None and cfg.table.seeds < 1:
            raise UserError(f"table.seeds={cfg.table.seeds}: it must be at least 1")
        tracking = OmegaConf.to_object(cfg.tracking)
        assert isinstance(tracking, Tracking)
        plan = Plan(
            names=names,
            name=run_name(cfg.name, names),
            seed=cfg.seed,
            source=build(cfg.dataset, Source, "dataset"),
            limit=cfg.data.limit,
            rare=_rare(cfg.data.rare),
            architecture=build(cfg.model, Architecture, "model"),
            recipe=build(cfg.training, Recipe, "training"),
            scenario=build(cfg.scenario, Scenario, "scenario"),
            recorders={
                name: build(cfg.recorder[name], Recorder, f"recorder.{name}")
                for name in cfg.recorder
                if "_target_" in cfg.recorder[name]  # a preset may set options of others
            },
            reads=cfg.reads,
            method=build(cfg.method, Method, "method"),
            repair=None if cfg.repair is None else build(cfg.repair, Method, "repair"),
            budget=cfg.budget.gradient_examples,
            reference=reference,
            metrics=[build(metrics[key], Metric, f"evaluation.metrics.{key}") for key in metrics],
            evaluate_train=cfg.evaluation.train,
            every=cfg.evaluation.every,
            batch_size=cfg.evaluation.batch_size,
            device=_device(cfg.device),
            threads=cfg.threads,
            until=cfg.until,
            root=Path(cfg.paths.root),
            data_root=Path(cfg.data.root).expanduser(),
            download=cfg.data.download,
            tracking=tracking,
        )
        plan.check()
        return plan

    def check(self) -> None:
        for option, value in (
            ("threads", self.threads),
            ("evaluation.batch_size", self.batch_size),
            ("evaluation.every", self.every),
            ("data.limit", self.limit),
            ("budget.gradient_examples", self.budget),
        ):
            if value is not None and value < 1:
                raise UserError(f"{option}={value}: it must be at least 1")
        if "/" in self.name or self.name.startswith("."):
            raise UserError(f"name={self.name} must be a plain folder name")
        for label, rows in self.rare.items():
            if not 0 <= label < self.source.classes or rows < 1:
                raise UserError(
                    f"data.rare=[{label}:{rows}]: name classes 0 to {self.source.classes - 1}, and at "
                    "least 1 row of each"
                )
        check_settings(self.tracking)
        self.source.check()
        self.recipe.check_parameters("training")
        self._check_method("method", self.method)
        if self.repair is not None:
            self._check_method("repair", self.repair)
        if self.reference is not None:
            self._check_method("evaluation.reference", self.reference)
        for name, recorder in self.recorders.items():
            recorder.check_parameters(f"recorder.{name}")
            if recorder.classes is not None:
                check_classes(f"recorder.{name}.classes", recorder.classes, self.source.classes)
        if self.until is Until.record and not self.recorders:
            raise UserError("until=record has no recorder: add recorder=[…], or set until=pretrain")
        as_given = self.architecture.weights is not None and self.recipe.epochs == 0
        if as_given and self.reference is not None:
            raise UserError(
                "training.epochs=0 leaves model.weights as they are, and retraining the reference would "
                "too: set evaluation=quick, or train on with training.epochs="
            )
        self.scenario.check(self.source)
        self.architecture.check()
        read_by_method = self.record_of(self.method)
        if self.reads is not None and self.reads != read_by_method:
            raise UserError(
                f"reads={self.reads} is no record that method={self.names['method']} reads: set "
                f"reads={'null' if read_by_method is None else read_by_method}"
            )

    def _check_method(self, option: str, method: Method) -> None:
        method.check_parameters(option)
        if method.records is not None and self.record_of(method) is None:
            name = method.records.kind.split(".")[-2]  # of its module: conf/recorder has the same
            chosen = self.names.get(option, type(method).__name__)
            cure = f"add recorder=[{name}]"
            if option == "method" and self.reads is not None:
                cure = (
                    f"reads={self.reads} is none: name the experiment= whose variant this is, or {cure}"
                )
                cure += " and set reads=null"
            raise UserError(f"{option}={chosen} reads a record of the training: {cure}")

    def record_of(self, method: Method) -> str | None:
        """The name of the recorder whose record the method reads; None where it reads none, or none
        of its kind is there."""
        wanted = method.records
        if wanted is None:
            return None
        found = [name for name, recorder in self.recorders.items() if isinstance(recorder, wanted)]
        return self.reads if self.reads in found else next(iter(found), None)

    def check_request(self, found: Mapping[str, Any]) -> None:
        """Raises UserError where a training, the method or the reference cannot work with what the
        request selects: the fields of `Facts` that it decides."""
        facts = Facts(**found, classes=self.source.classes, recipe=self.recipe, outline=self._outline)
        batch_fits("training", self.recipe, facts.all, "the training set")
        if self.device.type == "cpu" and self.recipe.precision is Precision.bf16:
            size = self.architecture.input_size or self.source.size
            image = torch.empty(1, self.source.channels, size, size, device="meta")
            refuse_strides_over_a_pixel(self._outline(), image)
        for method in (self.method, self.repair, self.reference):
            if method is not None:
                method.check(facts)

    def _outline(self) -> nn.Module:
        source = self.source
        return self.architecture.outline(source.channels, source.size, source.classes)

    def without_seed(self) -> "Plan":
        """The plan that all seeds of one table cell share."""
        return replace(self, seed=None)

    # Identities: nested dictionaries of everything a stage's result depends on, and of nothing else.

    @property
    def data_identity(self) -> Identity:
        rare = {"rare": {str(label): rows for label, rows in sorted(self.rare.items())}}
        return {
            "source": identity_of(self.source),
            "limit": self.limit,
            **(rare if self.rare else {}),
        }

    @property
    def request_identity(self) -> Identity:
        return {
            "version": VERSIONS["request"],
            "data": self.data_identity,
            "scenario": identity_of(self.scenario),
            "seed": self.seed,
        }

    @property
    def pretrain_identity(self) -> Identity:
        return {
            "version": VERSIONS["pretrain"],
            "data": self.data_identity,
            "model": identity_of(self.architecture),
            "training": identity_of(self.recipe),
            "seed": self.seed,
        }

    @property
    def setting_identity(self) -> Identity:
        """The original and the request: what methods are compared on."""
        return {"pretrain": self.pretrain_identity, "scenario": identity_of(self.scenario)}

    def record_identity(self, recorder: Recorder) -> Identity:
        return {
            "version": VERSIONS["record"],
            "pretrain": self.pretrain_identity,
            "recorder": identity_of(recorder),
        }

    def unlearn_identity(self, method: Method, budget: int | None) -> Identity:
        name = self.record_of(method)
        return {
            "version": VERSIONS["unlearn"],
            **self.setting_identity,
            "method": identity_of(method),
            "budget": budget,
            "seed": self.seed,
            **({} if name is None else {"recorder": identity_of(self.recorders[name])}),
        }

    @property
    def looks_identity(self) -> Identity:
        """What is logged while the run's own method unlearns. That cannot be had from the weights, which
        are the same without it: so it belongs to the artefact, and to no row. The reference, which runs
        share, has none."""
        if self.every is None or self.method == self.reference:
            return {}
        metrics = [identity_of(metric) for metric in self.metrics]
        return {"looks": {"every": self.every, "train": self.evaluate_train, "metrics": metrics}}

    def before_identity(self, method: Method) -> Identity:
        """What a method trains before there is a request; the rows are shared out as for the request."""
        return {**self.pretrain_identity, "version": VERSIONS["before"], "method": identity_of(method)}

    def slice_identity(self, identity: Identity, budget: int | None) -> Identity:
        """A training that a method keeps for later requests."""
        own = {"version": VERSIONS["slice"], "slice": identity, "budget": budget}
        return {**self.pretrain_identity, **own}

    @property
    def own_identity(self) -> Identity:
        """What the run's own method makes, within its budget."""
        return self.unlearn_identity(self.method, self.budget)

    @property
    def repair_identity(self) -> Identity | None:
        """What is made of that by a repair; None where the run has none."""
        if self.repair is None:
            return None
        return {**self.own_identity, "repair": {"stage": VERSIONS["repair"], **identity_of(self.repair)}}

    def predict_identity(self, weights: str, split: str) -> Identity:
        """Predictions of a split belong to weights, whatever made them; `weights` is their checksum."""
        return {
            "version": VERSIONS["predict"],
            "data": self.data_identity,
            "model": identity_of(self.architecture),
            "precision": self.recipe.precision.name,
            "weights": weights,
            "split": split,
        }

    @property
    def key(self) -> str:
        """Names the run: the key of what it makes last."""
        return fingerprint(self.repair_identity or self.own_identity)


def _rare(pairs: Iterable[str]) -> dict[int, int]:
    """Rows to keep by class."""
    found: dict[int, int] = {}
    for pair in pairs:
        try:
            label, rows = map(int, pair.split(":"))
        except ValueError as error:
            cure = "write class:rows, as in data.rare=[3:100]"
            raise UserError(f"data.rare={list(pairs)}: {cure}") from error
        if found.setdefault(label, rows) != rows:
            raise UserError(f"data.rare={list(pairs)} names class {label} twice: name it once")
    return found


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # torch raises AssertionError, RuntimeError and others here
        here = "cuda" if torch.cuda.is_available() else "cpu"
        raise UserError(f"device={name} is not to be had here: use device={here}") from error
    return device
