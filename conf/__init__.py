"""The typed spine of the configuration; the slots are typed by the components that fill them."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


class Until(Enum):
    """The stage after which a run ends: warm the store first, sweep later."""

    pretrain = "pretrain"
    record = "record"
    end = "end"


class Mode(Enum):
    """How W&B runs are kept."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class Data:
    """`root`: the folder that torchvision calls root. `download`: fetch what is missing.
    `limit`: rows per class, for quick looks; null for all. `rare`: training rows to keep of single
    classes, each as class:rows."""

    root: str = MISSING
    download: bool = MISSING
    limit: int | None = MISSING
    rare: list[str] = field(default_factory=list)


@dataclass
class Paths:
    """`root`: everything a run writes lies below it."""

    root: str = MISSING


@dataclass
class Budget:
    """`gradient_examples`: the most that unlearning may spend; null for no limit."""

    gradient_examples: int | None = MISSING


@dataclass
class Evaluation:
    """`reference`: the method whose model every score is compared with, or null. `train`: whether
    training rows are predicted too. `every`: the model is scored while it unlearns, too, after so many
    passes over rows; null does not. The reference is not, nor are methods that take no passes, and SISA,
    whose slices serve every request. `batch_size`: rows predicted at once. `metrics`: by name, each a
    component."""

    reference: Any = MISSING
    train: bool = MISSING
    every: int | None = MISSING
    batch_size: int = MISSING
    metrics: dict[str, Any] = MISSING


@dataclass
class Tracking:
    """W&B. `enabled`: at all. `mode`: online, offline or disabled; null for WANDB_MODE, else offline.
    `salt`: changes the run ids, where a deleted id must not be used again."""

    enabled: bool = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    mode: Mode | None = MISSING
    salt: str = MISSING


@dataclass
class Table:
    """`columns`: the scores and costs a table shows, in order. `seeds`: how many there should be;
    null for the most that any line has. `published`: the file of results/published whose numbers
    stand beside ours; null for none."""

    columns: list[str] = field(default_factory=list)
    seeds: int | None = MISSING
    published: str | None = MISSING


@dataclass
class Run:
    """One run. `name`: the results folder; null for <dataset>_<model>_<scenario>. `reads`: the recorder
    whose record the method reads, where there are several of its kind; null for the first. `device`:
    null for a GPU where there is one. `threads`: of the CPU; results differ in their last bits between
    thread counts, so it is fixed here and not by the machine."""

    name: str | None = MISSING
    seed: int = MISSING
    reads: str | None = MISSING
    device: str | None = MISSING
    threads: int = MISSING
    until: Until = MISSING
    data: Data = field(default_factory=Data)
    paths: Paths = field(default_factory=Paths)
    budget: Budget = field(default_factory=Budget)
    table: Table = field(default_factory=Table)
    dataset: Any = MISSING
    model: Any = MISSING
    training: Any = MISSING
    recorder: dict[str, Any] = field(default_factory=dict)
    scenario: Any = MISSING
    method: Any = MISSING
    repair: Any = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    tracking: Tracking = field(default_factory=Tracking)
    figure: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(name="run_schema", node=Run)
