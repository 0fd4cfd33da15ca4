"""A sweep that is killed at random moments, and what that costs it.

    python -m tests.killing …

is `python -m runner …` that notes the end of each step of its trainings in the file that `STEPS` names.
"""

import os
import random
import runpy
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from runner.stages.checkpoint import StoredCheckpoint
from runner.store import Store
from tests.conftest import digits_of
from tests.forked import run_module, start_module

STEPS = "UNLEARN_TEST_STEPS"

# The seconds at which the steps of trainings ended, by training and number of the step.
Ends = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Killed:
    """What `kills` did to a sweep that was said again after each.

    Of its `results`, `differing` have other digits than those of the undisturbed sweep. Of its `stages`,
    `twice` were finished and made again. `lost` is the longest training, in seconds, that one kill took.
    """

    kills: int
    results: int
    differing: int
    stages: int
    twice: int
    lost: float


def killed(sweep: Sequence[str], kills: int, seed: int, folder: Path) -> Killed:
    """Kill all processes of a sweep at random moments, and compare its end with an undisturbed one's.

    Most of the sweep lies between the first and the last kill. If it ends before, there are fewer.
    """
    undisturbed, root = folder / "undisturbed", folder / "killed"
    whole, again = (_seconds(sweep, undisturbed) for _ in range(2))
    moments, real, twice, attempts = random.Random(seed), 0, 0, []
    before: dict[Path, int] = {}
    for number in range(kills + 1):
        notes = folder / f"steps{number}"
        last = number == kills
        life = None if last else moments.uniform(0, 1.6) * (whole / kills + again)
        real += _attempt(sweep, root, notes, life)
        after = finished(root)
        twice += sum(after.get(path) != made for path, made in before.items())
        before = after
        attempts.append(_ends(notes))
    there, here = digits_of(undisturbed), digits_of(root)
    differing = sum(there.get(key) != here.get(key) for key in there.keys() | here.keys())
    assert {path.name for path in before} == {path.name for path in finished(undisturbed)}
    return Killed(real, len(there), differing, len(before), twice, lost(attempts))


def finished(root: Path) -> dict[Path, int]:
    """Return the time at which each finished artefact was made."""
    made = Store(root / "store").artefacts()
    return {each.path: (each.path / "checksums.json").stat().st_mtime_ns for each in made}


def lost(attempts: Sequence[Ends]) -> float:
    """Return the most seconds of one training that were in vain: a later attempt repeated its steps."""
    trainings = {training for ends in attempts for training in ends}
    found = [0.0]
    for training in trainings:
        at_work = [ends[training] for ends in attempts if training in ends]
        for earlier, later in pairwise(at_work):
            vain = [end for number, end in earlier.items() if number >= min(later)]
            kept = [end for number, end in earlier.items() if number < min(later)]
            if vain:
                found.append(max(vain) - max(kept, default=min(vain)))
    return max(found)


def _seconds(sweep: Sequence[str], root: Path) -> float:
    start = time.monotonic()
    done = run_module("runner", *sweep, f"paths.root={root}")
    assert done.returncode == 0, done.stderr
    return time.monotonic() - start


def _attempt(sweep: Sequence[str], root: Path, notes: Path, life: float | None) -> bool:
    """Run the sweep for so many seconds, None to its end; return whether it was killed."""
    streams = {name: notes.with_suffix(f".{name}") for name in ("out", "err")}
    process = start_module(
        "tests.killing", *sweep, f"paths.root={root}", environment={STEPS: str(notes)}, **streams
    )
    process.join(life)
    if not process.is_alive():
        assert process.exitcode == 0, streams["err"].read_text()
        return False
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return True


def _ends(notes: Path) -> Ends:
    """Return what an attempt has noted; its last line may be torn."""
    found: Ends = {}
    for line in notes.read_text().split("\n")[:-1] if notes.exists() else []:
        training, number, end = line.split()
        found.setdefault(training, {})[int(number)] = float(end)
    return found


def _note_steps(notes: Path) -> None:
    """Note the end of each step, before its state may be written."""
    ended, file = StoredCheckpoint.step_ended, notes.open("a", buffering=1)

    def step_ended(self: StoredCheckpoint) -> None:
        training = f"{self._making.lead.stage}/{self._making.lead.key}/{self._number}"
        number = self._own["place"].state_dict()["number"]
        file.write(f"{training} {number} {time.monotonic()}\n")
        ended(self)

    StoredCheckpoint.step_ended = step_ended  # type: ignore[method-assign]


if __name__ == "__main__":
    _note_steps(Path(os.environ[STEPS]))
    runpy.run_module("runner", run_name="__main__", alter_sys=True)
