"""Progress on a terminal: bars for what takes longer than a second, and messages on their own lines."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

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
