"""W&B, or nothing, behind one small class. A mirror: no table is ever read from it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from data.errors import UserError
from metrics.predictions import Scores, matrices, numbers
from runner.plan import Plan, identities
from runner.plan.identities import flat
from runner.store import fingerprint

# Curves of `evaluation.every` stand apart: they have an axis of their own.
SCORED = "scores"


class Tracker:
    """Tracks nothing."""

    def curve(self, stage: str, values: Mapping[str, float]) -> None:
        """One point of a stage's curves, e.g. an epoch's loss."""

    def result(self, scores: Mapping[str, Scores], costs: Mapping[str, Mapping[str, float]]) -> None:
        """The scores and costs of the models by role (see `Row`)."""


class WandbTracker(Tracker):
    """Writes to a W&B run that `track` opened and closes."""

    def __init__(self, run: Any) -> None:
        self.run = run
        for stage in ("pretrain", "before", "unlearn", "repair", "reference"):
            for group, step in ((stage, "epoch"), (f"{stage}_{SCORED}", "pass")):
                run.define_metric(f"{group}/{step}", hidden=True)
                run.define_metric(f"{group}/*", step_metric=f"{group}/{step}")

    def curve(self, stage: str, values: Mapping[str, float]) -> None:
        group = f"{stage}_{SCORED}" if "pass" in values else stage
        self.run.log({f"{group}/{name}": value for name, value in values.items()})

    def result(self, scores: Mapping[str, Scores], costs: Mapping[str, Mapping[str, float]]) -> None:
        import wandb

        lines = {role: numbers(found) | dict(costs[role]) for role, found in scores.items()}
        for role, line in lines.items():
            prefix = "" if role == "unlearned" else f"{role}/"
            self.run.summary.update({prefix + name: value for name, value in line.items()})
        if "reference" in scores:
            own, other = numbers(scores["unlearned"]), numbers(scores["reference"])
            self.run.summary.update({f"gap/{name}": own[name] - other[name] for name in own})
        columns = list(lines["unlearned"])
        data: list[Iterable[Any]] = [
            [role, *(line.get(name) for name in columns)] for role, line in lines.items()
        ]
        table = wandb.Table(columns=["model", *columns], data=data)
        caption = "true class downwards, predicted class to the right"
        pictures = {
            f"{name}/{role}": wandb.Image(_picture(matrix), caption=caption)
            for role, found in scores.items()
            for name, matrix in matrices(found).items()
        }
        self.run.log({"result": table, **pictures})


@contextmanager
def track(plan: Plan) -> Iterator[Tracker]:
    """A tracker whose run is closed with the body, also when the body fails."""
    if not plan.tracking.enabled:
        yield Tracker()
        return
    import os

    import wandb

    names = plan.names
    settings = plan.tracking
    try:
        run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=plan.name,
            job_type=names["method"],
            name=f"{names['method']}/{names['scenario']}/s{plan.seed}",
            tags=[names["dataset"], names["model"]],
            config=flat(identities.repair(plan) or identities.own(plan)),
            id=fingerprint([plan.key, plan.name, settings.salt]),
            resume="allow",
            mode=settings.mode.value if settings.mode else os.environ.get("WANDB_MODE") or "offline",  # type: ignore[arg-type]
            dir=plan.root,
            settings=wandb.Settings(silent=True, console="off"),
        )
    except (wandb.Error, ValueError) as error:  # a word in WANDB_MODE that is no mode is a ValueError
        reason = "; ".join(line.strip() for line in str(error).splitlines()[:3])
        raise UserError(
            f"W&B refused ({reason}); run `wandb login`, or set tracking.mode=offline or tracking=off"
        ) from error
    done = False
    try:
        yield WandbTracker(run)
        done = True
    finally:  # not `with run`, which would print a traceback
        run.finish(exit_code=0 if done else 1)


def _picture(counts: Any) -> Any:
    """A confusion matrix as a grey image, (16 K, 16 K): the darker, the larger the share of the true
    class."""
    import numpy as np

    shares = np.asarray(counts, dtype=float)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    return np.kron(np.rint(255 * (1 - shares)), np.ones((16, 16))).astype(np.uint8)
