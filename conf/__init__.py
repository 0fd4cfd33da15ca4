"""The schema of the configuration. Fields of type Any hold components, which have their own types."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from data.bounds import COUNT, EXAMPLES, NUMBER, POSITIVE, SEED, THREADS

# The folder of the configuration: a folder of it is a group, and each file there one of its options.
FOLDER = Path(__file__).parent


class Until(Enum):
    """The stage that ends a run: fill the store first, sweep later."""

    pretrain = "pretrain"
    record = "record"
    shadow = "shadow"
    end = "end"


class Format(Enum):
    """Formats of a report that it is written in if it is asked to."""

    html = "html"


class Mode(Enum):
    """Modes of the W&B client."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class Data:
    """Options of reading the data set.

    `root` is the folder that torchvision calls root. `download` fetches missing files. `limit` is the
    number of rows per class, or per fine class of a data set that has them; null for all. `rare` limits
    the training rows of single classes, as class:rows or a list of such pairs.
    """

    root: str = MISSING
    download: bool = MISSING
    limit: Annotated[int, COUNT] | None = MISSING
    rare: Any = field(default_factory=list)


@dataclass
class Paths:
    """`root` is the folder of everything that a run writes."""

    root: str = MISSING


@dataclass
class Budget:
    """`gradient_examples` is the most that unlearning may spend; null for no limit."""

    gradient_examples: Annotated[int, EXAMPLES] | None = MISSING


@dataclass
class Evaluation:
    """Options of scoring models.

    `reference` is the method whose model every score is compared with, or null. `references` is the
    number of such models of different seeds: those of seeds 0 to `references` − 1, and the run's own.
    `shadows` is the number of shadow models, 0 for none; `shadows_with_records` allows them for a method
    that stores a record of each one's training. More training for all these than `seconds` is refused,
    unless `confirm` is true.

    `train` also predicts the training rows. `every` also scores the model after that many passes of
    unlearning; null does not. It has no effect on the reference, on methods without passes, and on SISA,
    whose slices serve every request. `batch_size` is the number of rows predicted at once. `metrics` are
    components by name. `curve_batches` is the length of the trainings `relearn` and `recover`, which are
    looked at every `curve_look` batches.
    """

    reference: Any = MISSING
    references: Annotated[int, COUNT] = MISSING
    shadows: Annotated[int, NUMBER] = MISSING
    shadows_with_records: bool = MISSING
    seconds: Annotated[float, POSITIVE] = MISSING
    confirm: bool = MISSING
    train: bool = MISSING
    every: Annotated[int, COUNT] | None = MISSING
    batch_size: Annotated[int, COUNT] = MISSING
    curve_batches: Annotated[int, COUNT] = MISSING
    curve_look: Annotated[int, COUNT] = MISSING
    metrics: dict[str, Any] = MISSING


@dataclass
class Pretrained:
    """A public checkpoint: a model of another data set, at which the original and its retraining begin.

    `dataset` and `training` are components: its data, null for no checkpoint, and its recipe. `limit` is
    the number of rows per class, or per fine class of a data set that has them, null for all. `seed` is
    that of its training.
    """

    dataset: Any = None
    training: Any = MISSING
    limit: Annotated[int, COUNT] | None = MISSING
    seed: Annotated[int, SEED] = MISSING


@dataclass
class Reference:
    """Where a retrained reference starts.

    `weights` is a local file and `sha256` its checksum, as in the model. `original` stands for where the
    original starts, at a file or at the public checkpoint; null retrains from scratch.
    """

    weights: str | None = MISSING
    sha256: str | None = MISSING


@dataclass
class Tracking:
    """Options of W&B.

    `enabled` turns it on. `mode` is online, offline or disabled; null for WANDB_MODE, else offline, but
    online for an agent of a sweep.
    `salt` changes the ids of the runs, since W&B does not take a deleted id again.
    """

    enabled: bool = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    mode: Mode | None = MISSING
    salt: str = MISSING


@dataclass
class Table:
    """Options of the table of results.

    `columns` are the scores and costs to show, in order. `seeds` is the number of seeds that each line
    should have; null for the most that any line has. `published` is a file of results/published whose
    numbers stand beside these; null for none.
    """

    columns: list[str] = field(default_factory=list)
    seeds: Annotated[int, COUNT] | None = MISSING
    published: str | None = MISSING


@dataclass
class Tune:
    """Options of `python -m runner.tune`.

    `validation` holds the scenario's options of the request that a search is scored on, which no table
    may report.
    `trials` is the number of points that are tried for each method. `seeds` are the seeds of a trial's
    runs, and `sampler_seed` that of the sampler. `objective` is the score whose mean over the seeds
    decides. `folder` holds the files of tuned options. `space` has, for each option of the method to
    tune, `low`, `high` and `log`, or a list of values.
    """

    validation: Any = MISSING
    trials: Annotated[int, COUNT] = MISSING
    seeds: list[Annotated[int, SEED]] = MISSING
    sampler_seed: Annotated[int, SEED] = MISSING
    objective: str = MISSING
    folder: str = MISSING
    space: dict[str, Any] = MISSING


@dataclass
class Run:
    """One run.

    `name` is the folder of its result; null for <dataset>_<model>_<scenario>. `reads` is the recorder
    whose record the method reads; null for the first that fits. `device` is null for a GPU if there is
    one, else the CPU. `threads` are those of the CPU: results differ in their last bits between thread
    counts, so it is set here and not by the machine. `until` ends the run early. With `until=shadow`,
    `shadow` is the number of the shadow model to train; null for all of them. `plan` lists the cells of
    a command, and what is left to do, instead of running them. `format` is one that a report is written
    in beside Markdown, CSV and LaTeX; null for none.
    """

    name: str | None = MISSING
    seed: Annotated[int, SEED] = MISSING
    reads: str | None = MISSING
    device: str | None = MISSING
    threads: Annotated[int, THREADS] = MISSING
    until: Until = MISSING
    plan: bool = MISSING
    shadow: Annotated[int, NUMBER] | None = None
    format: Format | None = MISSING
    data: Data = field(default_factory=Data)
    paths: Paths = field(default_factory=Paths)
    budget: Budget = field(default_factory=Budget)
    table: Table = field(default_factory=Table)
    reference: Reference = field(default_factory=Reference)
    dataset: Any = MISSING
    model: Any = MISSING
    training: Any = MISSING
    pretrained: Pretrained = field(default_factory=Pretrained)
    recorder: dict[str, Any] = field(default_factory=dict)
    scenario: Any = MISSING
    method: Any = MISSING
    repair: Any = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    tracking: Tracking = field(default_factory=Tracking)
    figure: dict[str, Any] = field(default_factory=dict)
    tune: Tune = field(default_factory=Tune)


ConfigStore.instance().store(name="run_schema", node=Run)
