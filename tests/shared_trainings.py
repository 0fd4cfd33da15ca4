"""Trainings that the processes of torchrun share, as `tests/test_processes.py` starts them."""

import sys
from pathlib import Path

from runner.pipeline import run
from runner.processes import TEAM
from tests.conftest import plan_of, stages_of
from tests.test_resume import interrupted

# 200 rows in batches of 66, 66, 66 and 2: the third of three processes has no row of the last one.
TRAINED = [
    "data.limit=20",
    "dataset.crop=1",
    "model.widths=[4,8]",
    "model.hidden=16",
    "training.epochs=2",
    "training.batch_size=66",
    "training.momentum=0.9",
    "training.warmup=1",
    "training.schedule=cosine",
    "method.epochs=1",
    "tracking=off",
    "threads=1",
    "evaluation.references=1",
]

SHARED = [*TRAINED, "recorder=[per_sample,batch_updates]", "recorder.per_sample.dtype=fp32"]


def main(folder: Path) -> None:
    """Below a folder, make the store `whole` of an undisturbed run; `resumed`, of one that a signal ends
    at the sixth step; and `later`, of one that is recorded after its training."""
    run(plan_of(*SHARED, f"paths.root={folder / 'whole'}"))
    resumed = plan_of(*SHARED, f"paths.root={folder / 'resumed'}")
    interrupted(lambda plan: stages_of(plan).pretrain(), resumed, at=6)
    stages_of(resumed).pretrain()
    later = f"paths.root={folder / 'later'}"
    stages_of(plan_of(*TRAINED, later)).pretrain()
    stages_of(plan_of(*SHARED, later)).pretrain()


if __name__ == "__main__":
    with TEAM.gathered() as leads:
        if leads:
            main(Path(sys.argv[1]))
