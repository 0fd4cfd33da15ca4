"""python -m tests.counts

Write the counts of verdicts on the papers' printed numbers into docs/papers.md, by the committed results
(the table of `python -m runner.report papers`), and their sums into README.md.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from runner.papers.text import summary
from runner.report.text import MARKDOWN
from tests.glossary import between

ROOT = Path(__file__).parent.parent

COMMAND = "python -m tests.counts"

# The lines around the counts.
START, END = f"<!-- {COMMAND} writes the counts -->", "<!-- end of the counts -->"


def parts() -> tuple[str, str]:
    """Return the counts by table and verdict of the committed results alone, as Markdown, and how many
    of them rest on a single run."""
    with TemporaryDirectory() as empty:
        text, by_one, _ = summary(MARKDOWN, Path(empty)).split("\n\n")
    return text, by_one


def table() -> str:
    """Return the counts by table and verdict as Markdown."""
    text, by_one = parts()
    return f"{text}\n\n{by_one[0].upper()}{by_one[1:]}.\n"


def sentence() -> str:
    """Return the counts over all papers as one sentence."""
    text, by_one = parts()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    (_, _, *words), (_, cells, *counts) = lines[0], lines[-1]
    found = [f"{count} *{word}*" for word, count in zip(words, counts, strict=True)]
    return (
        f"Verdicts on the {cells} numbers that the papers' tables print: {', '.join(found)}; {by_one}.\n"
    )


# The pages, and what is written between their marks.
PAGES: dict[Path, Callable[[], str]] = {
    ROOT / "docs" / "papers.md": table,
    ROOT / "README.md": sentence,
}


def written(path: Path) -> str:
    """Return a page with the counts of today in place of those that it holds."""
    return between(path.read_text(), START, END, PAGES[path]())


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page))
