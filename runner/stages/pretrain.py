"""Pretraining: the original, and the records of its training.

One training makes all of these that are absent. If the original is stored and a record is not, the
training is repeated for the record, and must end in the original's weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data.contracts import returned
from data.disk import says_full
from data.errors import UserError
from data.requests import Request
from methods.recording.files import LOST, empty
from methods.recording.recorder import (
    ROWS,
    RecordedTraining,
    Recorder,
    Stopwatch,
    check_request,
)
from methods.recording.space import require_space, unwritten
from methods.training.checkpoint import NO_CHECKPOINT
from methods.training.descent import Step
from methods.training.loop import Conditions, curves, train
from runner.plan import identities
from runner.processes import require_rows
from runner.provenance import provenance
from runner.remarks import warn_if_emulated
from runner.stages.models import fresh, save, weights, weights_of
from runner.stages.workspace import (
    COST,
    PROVENANCE,
    TOGETHER,
    Workspace,
    conditions_of,
    content_bytes,
    write,
)
from runner.store import Artefact, Making

PRETRAIN = "pretrain"

# In a record: the checksum of the weights that the recorded training ended in.
ORIGINAL_FILE = "original.json"


class RecordLost(UserError):
    """The training ended without one of its records, because the disk filled up."""


def pretrain(ws: Workspace, request: Request) -> Artefact:
    """Return the original, a fresh model trained on all rows, and make every record of its training."""
    return _trained(ws, request)[PRETRAIN]


def record(ws: Workspace, request: Request, name: str) -> Artefact:
    """Return the record of a recorder. Raise UserError if it cannot serve the request."""
    option = f"recorder.{name}"
    made = _trained(ws, request)[option]
    check_request(load_file(made.path / ROWS), request.rows, option)
    return made


def record_cost(ws: Workspace, request: Request, name: str) -> dict[str, float]:
    """Return `record_bytes`, the size of a record on disk, and `record_seconds`, the time that it adds
    to the training."""
    made = _trained(ws, request)[f"recorder.{name}"]
    return {"record_bytes": content_bytes(made), "record_seconds": made.read(COST)["seconds"]}


def _trained(ws: Workspace, request: Request) -> dict[str, Artefact]:
    """Return the original under its stage's name, and each record under its recorder's option."""
    plan = ws.plan
    wanted = {PRETRAIN: identities.wanted_original(plan)}
    for name, recorder in plan.recorders.items():
        wanted[f"recorder.{name}"] = "record", identities.record(plan, recorder)
    found = ws.get_many(
        wanted, lambda making: _train(ws, request, making), PRETRAIN, {PRETRAIN: PRETRAIN}
    )
    for option in wanted:
        if option not in found:
            raise RecordLost(
                f"{option}: the disk filled up, and the training went on without the record: "
                "the original is kept; free some space, or track less, and run again"
            )
    return found


def _train(ws: Workspace, request: Request, making: Making) -> None:
    """Train once, and store those of the original and its records that are missing."""
    folder = making.folders.get(PRETRAIN)
    recorders = {
        option: ws.plan.recorders[option.removeprefix("recorder.")]
        for option in making.folders
        if option != PRETRAIN
    }
    stored = None if folder else ws.store.find(*identities.wanted_original(ws.plan))
    if stored is not None:
        _require_its_conditions(ws, stored)
    _require_that_the_method_is_served(ws, request, recorders)
    require_rows(min(ws.plan.recipe.batch_size, len(ws.dataset.train)))
    warn_if_emulated(ws.plan, ws.store.say)
    model = fresh(ws, ws.streams(PRETRAIN))
    end = AfterLastStep(model, folder)
    streams = ws.streams(PRETRAIN)
    try:
        with (
            ws.conditions(folder, PRETRAIN, streams, None, making) as conditions,
            end.before([making.folders[option] for option in recorders]),
        ):
            _run(ws, request, model, conditions, recorders, making, end)
    except BaseException as error:
        # A complete training is stored even if one of its records failed, unless both can go on.
        if end.saved and folder is not None and not making.goes_on_after(error):
            ws.keep(making, PRETRAIN)
        raise
    if folder is not None:
        stored = ws.keep(making, PRETRAIN)
    assert stored is not None
    if recorders:  # also of an original made now: another machine may have been first with its own
        _require_its_weights(model, stored)
    for option in recorders:
        if not (making.folders[option] / LOST).exists():
            write(making.folders[option] / ORIGINAL_FILE, {"weights": weights_of(stored)})
            ws.keep(making, option)


class AfterLastStep:
    """The work after the last step of a training, to be called then: it saves the model into `folder`,
    unless that is None. `saved` is true from then on."""

    def __init__(self, model: nn.Module, folder: Path | None) -> None:
        self.model = model
        self.folder = folder
        self.reached = self.saved = False

    def __call__(self) -> None:
        self.reached = True
        if self.folder is not None:
            save(self.model, self.folder)
        self.saved = True

    @contextmanager
    def before(self, records: Sequence[Path]) -> Iterator[None]:
        """If the body fills the disk, empty these unfinished records: the finished model comes first."""
        try:
            yield
        except Exception as error:
            if says_full(error):
                for folder in records:
                    empty(folder)
                if self.reached and not self.saved:
                    self()
            raise


def _run(
    ws: Workspace,
    request: Request,
    model: nn.Module,
    conditions: Conditions,
    recorders: Mapping[str, Recorder],
    making: Making,
    end: Callable[[], None],
) -> None:
    """Take all steps of the training, watched by the recorders; call `end` after the last step.

    The time spent on recording counts as the record's cost, not as the original's.
    """
    recipe, split, team = ws.plan.recipe, ws.dataset.train, conditions.processes
    kept = conditions.checkpoint if all(each.goes_on for each in recorders.values()) else NO_CHECKPOINT
    trainings = {
        option: RecordedTraining(model, split, recipe, ws.streams("record"), making.folders[option])
        for option in recorders
    }
    watches = {option: Stopwatch(ws.plan.device) for option in recorders}
    with conditions.meter:
        with conditions.meter.paused():
            for option, recorder in recorders.items():
                recorder.check(trainings[option], option)
                ws.store.say(recorder.summary(trainings[option], option, len(request.rows)))
        require_space(recorders, trainings, _bytes_of(model) if PRETRAIN in making.folders else 0)
        try:
            with kept.training(conditions.meter) as checkpoint:
                checkpoint.reserve(unwritten(recorders, trainings))
                steps = train(model, split, recipe, conditions, checkpoint=checkpoint, processes=team)
                steps = _then(curves(steps, conditions.log, checkpoint), end)
                for option in _in_order(recorders):
                    training = replace(trainings[option], checkpoint=checkpoint, processes=team)
                    steps = _watched(steps, recorders[option], training, watches[option])
                for _ in steps:
                    pass
        finally:  # the original may be kept although a record failed
            conditions.meter.cost.seconds -= sum(watch.seconds for watch in watches.values())
    for option, watch in watches.items():
        write(making.folders[option] / COST, {"seconds": watch.seconds})


def _in_order(recorders: Mapping[str, Recorder]) -> list[str]:
    """Return the options of the recorders, the first nearest to the training.

    A recorder that goes over the rows again does so while all others still watch: a state that is
    written then holds what they have gathered.
    """
    return sorted(recorders, key=lambda option: not recorders[option].passes_after_training)


def _watched(
    steps: Iterator[Step], recorder: Recorder, training: RecordedTraining, watch: Stopwatch
) -> Iterator[Step]:
    """Return the steps watched by a recorder, whose time is counted apart."""
    training.checkpoint.add(f"seconds of {training.folder.name}", watch)
    recorded = recorder.watch(watch.excluding(steps), training)
    found = returned(recorder, "watch", recorded, Iterator, "an iterator of the steps")  # type: ignore[type-abstract]
    return watch.counting(found)


def _bytes_of(model: nn.Module) -> int:
    return sum(value.nbytes for value in model.state_dict().values())


def _then(steps: Iterator[Step], end: Callable[[], None]) -> Iterator[Step]:
    yield from steps
    end()


def _require_that_the_method_is_served(
    ws: Workspace, request: Request, recorders: Mapping[str, Recorder]
) -> None:
    """Raise UserError if the record that the method reads will not track the rows to forget."""
    option = f"recorder.{ws.plan.record_of(ws.plan.method)}"
    if option in recorders:
        check_request(recorders[option].index(ws.dataset.train), request.rows, option)


def _require_its_conditions(ws: Workspace, stored: Artefact) -> None:
    """Raise UserError if the stored original was made with other numbers of threads or processes, on
    another device, or together with others."""
    made = conditions_of(stored)
    if TOGETHER in made:
        raise UserError(
            f"the stored original trained together with others, {made[TOGETHER]} in all, and a training "
            "alone, which is recorded, ends in other last digits: set another paths.root"
        )
    here = provenance(ws.plan.device, ws.plan.threads)
    if made["threads"] != here["threads"]:
        raise UserError(
            f"the stored original was made with threads={made['threads']}, and its training is recorded "
            f"with the same: set threads={made['threads']}, or another paths.root"
        )
    if made["processes"] != here["processes"]:
        raise UserError(
            f"the stored original was trained by {made['processes']} processes, and its training is "
            "recorded by as many: start them with torchrun's --nproc-per-node, or set another paths.root"
        )
    if made["device"] != here["device"]:
        raise UserError(
            f"the stored original was made on {made['device']}, this run is on {here['device']}, and a "
            "training is recorded where it was made: run there, or set another paths.root"
        )


def _require_its_weights(model: nn.Module, stored: Artefact) -> None:
    """Raise UserError if a repeated training did not end in the weights of the stored original."""
    wanted: dict[str, Tensor] = weights(stored.path)
    found = model.state_dict()
    if any(not torch.equal(found[name].cpu(), wanted[name]) for name in wanted):
        made = stored.read(PROVENANCE)
        raise UserError(
            "the recorded training did not end in the weights of the stored original, which was made by "
            f"torch {made['torch']} on {made['machine']}, threads={made['threads']}: record it there, "
            "or set another paths.root"
        )
