"""Progress: bars on a terminal with messages on lines of their own, and in a log a line every minute."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time

import pytest

from runner import progress
from runner.progress import Bar
from tests.forked import ROOT


def shown(program: str) -> str:
    """Run a program on a pseudo-terminal of 80 columns, and return all that it writes there."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [
        sys.executable,
        "-c",
        f"import time; from runner.progress import Bar; from runner.say import say\n{program}",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=child, stderr=child)
    os.close(child)
    seen = b""
    while True:
        try:
            if not (chunk := os.read(parent, 1024)):
                break
        except OSError:  # Linux says so when the other side has closed
            break
        seen += chunk
    assert process.wait() == 0, seen
    return seen.decode()


def test_a_bar_counts_the_rows_that_are_done() -> None:
    seen = shown(
        "with Bar('pretrain') as bar:\n"
        "    bar.expect(100)\n"
        "    for _ in range(20): time.sleep(0.1); bar.advance(5)\n"
    )
    assert "pretrain" in seen and "100" in seen


def test_work_that_counts_no_rows_shows_its_label_alone() -> None:
    seen = shown("with Bar('load digits', delay=0): time.sleep(0.2)")
    assert "load digits …" in seen and "rows" not in seen and "0.00" not in seen


def test_a_message_stands_on_a_line_of_its_own_beside_a_bar() -> None:
    seen = shown("with Bar('load digits', delay=0): say('a message')")
    before, _, after = seen.partition("a message")
    *_, erased = before.split("load digits …")
    assert erased.strip(" \r") == "" and "\r" in erased, "the bar is erased first"
    assert after.startswith("\r\n")


@pytest.fixture
def every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PAUSE", 0.0)


@pytest.mark.usefixtures("every_batch")
def test_a_log_says_how_much_is_done_and_left(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("pretrain") as bar:
        bar.expect(1000)
        bar.advance(250)
        bar.advance(750)
        bar.expect(8)  # of another part of the work
        bar.advance(2)
    quarter, whole, other = capsys.readouterr().err.splitlines()
    assert quarter == "pretrain: 25% of 1,000 rows, about 0 s left"
    assert whole == "pretrain: 100% of 1,000 rows, about 0 s left"
    assert other == "pretrain: 25% of 8 rows, about 0 s left"


@pytest.mark.usefixtures("every_batch")
def test_rows_of_a_killed_run_count_as_done_and_tell_nothing_of_the_pace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Bar("pretrain") as bar:
        bar.expect(1100, done=900)
        time.sleep(0.6)
        bar.advance(100)  # as many again take another 0.6 s
    assert capsys.readouterr().err == "pretrain: 91% of 1,100 rows, about 1 s left\n"


@pytest.mark.usefixtures("every_batch")
def test_work_of_an_unknown_number_of_rows_says_those_that_are_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Bar("msg") as bar:
        bar.advance(1234)
    assert capsys.readouterr().err == "msg: 1,234 rows\n"


def test_short_work_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("pretrain") as bar:
        bar.expect(10)
        bar.advance(10)
    assert capsys.readouterr() == ("", "")
