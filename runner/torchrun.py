"""torchrun, which starts one command in several processes (see `runner.processes`)."""

import os

from data.errors import UserError


def several() -> bool:
    """Return whether torchrun started several processes, of which this is one."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def refuse_sweeps() -> None:
    """Raise UserError for a sweep under torchrun."""
    if several():
        raise UserError(
            "torchrun shares the trainings of one run among its processes, and this is a sweep: leave "
            "out --multirun and the values after the first, or start the sweep with python -m runner"
        )
