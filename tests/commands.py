"""The commands of README.md and of docs/, as a reader copies them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "metrics" / "README.md")

# A fenced block: its language, its title, and its text.
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)

SPAN = re.compile(r"`([^`]+)`")

# A command within a sentence begins so.
BEGINS = ("python -m ", "unlearn ", "uv ", "pip ", "wandb ")

# Words that stand for a reader's own, as in name=… or name=<name>.
OWN = re.compile(r"…|<\w+>")


@dataclass(frozen=True)
class Command:
    """A command: the variables before it, and its words without those that a reader fills in."""

    page: str
    text: str
    variables: dict[str, str]
    words: list[str]

    @property
    def module(self) -> str | None:
        """The module that Python runs, or None if the command starts another program."""
        if self.words[0] == "unlearn":
            return "runner"
        return self.words[2] if self.words[:2] == ["python", "-m"] else None

    @property
    def arguments(self) -> list[str]:
        """The arguments of the module."""
        return self.words[1 if self.words[0] == "unlearn" else 3 :]


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows below a folder, under their titles."""
    for _, title, text in FENCE.findall(page.read_text()):
        if title:
            (folder / title).parent.mkdir(parents=True, exist_ok=True)
            (folder / title).write_text(text)


def lines(page: Path) -> Iterator[str]:
    """Yield the lines of a page's shell blocks."""
    for language, title, text in FENCE.findall(page.read_text()):
        if language in ("", "bash") and not title:
            yield from text.replace("\\\n", "").splitlines()


def spans(page: Path) -> Iterator[str]:
    """Yield the texts of the commands within a page's sentences and tables."""
    for text in SPAN.findall(FENCE.sub("", page.read_text())):
        if text.startswith(BEGINS):
            yield " ".join(text.split())


def blocks(page: Path) -> Iterator[Command]:
    """Yield the commands of a page's shell blocks. Programs print their output in blocks of `text`."""
    for line in lines(page):
        yield from commands(page, line)


def commands(page: Path, line: str) -> Iterator[Command]:
    """Yield the commands of a line that && joins, without their remarks and without `uv run`. One that
    torchrun starts is that of `python -m`."""
    for part in line.split(" && "):
        words = shlex.split(part, comments=True)
        variables = {}
        while words and re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        words = words[2:] if words[:2] == ["uv", "run"] else words
        words = ["python", *words[words.index("-m") :]] if words[:1] == ["torchrun"] else words
        kept = [word for word in words if not OWN.search(word)]
        if kept:
            kept[0] = Path(kept[0]).name  # of an environment's bin
            yield Command(page.name, part, variables, kept)


def inline(page: Path) -> Iterator[Command]:
    """Yield the commands within a page's sentences and tables."""
    for text in spans(page):
        yield from commands(page, text)


def all_commands() -> list[Command]:
    """Return every command of every page."""
    return [command for page in PAGES for command in (*blocks(page), *inline(page))]
