"""The time that a command takes before and beside its work."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runner.bench import Figure, seconds


def figures() -> Iterator[Figure]:
    """Measure the help and the default job, cold and stored, beside the imports that they need."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "outputs"
        run = ("-m", "runner", f"paths.root={store}")

        def cold() -> None:
            shutil.rmtree(store, ignore_errors=True)
            python(*run)

        nothing, libraries, help_, made, stored = seconds(
            lambda: python("-c", "pass"),
            lambda: python("-c", "import torch, hydra, wandb, pandas"),
            lambda: python("-m", "runner", "--help"),
            cold,
            lambda: python(*run),
            repeats=3,
        )
    yield Figure("python -m runner --help", help_, "s", "python -c pass", nothing)
    imports = "import torch, hydra, wandb, pandas"
    yield Figure("default job, cold store", made, "s", imports, libraries)
    yield Figure("default job, everything stored", stored, "s", imports, libraries)


def python(*arguments: str) -> None:
    """Run a fresh interpreter that may keep its byte code, as on a user's machine."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
