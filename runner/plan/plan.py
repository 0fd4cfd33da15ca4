"""The plan of a run: a composed configuration as checked, typed parts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from conf import Budget, Data, Evaluation, Pretrained, Reference, Run, Table, Tracking, Until
from data.bounds import check_bounds
from data.classes import rare_classes
from data.errors import UserError
from data.requests import Scenario
from data.sources import Source
from methods.base import Method
from methods.recording.recorder import Recorder
from methods.training.descent import Recipe
from metrics.metric import Metric
from models.architecture import Architecture
from runner.naming import folder_of, run_name, titles
from runner.plan import identities
from runner.plan.build import build, build_chosen
from runner.plan.checks import check
from runner.plan.share import Share
from runner.published import read
from runner.roles import ORIGINAL
from runner.store import Identity, fingerprint

Node = TypeVar("Node")


@dataclass(frozen=True)
class Plan:
    """One run, checked before any work.

    The components are built. `data`, `evaluation` and `tracking` are nodes of the configuration, in the
    types of `conf`. `names` are the names of the chosen options; they label tables and decide nothing.
    `rare` maps a class to the number of its training rows that stay. `seed` is None in the plan that all
    seeds of one table cell share. `request_seed` is the seed that draws the request, None for `seed`.
    `share` cuts the training set of a shadow, None for all rows. `reference_architecture` is the
    architecture with the weights at which a retrained reference starts, None if it starts where the
    original does. `public` is the plan of the checkpoint at which all trainings begin, None if they
    begin at random weights or at a file of them, which the option `start` names.
    """

    names: Mapping[str, str]
    titles: Mapping[str, str]
    name: str
    seed: int | None
    source: Source
    data: Data
    rare: Mapping[int, int]
    architecture: Architecture
    reference_architecture: Architecture | None
    recipe: Recipe
    scenario: Scenario
    recorders: Mapping[str, Recorder]
    reads: str | None
    method: Method
    repair: Method | None
    reference: Method | None
    budget: int | None
    metrics: list[Metric]
    evaluation: Evaluation
    device: torch.device
    threads: int
    until: Until
    shadow: int | None
    root: Path
    tracking: Tracking
    request_seed: int | None = None
    share: Share | None = None
    public: "Plan | None" = None
    start: str = "model"

    @staticmethod
    def of(cfg: DictConfig, names: Mapping[str, str]) -> "Plan":
        """Return the plan of a configuration. Raise UserError for a fault that is found without data."""
        _check_plain(cfg)
        data, evaluation = _node(cfg, "data", Data), _node(cfg, "evaluation", Evaluation)
        source = build(cfg.dataset, Source, "dataset")
        reference, metrics = cfg.evaluation.reference, cfg.evaluation.metrics
        architecture = build(cfg.model, Architecture, "model")
        plan = Plan(
            names=names,
            titles=titles(cfg),
            name=run_name(cfg.name, names),
            seed=cfg.seed,
            source=source,
            data=data,
            rare=rare_classes("data.rare", data.rare, source),
            architecture=architecture,
            reference_architecture=_own_start(architecture, _node(cfg, "reference", Reference)),
            recipe=build(cfg.training, Recipe, "training"),
            scenario=build(cfg.scenario, Scenario, "scenario", source),
            recorders=build_chosen(cfg.recorder, Recorder, "recorder", source),
            reads=cfg.reads,
            method=build(cfg.method, Method, "method", source),
            repair=None if cfg.repair is None else build(cfg.repair, Method, "repair"),
            reference=None if reference is None else build(reference, Method, "evaluation.reference"),
            budget=cfg.budget.gradient_examples,
            metrics=list(build_chosen(metrics, Metric, "evaluation.metrics").values()),
            evaluation=evaluation,
            device=device_of(cfg.device),
            threads=cfg.threads,
            until=cfg.until,
            shadow=cfg.shadow,
            root=folder_of("paths.root", cfg.paths.root),
            tracking=_node(cfg, "tracking", Tracking),
        )
        if cfg.pretrained.dataset is not None:
            plan = replace(plan, public=_public(plan, cfg.pretrained))
        check(plan)
        return plan

    @property
    def data_root(self) -> Path:
        """The folder that torchvision calls root."""
        return folder_of("data.root", self.data.root).expanduser()

    def record_of(self, method: Method) -> str | None:
        """Return the name of the recorder whose record the method reads, or None if it reads none or
        no recorder of its kind is chosen. `reads` decides between several."""
        wanted = method.records
        if wanted is None:
            return None
        found = [name for name, recorder in self.recorders.items() if isinstance(recorder, wanted)]
        return self.reads if self.reads in found else next(iter(found), None)

    def outline(self) -> nn.Module:
        """Return the layers and shapes of the model without numbers, on torch's meta device."""
        source = self.source
        return self.architecture.outline(source.channels, source.size, source.classes)

    def without_seed(self) -> "Plan":
        """Return the plan that all seeds of one table cell share."""
        return replace(self, seed=None)

    def member(self, seed: int) -> "Plan":
        """Return this plan with another seed, for the same rows to forget.

        It has the keys of the run with that seed, unless every seed draws a request of its own.
        """
        drawn = self.seed if self.request_seed is None else self.request_seed
        return replace(self, seed=seed, request_seed=drawn if self.scenario.drawn else None)

    def of_reference(self) -> "Plan":
        """Return the plan by which the reference is made: a retrained one may start at other weights.

        A reference that starts at the original has this plan.
        """
        retrained = self.reference is not None and self.reference.starts_fresh
        own = self.reference_architecture
        if not retrained or own is None or (own == self.architecture and self.public is None):
            return self
        return replace(self, architecture=own, public=None, start="reference")

    @property
    def reference_from(self) -> str | None:
        """Where a retrained reference starts: "checkpoint", "weights" or "scratch"; None if none is
        retrained."""
        if self.reference is None or not self.reference.starts_fresh:
            return None
        made = self.of_reference()
        if made.public is not None:
            return "checkpoint"
        return "scratch" if made.architecture.weights is None else "weights"

    @property
    def reference_may_know(self) -> bool:
        """Whether a retrained reference starts at a checkpoint of the images of the run's data set."""
        return self.reference_from == "checkpoint" and self.public_may_know

    @property
    def public_may_know(self) -> bool:
        """Whether the public checkpoint has learned images of the run's data set."""
        return self.public is not None and self.public.source.shares_images(self.source)

    @property
    def key(self) -> str:
        """The key of the last artefact that the run makes, which names the run."""
        return fingerprint(self._last)

    @property
    def parameters(self) -> dict[str, Any]:
        """All inputs of the run's last artefact, as one level of dotted names."""
        return identities.flat(self._last)

    @property
    def _last(self) -> Identity:
        return identities.repair(self) or identities.own(self)


def _check_plain(cfg: DictConfig) -> None:
    """Raise UserError if an option that the plan does not hold, or a plain number, has a wrong value."""
    if cfg.table.published is not None:
        read(cfg.table.published)  # an unknown name is refused now, not after the sweep
    check_bounds("", Run(seed=cfg.seed, threads=cfg.threads, shadow=cfg.shadow))
    for option, kind in (("budget", Budget), ("table", Table)):
        _node(cfg, option, kind)


def _node(cfg: DictConfig, option: str, kind: type[Node]) -> Node:
    """Return a node of the configuration as its dataclass, its numbers within their bounds."""
    found = OmegaConf.to_object(cfg[option])
    assert isinstance(found, kind)
    check_bounds(option, found)
    return found


def _own_start(architecture: Architecture, start: Reference) -> Architecture | None:
    """Return the architecture with the weights at which a reference starts, None for the original's."""
    if start.weights == ORIGINAL.label:
        return None
    sha256 = None if start.weights is None else start.sha256
    return replace(architecture, weights=start.weights, sha256=sha256)


def _public(plan: Plan, node: DictConfig) -> Plan:
    """Return the plan of the public checkpoint: an original of the run's architecture on other data."""
    option = "pretrained"
    limits = Pretrained(limit=node.limit, seed=node.seed)
    check_bounds(option, limits)
    return replace(
        plan,
        source=build(node.dataset, Source, f"{option}.dataset"),
        recipe=build(node.training, Recipe, f"{option}.training"),
        data=replace(plan.data, limit=limits.limit, rare=[]),
        rare={},
        scenario=Scenario(),
        recorders={},
        seed=limits.seed,
    )


def device_of(name: str | None) -> torch.device:
    """Return the device of this name, None for a GPU if there is one. Raise UserError if it is not
    available."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # which a device without memory refuses
    except Exception as error:  # torch raises AssertionError, RuntimeError and others here
        here = "cuda" if torch.cuda.is_available() else "cpu"
        raise UserError(f"device={name} is not available here: use device={here}") from error
    return device
