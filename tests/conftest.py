"""Small real runs: everything here works on scikit-learn's digits, with a small network."""

import subprocess
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class

import conf
from data.requests import Request
from data.split import Dataset
from methods.base import Method, Problem
from methods.training.loop import Conditions
from metrics.predictions import Predictions
from runner import stages
from runner.compose import composed
from runner.plan import Plan
from runner.plan.checks import check_request
from runner.process import prepare
from runner.stages import Workspace
from runner.stages.unlearn import problem
from runner.store import Artefact, Store
from runner.tracking import Tracker

CONF = Path(conf.__file__).parent

# A run in a tenth of a second: 20 rows per class, a narrow network, one epoch.
QUICK = [
    "data.limit=20",
    "model.widths=[4,8]",
    "model.hidden=16",
    "training.epochs=1",
    "training.warmup=0",
    "tracking=off",
    "threads=1",
]


def options(group: str) -> list[str]:
    """The choices of a configuration group; names with a leading underscore are shared parts."""
    return sorted(p.stem for p in (CONF / group).glob("*.yaml") if not p.stem.startswith("_"))


def needs_record(method: str) -> list[str]:
    """The recorder that a method of conf/method reads, as an override."""
    records = get_class(composed([f"method={method}"])[0].method._target_).records
    return [] if records is None else [f"recorder=[{records.kind.split('.')[-2]}]"]


def needs_scenario(method: str) -> list[str]:
    """A request that a method serves, as an override, where it does not serve every one."""
    requests = catalogue()[method]["requests"]
    return [] if requests == "any" else [f"scenario={requests.split(',')[0].strip('` ')}"]


def catalogue() -> dict[str, dict[str, str]]:
    """The table of methods/README.md: a line per method, by the head of the column."""
    lines = (CONF.parent / "methods" / "README.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    heads = table[0]
    rows = [dict(zip(heads, cells, strict=True)) for cells in table[2:]]
    return {row["method"].strip("`"): row for row in rows}


def plan_of(*overrides: str) -> Plan:
    return Plan.of(*composed(list(overrides)))


@pytest.fixture
def quick(tmp_path: Path) -> Callable[..., Plan]:
    """Makes plans of quick runs whose results lie in a temporary folder."""
    return lambda *overrides: plan_of(*QUICK, f"paths.root={tmp_path}", *overrides)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    plan = plan_of("dataset=digits")
    return plan.source.load(plan.data_root, False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many MiB, where this machine lets us; it is gone after the test."""
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


class Stages:
    """The stages of one plan, with the request at hand."""

    def __init__(self, plan: Plan, store: Store | None = None, tracker: Tracker | None = None) -> None:
        self.plan = plan
        self.store = store or Store(plan.root / "store")
        self.workspace = Workspace(plan, self.store, tracker or Tracker())
        self.streams = self.workspace.streams

    @cached_property
    def request(self) -> Request:
        request, facts = stages.request(self.workspace)
        check_request(self.plan, facts)
        return request

    @property
    def dataset(self) -> Dataset:
        return self.workspace.dataset

    @property
    def used(self) -> list[Artefact]:
        return self.workspace.used

    def pretrain(self) -> Artefact:
        return stages.pretrain(self.workspace, self.request)

    def record(self, name: str) -> Artefact:
        return stages.record(self.workspace, self.request, name)

    def unlearn(self, original: Artefact) -> Artefact:
        return stages.unlearn(self.workspace, self.request, original)

    def repair(self, method: Method, unlearned: Artefact) -> Artefact:
        return stages.repair(self.workspace, self.request, unlearned, method)

    def initial_training(self, method: Method) -> Artefact | None:
        return stages.initial_training(self.workspace, self.request, method)

    def predictions(self, made: Artefact, maker: Method | None = None) -> Predictions:
        return stages.predictions(self.workspace, self.request, made, maker)

    def problem(self, method: Method, original: Artefact, conditions: Conditions) -> Problem:
        return problem(self.workspace, self.request, method, original, conditions)


def stages_of(plan: Plan) -> Stages:
    return Stages(plan)


def data_root() -> Path:
    """Where the runner itself looks."""
    return plan_of().data_root


def needs(relative: str) -> Any:
    """Marks a test that reads real files; they are never downloaded by a test."""
    there = (data_root() / relative).exists()
    skip = pytest.mark.skipif(not there, reason=f"{relative} is not in UNLEARN_DATA ({data_root()})")
    return lambda test: pytest.mark.real_data(skip(test))
