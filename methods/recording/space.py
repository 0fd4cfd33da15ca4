"""The room on the disk of the records of one training."""

from collections.abc import Callable, Mapping
from pathlib import Path

from data.disk import free_bytes
from data.errors import UserError
from methods.recording.estimates import in_words
from methods.recording.files import COPIES
from methods.recording.recorder import RecordedTraining, Recorder


def bytes_in(folder: Path) -> int:
    """Return the bytes of a record's files, without the copies that states of the training have."""
    files = (file for file in folder.iterdir() if file.is_file() and file.suffix not in COPIES)
    return sum(file.stat().st_size for file in files)


def unwritten(
    recorders: Mapping[str, Recorder], trainings: Mapping[str, RecordedTraining]
) -> Callable[[], int]:
    """Return a function of the bytes that the records of one training will still write, as expected."""
    sizes = _sizes(recorders, trainings)

    def left() -> int:
        return sum(max(0, size - bytes_in(trainings[option].folder)) for option, size in sizes.items())

    return left


def require_space(
    recorders: Mapping[str, Recorder], trainings: Mapping[str, RecordedTraining], model: int
) -> None:
    """Raise UserError if the records of one training, and the `model` bytes of what it trains, do not
    fit on their disk together.

    Both mappings are by the recorder's option. `model` is 0 if the model is stored already. The message
    names settings that fit, of one recorder: the one with the largest record that a setting can make
    small enough.
    """
    if not recorders:
        return
    sizes = _sizes(recorders, trainings)
    # what a killed training has written already takes no more space
    written = sum(bytes_in(each.folder) for each in trainings.values())
    free = written + min(free_bytes(each.folder) for each in trainings.values())
    total = sum(sizes.values()) + model
    if total <= free:
        return
    cures: list[str] = []
    for option in sorted(sizes, key=lambda option: sizes[option], reverse=True):
        others = total - sizes[option]
        cures = cures or list(recorders[option].cures(trainings[option], free - others, option))
    cures = [*(cures or ["a smaller model (model=…)"]), "another disk (paths.root=…)"]
    names = [*sizes, *(["the model"] if model else [])]
    raise UserError(
        f"{' and '.join(names)} would write {in_words(total)}, but {in_words(free)} are free: "
        f"set {', or '.join(cures)}"
    )


def _sizes(
    recorders: Mapping[str, Recorder], trainings: Mapping[str, RecordedTraining]
) -> dict[str, int]:
    return {
        option: recorder.estimated_bytes(trainings[option]) for option, recorder in recorders.items()
    }
