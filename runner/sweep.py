"""One Hydra job: run its configuration, print its table, and note its failure within a sweep."""

import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from conf import Until
from runner.compose import planned
from runner.ending import last_lines
from runner.errors import exit_with_message, message_of, wants_traceback
from runner.naming import choices, folder_of
from runner.report import Report, show

# Files that a job of a sweep leaves in its folder, to be read at the end of the sweep.
FAILURE, NAME = "failure.txt", "name.txt"


def execute(cfg: DictConfig) -> None:
    """Run a composed configuration, alone or as a job of a sweep.

    A single run prints its table. In a sweep, a failure is printed and noted in the job's folder, and
    the other jobs go on; the sweep fails when all are done.
    """
    from runner.pipeline import run  # imports torch, which launching a sweep does without

    hydra = HydraConfig.get()
    overrides = OmegaConf.to_container(hydra.overrides.task)  # with the ${…} that they have
    assert isinstance(overrides, list)
    if hydra.mode is RunMode.RUN:
        with exit_with_message():  # before Hydra, which would print the overrides of a failed job first
            result = run(planned(cfg, choices(hydra), overrides), overrides)
            if result is not None:
                table = Report([result], cfg.table.columns).terminal()
                print(f"\n{result.name}, seed {result.seed}\n\n{table}")
                print(last_lines(result, cfg.paths.root, overrides))
        return
    folder = Path(hydra.runtime.output_dir)
    try:
        plan = planned(cfg, choices(hydra), overrides)
        (folder / NAME).write_text(plan.name)
        run(plan, overrides)
    except Exception as error:
        message = None if wants_traceback() else message_of(error)
        text = message or traceback.format_exc()
        print(f"failed: {' '.join(overrides)}: {text}", file=sys.stderr, flush=True)
        (folder / FAILURE).write_text(text)


class TableAfterSweep(Callback):
    """Prints the tables of a sweep when its last job is done, on the machine that launched it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse an empty root, below which Hydra would make the folders of the sweep."""
        with exit_with_message():  # Hydra turns an exception of a callback into a warning
            folder_of("paths.root", config.paths.root)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table of every name in the sweep, and exit with 1 if a job failed."""
        folder = Path(config.hydra.sweep.dir)
        names = sorted({path.read_text() for path in folder.glob(f"*/{NAME}")})
        failed = sorted(folder.glob(f"*/{FAILURE}"))
        wrong = [f"{len(failed)} runs of the sweep failed, as told above"] if failed else []
        for name in names if config.until is Until.end else []:
            if not any((Path(config.paths.root) / "results" / name).glob("*.json")):
                continue  # every job failed, and its reason is printed already
            try:
                show(config, name)
            except Exception as error:
                wrong.append(message_of(error) or traceback.format_exc())
        if wrong:
            # Hydra turns an exception of a callback into a warning, but lets SystemExit pass
            sys.exit("error: " + "\n".join(wrong))
