"""Start and end of W&B runs. Whatever happens to W&B, the run itself goes on."""

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.last_lines import of_results
from runner.store import fingerprint
from runner.tracking.describe import described, title
from runner.tracking.offline import complete, in_use, keep_one
from runner.tracking.settings import labels, mode_of
from runner.tracking.tracker import Tracker, WandbTracker

if TYPE_CHECKING:  # a plan checks its settings in this package
    from runner.plan import Plan

Say = Callable[[str], None]
Fail = Callable[[Exception], None]
Made = Mapping[str, Any]

# Servers that did not take a run of this process. Each is asked once: an answer can take a minute.
refused: set[str] = set()


@contextmanager
def track(
    plan: "Plan", overrides: Sequence[str], say: Say, made_by: Made | None = None
) -> Iterator[Tracker]:
    """Yield a tracker of the run, which has `written` a W&B run only after the body: then the run is
    closed, as failed if the body raises.

    `made_by` is the provenance of the result; None for that of this process.

    If W&B does not start or breaks off, `say` receives a sentence that names the cure. A run that the
    server does not take is written offline.
    """
    if not plan.tracking.enabled:
        yield Tracker()
        return
    from runner.provenance import provenance  # imports torch, which checking the settings does without

    with _quiet(), ExitStack() as kept:
        config = described(plan, overrides, made_by or provenance(plan.device, plan.threads))
        run = _started(plan, title(plan, overrides), config, say)
        if run is None:
            yield Tracker()
            return
        tracker = WandbTracker(run, plan.source.class_names, lambda error: say(_broken(plan, error)))
        folder = Path(run.settings.sync_dir) if run.offline else None
        if folder is not None:
            kept.enter_context(in_use(folder))
        done = False
        try:
            yield tracker
            done = True
        finally:  # not `with run`, which would print a traceback
            _end(run, folder, 0 if done else 1, tracker.fail)


def _started(plan: "Plan", name: str, config: Made, say: Say) -> Any:
    """Return a new W&B run, or None if the client cannot write one."""
    mode, server = mode_of(plan.tracking), os.environ.get("WANDB_BASE_URL", "")
    online = mode not in ("offline", "dryrun", "disabled")
    if online and server not in refused:
        try:
            return _initialised(plan, name, config, mode)
        except Exception as error:  # the client raises what its server and its parser raise
            refused.add(server)
            _forget()
            say(
                f"W&B did not take the run ({reason_of(error)}), so it is written offline, and "
                f"`wandb sync` uploads it: check the network, `wandb login` and tracking.entity, or set "
                "tracking.mode=offline"
            )
    try:
        return _initialised(plan, name, config, "offline" if online else mode)
    except Exception as error:
        say(
            f"W&B did not start ({reason_of(error)}), so this run is not tracked: free some space, name "
            f"another folder in WANDB_DIR, or set tracking=off; {_later(plan)}"
        )
        return None


def _initialised(plan: "Plan", name: str, config: Made, mode: str) -> Any:
    """Return a W&B run. The same plan has the same id again, so that its run continues."""
    import wandb

    settings = plan.tracking
    return wandb.init(
        project=settings.project,
        entity=settings.entity,
        job_type=plan.names["method"],
        config=dict(config),
        id=fingerprint([plan.key, plan.name, settings.salt]),
        resume="allow",
        mode=mode,  # type: ignore[arg-type]
        settings=wandb.Settings(silent=True, console="off"),
        **labels(plan, name),
    )


def _forget() -> None:
    """Stop the client's own process, which holds the id of a run that did not start as in use."""
    import wandb

    with suppress(Exception):
        wandb.teardown()


def _end(run: Any, folder: Path | None, code: int, fail: Fail) -> None:
    """Close a W&B run. Of an offline one, keep one folder, and say if the client lost a part of it."""
    try:
        run.finish(exit_code=code)
    except Exception as error:  # a broken client must not hide what the body raised
        fail(error)
        return
    if folder is None:
        return
    if complete(folder):
        keep_one(folder, run.id)
    else:
        fail(OSError(f"{folder} is incomplete, as on a full disk"))


def _broken(plan: "Plan", error: Exception) -> str:
    return (
        f"W&B broke off ({reason_of(error)}), and the run goes on without it: free some space or check "
        f"the network; {_later(plan)}"
    )


def _later(plan: "Plan") -> str:
    named = shlex.join(of_results(plan.name, str(plan.root)))
    return f"`python -m runner.tracking push {named}` tracks it later"


def reason_of(error: Exception) -> str:
    """Return the first lines of an error of W&B, as one."""
    return "; ".join(line.strip() for line in str(error).splitlines()[:3])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client's log from printing a traceback for each line that it cannot write."""
    before = logging.raiseExceptions
    logging.raiseExceptions = False
    try:
        yield
    finally:
        logging.raiseExceptions = before
