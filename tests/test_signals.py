"""Signals wait for the end of a step, and then do what the handler before ours does."""

import os
import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runner.signals import Ended, Ending


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """A suite in the background ignores SIGINT, and one under nohup SIGHUP: here they are heard."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handling) for number, handling in usual.items()}
    yield
    for number, handling in before.items():
        signal.signal(number, handling)


@contextmanager
def handler(number: signal.Signals, seen: list[int]) -> Iterator[None]:
    """Note the signals of a number, as a launcher does that puts its job back into the queue."""
    before = signal.signal(number, lambda got, frame: seen.append(got))
    yield
    signal.signal(number, before)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR2, 140)],
)
def test_outside_a_training_a_signal_ends_the_process_at_once(number: signal.Signals, code: int) -> None:
    with Ending().handling(), pytest.raises(Ended) as ended:
        os.kill(os.getpid(), number)
    assert ended.value.code == code and number.name in str(ended.value)
    sent = pickle.loads(pickle.dumps(ended.value))
    assert (sent.code, str(sent)) == (code, str(ended.value))


def test_within_a_training_a_signal_waits() -> None:
    ending, steps = Ending(), 0
    with pytest.raises(Ended), ending.handling(), ending.waiting():
        os.kill(os.getpid(), signal.SIGTERM)
        steps += 1
        assert ending.asked
        ending.act()
    assert steps == 1


def test_a_signal_after_the_last_step_acts_when_the_training_ends() -> None:
    ending = Ending()
    with ending.handling(), pytest.raises(Ended), ending.waiting():
        os.kill(os.getpid(), signal.SIGTERM)


def test_the_handler_that_stood_there_is_called_after_the_step() -> None:
    seen: list[int] = []
    ending = Ending()
    with handler(signal.SIGUSR2, seen), ending.handling(), ending.waiting():
        os.kill(os.getpid(), signal.SIGUSR2)
        assert not seen
        ending.act()
        assert seen == [signal.SIGUSR2] and not ending.asked, "it returned, so the training goes on"


def test_two_signals_are_both_acted_on_in_turn() -> None:
    """Slurm sends SIGTERM, which submitit only notes, and then the signal to requeue."""
    seen: list[int] = []
    ending = Ending()
    with handler(signal.SIGTERM, seen), handler(signal.SIGUSR2, seen), ending.handling():
        with ending.waiting():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGUSR2)
        assert seen == [signal.SIGTERM, signal.SIGUSR2]


def test_afterwards_the_handlers_are_those_of_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    ending = Ending()
    with ending.handling(), ending.handling():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Ending().handling():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_it_leaves_the_signals_alone() -> None:
    def work() -> None:
        with Ending().handling():
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_within_a_wait_a_part_may_act_at_once() -> None:
    ending, cleared = Ending(), False
    with pytest.raises(Ended), ending.handling(), ending.waiting():
        try:
            with ending.at_once():
                os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # does not interrupt the clearing up
            cleared = True
    assert cleared
