"""One Hydra job: run its configuration, print its table, and note its end within a sweep."""

import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from conf import Until
from data.errors import UserError
from runner.arguments import typed
from runner.compose import planned
from runner.errors import exit_with_message, message_of
from runner.last_lines import last_lines
from runner.launch.notes import (
    NAME,
    STAYS,
    WITHOUT_A_NOTE,
    Outcome,
    cells_in,
    label_of,
    name_of,
    note,
    noted,
    outcome,
)
from runner.naming import choices, folder_of, given, python_path
from runner.report import Report, show
from runner.torchrun import refuse_sweeps


def execute(cfg: DictConfig) -> None:
    """Run a composed configuration, alone or as a cell of a sweep.

    A single run prints its table. In a sweep, a failure is printed and noted in the cell's folder, and
    the other cells go on; the sweep fails when all are done.
    """
    if cfg.plan:
        raise UserError("plan=true belongs on the command line: it lists the cells of a whole command")
    hydra = HydraConfig.get()
    overrides = given(hydra)
    if hydra.mode is RunMode.RUN:
        with exit_with_message():  # before Hydra, which would print the overrides of a failed job first
            _alone(cfg, choices(hydra), overrides)
        return
    from runner.pipeline import run  # imports torch, which launching a sweep does without

    folder = Path(hydra.runtime.output_dir)
    with noted(folder):
        plan = planned(cfg, choices(hydra), overrides)
        note(folder, NAME, plan.name)
        run(plan, overrides)


def _alone(cfg: DictConfig, names: Mapping[str, str], overrides: list[str]) -> None:
    """Run a configuration and print its table; without columns, print all that the table may have."""
    from runner.columns import columns_of
    from runner.pipeline import run
    from runner.plan import Plan

    if not cfg.table.columns:
        print(columns_of(Plan.of(cfg, names)))
        return
    result = run(planned(cfg, names, overrides), overrides)
    if result is not None:
        table = Report([result], cfg.table.columns).led_by(_leading(cfg, overrides)).terminal()
        print(f"\n{result.name}, seed {result.seed}\n\n{table}")
        print(last_lines(result, cfg.paths.root, overrides))


def _leading(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Return the scores that lead the table of a command: those of metrics that it chooses and that no
    column shows."""
    if not any(each.startswith("metric=") for each in overrides):
        return []
    from runner.columns import not_shown  # imports torch

    return not_shown(cfg, overrides)


class TableAfterSweep(Callback):
    """Prints the tables of a sweep when its last cell has ended, on the machine that launched it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a sweep under torchrun, and an empty root, below which Hydra would make its folders."""
        with exit_with_message():  # Hydra turns an exception of a callback into a warning
            refuse_sweeps()
            folder_of("paths.root", config.paths.root)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table of every name in the sweep, say which cells are missing and why, and
        exit with 1 if there are any. Do nothing if jobs go on that the launcher does not wait for."""
        folder = Path(config.hydra.sweep.dir)
        ended = all(outcome(cell) is not None for cell in cells_in(folder))
        if not (ended or config.hydra.launcher.get("wait", True)):
            return
        names = sorted({name for cell in cells_in(folder) if (name := name_of(cell)) is not None})
        wrong = missing(folder)
        first = _leading(config, given(config.hydra)) if names else []
        for name in names if config.until is Until.end else []:
            if not any((Path(config.paths.root) / "results" / name).glob("*.json")):
                continue  # every cell failed, and its reason is printed already
            try:
                show(config, name, first)
            except Exception as error:
                wrong.append(message_of(error) or traceback.format_exc())
        if wrong:
            # Hydra turns an exception of a callback into a warning, but lets SystemExit pass
            sys.exit("error: " + "\n".join(wrong))


def missing(folder: Path) -> list[str]:
    """Return lines that name the cells of an ended sweep that failed, and why, and the command for
    them, but for those that diverged."""
    cells = cells_in(folder)
    ends = [(label_of(cell), outcome(cell) or Outcome(0, WITHOUT_A_NOTE)) for cell in cells]
    failed = [(label, end.failure, end.diverged) for label, end in ends if end.failure is not None]
    if not failed:
        return []
    lines = [f"{len(failed)} of {len(cells)} cells of the sweep failed:"]
    lines += [f"  {label}: {failure.strip()}" for label, failure, _ in failed]
    if any(diverged for *_, diverged in failed):
        lines.append(STAYS)
    if not all(diverged for *_, diverged in failed):
        lines.append(f"the same command makes what is missing: {command()}")
    return lines


def command(arguments: Sequence[str] | None = None) -> str:
    """Return the command of these arguments, or the one that this program was started with."""
    program = "unlearn" if Path(sys.argv[0]).name == "unlearn" else "python -m runner"
    given = typed(sys.argv[1:] if arguments is None else arguments)
    return f"{python_path(given)}{program} {shlex.join(given)}"
