"""Small real runs: everything here works on scikit-learn's digits, with a small network."""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from hypothesis import settings
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn

import conf
from data.requests import Request
from data.split import Batch, Dataset, Split
from data.streams import Streams
from methods.base import Method, Problem
from methods.training.cost import Meter
from methods.training.loop import Conditions
from metrics.evidence import Point
from metrics.predictions import Predictions
from runner import stages
from runner.pipeline import run
from runner.plan import Plan, identities
from runner.plan.checks import check_request
from runner.process import prepare
from runner.results import Results
from runner.stages.models import MODEL
from runner.stages.unlearn import problem
from runner.stages.workspace import Workspace
from runner.store import Artefact, Store, fingerprint
from runner.tracking import Tracker
from tests.composing import composed_once
from tests.suite import (  # noqa: F401  hooks of pytest
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_xdist_auto_num_workers,
)

# A loaded machine is slow and not wrong.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

CONF = Path(conf.__file__).parent

# A run in a tenth of a second: 20 rows per class, a narrow network, one epoch. All are values, which
# `tests.composing` sets without Hydra.
QUICK = [
    "data.limit=20",
    "model.widths=[4,8]",
    "model.hidden=16",
    "training.epochs=1",
    "training.warmup=0",
    "tracking.enabled=false",
    "threads=1",
    "evaluation.references=1",
]

# An original that has learned the digits of such a run.
LEARNED = ["training.epochs=30", "training.lr=0.05"]

# Most requests of such a run: 20 of its 200 rows are forgotten, 180 retained.
FORGET, RETAIN = 20, 180


# Configurations


def options(group: str) -> list[str]:
    """Return the choices of a configuration group; a leading underscore marks a shared part."""
    return sorted(p.stem for p in (CONF / group).glob("*.yaml") if not p.stem.startswith("_"))


def plan_of(*overrides: str) -> Plan:
    """Return the plan of a configuration."""
    root = [text.removeprefix("paths.root=") for text in overrides if text.startswith("paths.root=")]
    cfg, names = composed_once(*(text for text in overrides if not text.startswith("paths.root=")))
    plan = Plan.of(cfg, dict(names))
    return replace(plan, root=Path(root[-1])) if root else plan  # the last override counts


METHODS = options("method")


def class_of(method: str) -> type[Method]:
    """Return the class that a method of conf/method names."""
    found: type[Method] = get_class(composed_once(f"method={method}")[0].method._target_)
    return found


def needs_record(method: str) -> list[str]:
    """Return the override that chooses the recorder which a method of conf/method reads."""
    records = class_of(method).records
    return [] if records is None else [f"recorder=[{records.kind.split('.')[-2]}]"]


def needs_scenario(method: str) -> list[str]:
    """Return the override that chooses a request which a method serves, if it does not serve all."""
    requests = catalogue()[method]["requests"]
    return [] if requests == "any" else [f"scenario={requests.split(',')[0].strip('` ')}"]


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Return the table of methods/README.md: a line per method, by the head of the column."""
    lines = (CONF.parent / "methods" / "README.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    heads = table[0]
    found = [dict(zip(heads, cells, strict=True)) for cells in table[2:]]
    return {line["method"].strip("`"): line for line in found}


# Runs


class Stages:
    """The stages of one plan, as tests use them. No test knows how the runner arranges them but here.

    `dataset` is loaded once: a test may change its tensors before the stages read them.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None], tracker: Tracker) -> None:
        self.plan = plan
        self.store = Store(plan.root / "store", say)
        self._workspace = Workspace(plan, self.store, tracker)

    @property
    def dataset(self) -> Dataset:
        """The data, on the device."""
        return self._workspace.dataset

    @cached_property
    def request(self) -> Request:
        """The rows to forget. Raise UserError if the run cannot serve them."""
        request, facts = stages.request(self._workspace)
        check_request(self.plan, facts)
        return request

    @property
    def used(self) -> list[Artefact]:
        """The artefacts that were made or read so far."""
        return self._workspace.used

    def streams(self, scope: str) -> Streams:
        """Return the random streams of a scope."""
        return self._workspace.streams(scope)

    def pretrain(self) -> Artefact:
        """Return the original, training and recording it if absent."""
        return stages.pretrain(self._workspace, self.request)

    def record(self, name: str) -> Artefact:
        """Return what a recorder wrote."""
        return stages.record(self._workspace, self.request, name)

    def initial_training(self) -> Artefact:
        """Return the model that the run's method has before any request."""
        made = stages.initial_training(self._workspace, self.request)
        assert made is not None
        return made

    def unlearn(self, original: Artefact) -> Artefact:
        """Return the model that the run's method makes of the original."""
        return stages.unlearn(self._workspace, self.request, original)

    def repair(self, unlearned: Artefact) -> Artefact:
        """Return the unlearned model, repaired."""
        return stages.repair(self._workspace, self.request, unlearned)

    def predictions(self, made: Artefact, method: Method | None = None) -> Predictions:
        """Return the predictions of a model that `method` made, or of the original."""
        return stages.predictions(self._workspace, self.request, made, method)

    def random_predictions(self) -> Predictions:
        """Return the predictions of a model with random weights."""
        return stages.random_predictions(self._workspace, self.request)

    def features(self, made: Artefact, method: Method | None = None) -> Mapping[str, Tensor] | None:
        """Return the features of a model that `method` made, or of the original."""
        return stages.features(self._workspace, self.request, made, method)

    def curve(self, kind: str, made: Artefact, method: Method | None = None) -> list[Point]:
        """Return the looks at a training of a model that `method` made, or of the original."""
        return stages.curve(self._workspace, self.request, stages.Curve(kind), made, method)

    def batches_per_epoch(self, kind: str) -> int:
        """Return the batches in one pass of such a training."""
        return stages.batches_per_epoch(self._workspace, stages.Curve(kind))

    def problem(self, method: Method, original: Artefact, conditions: Conditions) -> Problem:
        """Return the problem that a method is given."""
        return problem(self._workspace, self.request, method, original, conditions)


def keys_of(plan: Plan) -> dict[str, str]:
    """Return the key of each stage that a plan has, as the store names artefacts."""
    found: dict[str, Any] = {
        "request": identities.request(plan),
        "pretrain": identities.pretrain(plan),
        "unlearn": {**identities.own(plan), **identities.scoring(plan)},
        "predict": identities.predict(plan, "0" * 64, "test"),
    }
    for name, recorder in plan.recorders.items():
        found[f"record.{name}"] = identities.record(plan, recorder)
    if plan.repair is not None:
        found["repair"] = {**(identities.repair(plan) or {}), **identities.scoring(plan)}
    if plan.method.trains_before:
        found["before"] = identities.initial_training(plan)
        found["slice"] = identities.cached_training(plan, {"shard": 0}, None)
    return {stage: fingerprint(identity) for stage, identity in found.items()}


def stages_of(
    plan: Plan, say: Callable[[str], None] = lambda message: None, tracker: Tracker | None = None
) -> Stages:
    """Return the stages of a plan; `say` receives what its store tells the user."""
    return Stages(plan, say, tracker or Tracker())


def conditions_of(
    plan: Plan, budget: int | None = None, log: list[dict[str, float]] | None = None
) -> Conditions:
    """Return conditions outside any stage; the curves go to `log`."""
    points: list[dict[str, float]] = [] if log is None else log
    meter = Meter(torch.device("cpu"), budget)
    return Conditions(Streams(0, "test"), meter, lambda values: points.append(dict(values)), plan.recipe)


def problem_of(
    stages: Stages,
    method: Method | None = None,
    budget: int | None = None,
    log: list[dict[str, float]] | None = None,
) -> Problem:
    """Return the problem of the run's method, or of another one, with the run's original."""
    conditions = conditions_of(stages.plan, budget, log)
    return stages.problem(method or stages.plan.method, stages.pretrain(), conditions)


Weights = dict[str, Tensor]


def weights_in(made: Artefact) -> Weights:
    """Return the weights of an artefact's model."""
    return load_file(weights_file(made))


def weights_file(made: Artefact) -> Path:
    """Return the file of the weights of an artefact's model."""
    return made.path / MODEL


def checksum_of(made: Artefact) -> str:
    """Return the checksum of the weights of an artefact's model."""
    return made.checksum(MODEL)


def original_of(stages: Stages) -> Weights:
    """Return the weights of the run's original."""
    return weights_in(stages.pretrain())


def unlearned_of(stages: Stages) -> Weights:
    """Return the weights that the run's method makes of the original."""
    return weights_in(stages.unlearn(stages.pretrain()))


def cost_of(stages: Stages) -> dict[str, int]:
    """Return what the run's method cost."""
    cost: dict[str, int] = stages.unlearn(stages.pretrain()).read("cost.json")
    return cost


def same(one: Weights, other: Weights) -> bool:
    """Return whether all tensors of two models are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def close(found: Tensor, wanted: Tensor, rel: float = 1e-5) -> bool:
    """Return whether a tensor is near another one, relative to the norm of that one."""
    return bool((found - wanted).norm() <= rel * wanted.norm() + 1e-12)


def state_of(model: nn.Module) -> Weights:
    """Return a copy of a model's weights, which later steps do not change."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def only_batch(split: Split) -> Batch:
    """Return all examples of a split as one batch."""
    return next(iter(split.batches(len(split))))


def result_of(plan: Plan, *overrides: str) -> Any:
    """Run a plan to its end and return its result."""
    result = run(plan, overrides)
    assert result is not None
    return result


# The name of the results of a quick run.
NAME = "digits_small_cnn_whole_class"


def results_in(root: Path, name: str = NAME) -> list[Any]:
    """Return the stored results of a name."""
    return list(Results(root / "results").named(name))


def digits_of(root: Path, name: str = NAME) -> dict[str, Any]:
    """Return the scores of the results of a name, by key, but the one that is made of seconds."""
    return {
        result.key: {
            role: {name: score for name, score in scores.items() if name != "speed_up"}
            for role, scores in result.scores.items()
        }
        for result in results_in(root, name)
    }


@pytest.fixture
def quick(tmp_path: Path) -> Callable[..., Plan]:
    """Make plans of quick runs whose results lie in a temporary folder."""
    return lambda *overrides: plan_of(*QUICK, f"paths.root={tmp_path}", *overrides)


@pytest.fixture
def quick_method(quick: Callable[..., Plan]) -> Callable[..., Plan]:
    """Make quick plans of a method, on a request that it serves and with the record that it reads.

    It works on 10 rows per class, in batches of 8, so that small parts fill one, for 3 epochs at most.
    """

    def plan(name: str, *overrides: str) -> Plan:
        method = OmegaConf.to_container(composed_once(f"method={name}")[0].method, resolve=False)
        assert isinstance(method, dict)
        smaller = [f"method.{field}=8" for field in method if str(field).endswith("batch_size")]
        epochs = method.get("epochs")
        if isinstance(epochs, int) and epochs > 3:  # those that refer to the recipe's are few already
            smaller.append("method.epochs=3")
        chosen = [f"method={name}", *needs_record(name), *needs_scenario(name)]
        return quick("data.limit=10", "training.batch_size=8", *smaller, *chosen, *overrides)

    return plan


def batch_sizes(method: Method) -> list[str]:
    """Return the fields of a method that say how many rows a batch has."""
    return [field.name for field in fields(method) if field.name.endswith("batch_size")]  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def digits() -> Dataset:
    plan = plan_of("dataset=digits")
    return plan.source.load(plan.data_root, False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a file system of a given number of MiB, if this machine allows it, for one test."""
    mounted = []

    def mount(size: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(place)]
        try:
            if subprocess.run(command, capture_output=True).returncode:
                pytest.skip("needs the right to mount a file system")
        except OSError:
            pytest.skip("needs the mount command")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    prepare(torch.device("cpu"), threads=1)


def data_root() -> Path:
    """Return the folder where the runner looks for data sets."""
    return plan_of().data_root


def needs(relative: str) -> Any:
    """Mark a test that reads real files; no test downloads them."""
    there = (data_root() / relative).exists()
    skip = pytest.mark.skipif(not there, reason=f"{relative} is not in UNLEARN_DATA ({data_root()})")
    return lambda test: pytest.mark.real_data(skip(test))
