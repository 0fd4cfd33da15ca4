"""Commands in processes forked from one that has imported torch and Hydra already.

A fresh interpreter takes seconds to import them, a fork none; it is a process all the same, with its
output, its exit code, and an end by a signal.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent

CONTEXT = multiprocessing.get_context("forkserver")
# What a default run imports. torch would import its compiler at the first metered step.
RUN = ["runner.sweep", "runner.report", "runner.columns", "models.small_cnn", "torch._dynamo"]
EVALUATED = ["metrics.closeness", "metrics.mia_loss", "metrics.rmia", "metrics.trade_off"]
LEARNERS = ["sklearn.datasets", "sklearn.linear_model", "sklearn.pipeline", "sklearn.svm"]
CONTEXT.set_forkserver_preload(["tests.forked", *RUN, *EVALUATED, *LEARNERS])


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def fresh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter, for what a fork would hide."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def run_module(module: str, *arguments: str, cwd: Path = ROOT, **environment: str) -> Done:
    """Run `python -m module arguments` in a folder to its end."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = start_module(module, *arguments, out=out, err=err, environment=environment, cwd=cwd)
        process.join()
        assert process.exitcode is not None
        return Done(process.exitcode, out.read_text(), err.read_text())


def start_module(
    module: str,
    *arguments: str,
    out: Path,
    err: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> ForkServerProcess:
    """Start `python -m module arguments` as the leader of a process group, and return the process."""
    whole = {**os.environ, **(environment or {})}
    process = CONTEXT.Process(target=_work, args=(module, list(arguments), whole, out, err, cwd))
    process.start()
    return process


def _work(
    module: str, arguments: list[str], environment: Mapping[str, str], out: Path, err: Path, cwd: Path
) -> None:
    """Become `python -m module arguments`."""
    os.setsid()
    # a suite in the background ignores the first, and one under nohup the second
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(cwd)
    for descriptor, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = [module, *arguments]
    # runpy warns of modules that are imported already
    warnings.simplefilter("ignore", RuntimeWarning)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
