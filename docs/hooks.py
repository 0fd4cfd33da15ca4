"""Pages that lie beside the code, as pages of the site: links between files hold in both places."""

from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent

# Pages outside docs/, and what they show.
BESIDE = (
    "README.md",
    "methods/README.md",
    "metrics/README.md",
    "results/*.md",
    "results/*.svg",
    "results/*.csv",
)


def beside() -> Iterator[Path]:
    """Yield the files of the site that lie outside docs/."""
    for pattern in BESIDE:
        yield from sorted(ROOT.glob(pattern))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files beside the code under their paths in the checkout."""
    for path in beside():
        uri = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where the site has their pages: docs/ is its root."""
    if page.file.src_uri == "README.md":
        return markdown.replace("](docs/", "](")
    beside = "/" in page.file.src_uri
    return markdown.replace("](../docs/", "](../") if beside else markdown.replace("](../", "](")
