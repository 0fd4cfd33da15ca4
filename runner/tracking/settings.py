"""Settings of W&B: checked before any work. Its environment variables count where no option is given."""

import os
from typing import TYPE_CHECKING, Any

from conf import Mode, Tracking
from data.errors import UserError

if TYPE_CHECKING:  # a plan checks its settings here
    from runner.plan import Plan

# W&B's rules for the name of a project.
FORBIDDEN, LONGEST = "/\\#?%:", 128

# Words that W&B takes in WANDB_MODE: ours, and former ones.
MODES = (*Mode.__members__, "dryrun", "run", "shared")

# The option that an environment variable sets where the option is not given.
VARIABLE = {"project": "WANDB_PROJECT", "entity": "WANDB_ENTITY"}


def check_settings(settings: Tracking) -> None:
    """Raise UserError if W&B would refuse the project, the entity, or the mode in WANDB_MODE."""
    if not settings.enabled:
        return
    for option, name in (("project", settings.project), ("entity", settings.entity)):
        if name is not None and (not 0 < len(name) <= LONGEST or set(name) & set(FORBIDDEN)):
            raise UserError(
                f"tracking.{option}={name}: write a name of 1 to {LONGEST} characters without "
                f"{' '.join(FORBIDDEN)}, here or in {VARIABLE[option]}; the user or team is "
                "tracking.entity"
            )
    mode = os.environ.get("WANDB_MODE")
    if settings.mode is None and mode and mode not in MODES:
        known = ", ".join(Mode.__members__)
        raise UserError(f"WANDB_MODE={mode}: set it to one of {known}, or set tracking=off")


def mode_of(settings: Tracking) -> str:
    """Return the mode of the client: the option, else WANDB_MODE, else offline.

    An agent of a sweep works for a server, so its runs are online unless told otherwise.
    """
    if settings.mode:
        return settings.mode.value
    return os.environ.get("WANDB_MODE") or ("online" if "WANDB_SWEEP_ID" in os.environ else "offline")


def labels(plan: "Plan", title: str) -> dict[str, Any]:
    """Return the name, the tags, the group and the folder of a run, by the arguments of `wandb.init`.

    WANDB_NAME, WANDB_TAGS, WANDB_RUN_GROUP and WANDB_DIR come before what the plan says. The client
    reads its environment once in a process, so it is read here, for each run.
    """
    given = os.environ.get
    tags = [tag.strip() for tag in given("WANDB_TAGS", "").split(",")]
    folder = given("WANDB_DIR") or plan.root
    return {
        "name": given("WANDB_NAME") or title,
        "tags": [tag for tag in tags if tag] or [plan.names["dataset"], plan.names["model"]],
        "group": given("WANDB_RUN_GROUP") or plan.name,
        "dir": folder,
    }
