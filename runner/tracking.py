"""Tracking by W&B, or none. W&B mirrors a run; no table reads anything from it."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from conf import Mode, Tracking
from data.errors import UserError
from metrics.metric import Scores, matrices, numbers
from runner.roles import REFERENCE, ROLES, UNLEARNED
from runner.store import fingerprint

if TYPE_CHECKING:  # a plan checks its settings here
    from runner.plan import Plan

# The suffix of the curves of `evaluation.every`, whose axis is the number of passes.
SCORED = "scores"

# The matrix that is tracked as an image.
CONFUSION = "confusion"

# W&B's rules for the name of a project.
FORBIDDEN, LONGEST = "/\\#?%:", 128

# Words that W&B takes in WANDB_MODE: ours, and former ones.
MODES = (*Mode.__members__, "dryrun", "run", "shared")


def check_settings(settings: Tracking) -> None:
    """Raise UserError if W&B would refuse the project, the entity, or the mode in WANDB_MODE."""
    if not settings.enabled:
        return
    for option, name in (("project", settings.project), ("entity", settings.entity)):
        if name is not None and (not 0 < len(name) <= LONGEST or set(name) & set(FORBIDDEN)):
            raise UserError(
                f"tracking.{option}={name}: write a name of 1 to {LONGEST} characters without "
                f"{' '.join(FORBIDDEN)}; the user or team is tracking.entity"
            )
    mode = os.environ.get("WANDB_MODE")
    if settings.mode is None and mode and mode not in MODES:
        known = ", ".join(Mode.__members__)
        raise UserError(f"WANDB_MODE={mode}: set it to one of {known}, or set tracking=off")


class Tracker:
    """A tracker that tracks nothing."""

    def curve(self, stage: str, values: Mapping[str, float]) -> None:
        """Track one point of a stage's curves, such as the loss of an epoch."""

    def result(self, scores: Mapping[str, Scores], costs: Mapping[str, Mapping[str, float]]) -> None:
        """Track the scores and the costs of the run's models, by the names of their roles."""


class WandbTracker(Tracker):
    """A tracker that writes to a W&B run, which `track` opens and closes."""

    def __init__(self, run: Any) -> None:
        self.run = run
        for role in ROLES:
            for group, step in ((role.curves, "epoch"), (f"{role.curves}_{SCORED}", "pass")):
                run.define_metric(f"{group}/{step}", hidden=True)
                run.define_metric(f"{group}/*", step_metric=f"{group}/{step}")

    def curve(self, stage: str, values: Mapping[str, float]) -> None:
        group = f"{stage}_{SCORED}" if "pass" in values else stage
        self.run.log({f"{group}/{name}": value for name, value in values.items()})

    def result(self, scores: Mapping[str, Scores], costs: Mapping[str, Mapping[str, float]]) -> None:
        import wandb

        lines = {role: numbers(found) | dict(costs[role]) for role, found in scores.items()}
        for role, line in lines.items():
            prefix = "" if role == UNLEARNED.name else f"{role}/"
            self.run.summary.update({prefix + name: value for name, value in line.items()})
        if REFERENCE.name in scores:
            own, other = numbers(scores[UNLEARNED.name]), numbers(scores[REFERENCE.name])
            both = [name for name in own if name in other]
            self.run.summary.update({f"gap/{name}": own[name] - other[name] for name in both})
        columns = list(lines[UNLEARNED.name])
        data: list[Iterable[Any]] = [
            [role, *(line.get(name) for name in columns)] for role, line in lines.items()
        ]
        table = wandb.Table(columns=["model", *columns], data=data)
        caption = "true class downwards, predicted class to the right"
        pictures = {
            f"{name}/{role}": wandb.Image(_picture(matrix), caption=caption)
            for role, found in scores.items()
            for name, matrix in matrices(found).items()
            if name == CONFUSION
        }
        self.run.log({"result": table, **pictures})


@contextmanager
def track(plan: "Plan") -> Iterator[Tracker]:
    """Yield a tracker of the run. Its W&B run is closed after the body, as failed if the body raises.

    Raise UserError if W&B does not start.
    """
    if not plan.tracking.enabled:
        yield Tracker()
        return
    run = _started(plan)
    done = False
    try:
        yield WandbTracker(run)
        done = True
    finally:  # not `with run`, which would print a traceback
        run.finish(exit_code=0 if done else 1)


def _started(plan: "Plan") -> Any:
    """Return a new W&B run. The same plan has the same id again, so that its run continues."""
    import wandb

    names = plan.names
    settings = plan.tracking
    mode = settings.mode.value if settings.mode else os.environ.get("WANDB_MODE") or "offline"
    try:
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=plan.name,
            job_type=names["method"],
            name=f"{names['method']}/{names['scenario']}/s{plan.seed}",
            tags=[names["dataset"], names["model"]],
            config=plan.parameters,
            id=fingerprint([plan.key, plan.name, settings.salt]),
            resume="allow",
            mode=mode,  # type: ignore[arg-type]
            dir=plan.root,
            settings=wandb.Settings(silent=True, console="off"),
        )
    except (wandb.Error, ValueError) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[:3])
        raise UserError(
            f"W&B did not start ({reason}): run `wandb login` if it wants a key, or set "
            "tracking.mode=offline or tracking=off"
        ) from error


def _picture(counts: Any) -> Any:
    """Return a confusion matrix (K, K) as a grey image (16 K, 16 K), uint8.

    A square is the darker, the larger its share of the true class.
    """
    import numpy as np

    shares = np.asarray(counts, dtype=float)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    return np.kron(np.rint(255 * (1 - shares)), np.ones((16, 16))).astype(np.uint8)
