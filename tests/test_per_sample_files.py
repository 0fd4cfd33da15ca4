"""The files of per-sample records, bit for bit; the memory and the thread that they are written from."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data.errors import UserError
from data.streams import Streams
from methods.recording import files
from methods.recording.estimates import in_words
from methods.recording.files import EntryFile, Writer, intact
from methods.recording.per_sample import Attribution, FactorType, Form, PerSample, recorder, ring
from methods.recording.per_sample.layout import TYPES
from methods.recording.per_sample.packing import Packer
from methods.recording.recorder import LOST, OnFull, RecordedTraining
from methods.training.cost import Meter
from methods.training.descent import Optimizer, Step
from methods.training.loop import Conditions, train
from methods.weights.per_sample_gradients import RULES, Capture, Factors
from tests.conftest import Stages, plan_of, stages_of
from tests.recording import SAMPLES


@cache
def digits() -> Stages:
    return stages_of(plan_of("data.limit=8", "model.widths=[4,8]", "model.hidden=16", *SAMPLES))


CPU = torch.device("cpu")
DEVICES = [CPU, torch.device("cuda")] if torch.cuda.is_available() else [CPU]


def training_in(
    folder: Path, batch_size: int, optimizer: Optimizer, device: torch.device = CPU
) -> RecordedTraining:
    """Return a training of two epochs over 80 digits, of a new model."""
    plan, split = digits().plan, digits().dataset.train.to(device)
    recipe = replace(plan.recipe, batch_size=batch_size, epochs=2, optimizer=optimizer, warmup=0)
    model = plan.architecture.fresh(1, 8, 10, 0).to(device)
    return RecordedTraining(model, split, recipe, Streams(0, "record"), folder)


def steps_of(training: RecordedTraining) -> Iterator[Step]:
    meter = Meter(training.split.images.device)
    conditions = Conditions(Streams(0, "steps"), meter, lambda values: None, training.recipe)
    return train(training.model, training.split, training.recipe, conditions)


def recorder_of(**changes: Any) -> PerSample:
    (found,) = digits().plan.recorders.values()
    assert isinstance(found, PerSample)
    return replace(found, **changes)


class Plainly:
    """The bytes of a record's files, by fresh tensors, one whole operation after another."""

    def __init__(self, own: PerSample, training: RecordedTraining) -> None:
        self.training, self.layout = training, own.layout(training)
        self.packer: Packer = own._packer(training, self.layout)
        index = own.index(training.split)
        self.tracked = index["tracked"]
        self.slots = index.get("groups", torch.arange(len(self.tracked))).unique(return_inverse=True)[1]
        self.sums = np.zeros((int(self.slots.max()) + 1, self.layout.slot_numbers), np.float32)
        self.entries: list[bytes] = []

    def beside(self, steps: Iterator[Step]) -> Iterator[Step]:
        with Capture(self.training.model) as capture:
            for step in steps:
                taken = capture.take()
                rows = step.batch.rows.cpu()
                where = torch.isin(rows, self.tracked).nonzero()[:, 0]
                slots = self.slots[torch.searchsorted(self.tracked, rows[where])]
                if len(where):
                    factors = {n: Factors(use.a[where], use.b[where]) for n, (use,) in taken.items()}
                    self.sum_up(step, factors, slots)
                    self.entries.append(self.entry_bytes(factors))
                yield step

    def sum_up(self, step: Step, factors: dict[str, Factors], slots: Tensor) -> None:
        """S_i ← S_i + c_t·g_{i,t}, from S_i = 0."""
        values = [self.summands(step, n, factors[n], slots) for n in self.layout.sums]
        for slot, value in zip(
            slots.tolist(), torch.cat(values, 1).cpu().numpy() if values else [], strict=bool(values)
        ):
            self.sums[slot] = self.sums[slot] + value

    def summands(self, step: Step, name: str, factors: Factors, slots: Tensor) -> Tensor:
        layer, mask = self.packer.layers[name], self.packer.masks[name]
        rule = RULES[type(layer)]
        fine = rule.total is None or self.packer.dtype is FactorType.fp32
        dtype = torch.float32 if fine else torch.bfloat16
        each = rule.each(layer, Factors(factors.a.to(dtype), factors.b.to(dtype)))
        flat = torch.cat([each[n].flatten(1) for n, _ in layer.named_parameters(recurse=False)], 1)
        scaled = flat.float() * self.packer._coefficient(step, layer)
        return scaled if mask is None else mask.of_each(slots.tolist(), scaled)

    def entry_bytes(self, factors: dict[str, Factors]) -> bytes:
        values = [getattr(factors[n], factor).flatten(1) for n, factor in self.layout.factors]
        if self.packer.dtype is FactorType.int8:
            scales = [value.abs().amax(1, keepdim=True) / 127 for value in values]
            tiny = torch.finfo(torch.float32).tiny
            values = [(v / s.clamp_min(tiny)).round() for v, s in zip(values, scales, strict=True)]
        joined = (
            torch.cat([v.to(TYPES[self.packer.dtype]) for v in values], 1) if values else torch.empty(0)
        )
        return joined.cpu().contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("device", DEVICES, ids=str)
@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(Form),
    dtype=st.sampled_from(FactorType),
    tracking=st.sampled_from([{}, {"classes": [3, 4]}, {"group_by": "class"}]),
    batch_size=st.sampled_from([7, 16, 80]),
    adam=st.booleans(),
    buffers=st.integers(1, 3),
)
def test_files_hold_the_bits_of_plain_arithmetic(
    device: torch.device,
    form: Form,
    dtype: FactorType,
    tracking: dict[str, Any],
    batch_size: int,
    adam: bool,
    buffers: int,
) -> None:
    """Buffers are used again, new sums are not read, and pages are written from where they are."""
    adam = adam and form in (Form.dense, Form.masked)
    keep = 0.3 if form is Form.masked else 1
    form = Form.dense if form is Form.factored and "group_by" in tracking else form
    attribution = Attribution.preconditioned if adam else Attribution.step
    own = recorder_of(form=form, dtype=dtype, keep=keep, attribution=attribution, **tracking)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "BUFFERS", buffers)
        patch.setattr(files, "BLOCK", 2 * files.PAGE)
        optimizer = Optimizer.adam if adam else Optimizer.sgd
        training = training_in(Path(folder), batch_size, optimizer, device)
        plain = Plainly(own, training)
        for _ in own.watch(plain.beside(steps_of(training)), training):
            pass
        assert (Path(folder) / "sums.bin").read_bytes() == plain.sums.tobytes()
        path = Path(folder) / "factors.entries"
        assert path.read_bytes() == b"".join(plain.entries) and intact(path)


@settings(max_examples=50, deadline=None)
@given(parts=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2), st.booleans()), max_size=12))
def test_entries_are_written_whole_from_any_place_in_memory(parts: list[tuple[int, int, bool]]) -> None:
    """Parts of some entries follow one another: some as far into a page as in the file, some not."""
    width, wanted = 3000, b""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK", 2 * files.PAGE)
        file = EntryFile(Path(folder), "x")
        memory = torch.randint(256, (40 * files.PAGE,), dtype=torch.uint8)
        begin = -memory.data_ptr() % files.PAGE
        for count, shift, as_in_file in parts:
            start = begin + (len(wanted) % files.PAGE if as_in_file else 0) + shift
            part = memory[start : start + count * width].view(count, width)
            file.append(part)
            wanted += part.numpy().tobytes()
        file.close()
        assert file.path.read_bytes() == wanted and intact(file.path)


# Buffers


def ended(training: Callable[[], object], seconds: float = 60) -> BaseException | None:
    """Run a training, and return the error that it ends with. Fail if it does not end."""
    found: list[BaseException] = []

    def body() -> None:
        try:
            training()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "the training waits for ever"
    return found[0] if found else None


def all_steps(own: PerSample, training: RecordedTraining) -> int:
    return sum(1 for _ in own.watch(steps_of(training), training))


@pytest.mark.parametrize("buffers", [1, 2])
def test_a_training_does_not_wait_for_buffers_of_jobs_that_failed(
    buffers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*job: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(ring, "BUFFERS", buffers)
    monkeypatch.setattr(EntryFile, "append", fail)
    training = training_in(tmp_path, 4, Optimizer.sgd)
    error = ended(lambda: all_steps(recorder_of(form=Form.factored), training))
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("buffers", [1, 2])
def test_a_training_goes_on_without_a_record_that_was_lost(
    buffers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "BUFFERS", buffers)
    appended = []

    def full(file: EntryFile, entries: Tensor) -> None:
        appended.append(len(entries))
        if len(appended) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(EntryFile, "append", full)
    training = training_in(tmp_path, 4, Optimizer.sgd)
    own = recorder_of(form=Form.factored, on_full=OnFull.go_on)
    counts: list[int] = []
    assert ended(lambda: counts.append(all_steps(own, training))) is None
    assert counts == [training.steps] and len(appended) == 3
    assert [file.name for file in tmp_path.iterdir()] == [LOST]


def test_what_follows_a_job_follows_it_in_any_case(tmp_path: Path) -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError(28, "No space left on device")

    with Writer(tmp_path, go_on=True) as writer:
        writer.do(lambda: done.append("job"), after=lambda: done.append("after"))
        writer.do(fail, after=lambda: done.append("after the failed one"))
        writer.do(lambda: done.append("left out"), after=lambda: done.append("after the one left out"))
    assert done == ["job", "after", "after the failed one", "after the one left out"]


@pytest.mark.parametrize(("free", "buffers"), [(4, 2), (3, 1), (1, 1)])
def test_a_training_takes_as_many_buffers_as_fit_half_of_the_free_memory(
    free: int, buffers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, own = training_in(tmp_path, 16, Optimizer.sgd), recorder_of()
    size = ring.buffer_bytes(own.layout(training), own.dtype, 16)
    used: set[int] = set()
    take = ring.Ring.take

    def noted(self: ring.Ring, first: int, count: int) -> ring.Lease:
        lease = take(self, first, count)
        used.add(lease.buffer.sums.data_ptr())
        return lease

    monkeypatch.setattr(ring, "available_memory", lambda device: free * size)
    monkeypatch.setattr(ring.Ring, "take", noted)
    all_steps(own, training)
    assert len(used) == buffers
    words = f"{buffers} buffer{'s' * (buffers > 1)} of {in_words(size)} in memory"
    assert words in own.summary(training, "recorder.per_sample", 1)


def test_a_record_whose_batch_does_not_fit_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_in(tmp_path, 16, Optimizer.sgd)
    own = recorder_of()
    size = ring.buffer_bytes(own.layout(training), own.dtype, 16)
    monkeypatch.setattr(recorder, "available_memory", lambda device: size / 2)
    with pytest.raises(
        UserError, match=r"for a batch, but .* are free: set training\.batch_size=8 or less"
    ):
        own.check(training, "recorder.per_sample")
    monkeypatch.setattr(recorder, "available_memory", lambda device: size)
    own.check(training, "recorder.per_sample")
