"""Packages of the same name as ours that Python would find first."""

from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent

# The packages that a run imports beside this one.
PACKAGES = ("conf", "data", "methods", "metrics", "models")


def shadowed() -> str | None:
    """Return a sentence that names a file or folder which stands before a package of ours, or None."""
    for name in PACKAGES:
        spec = find_spec(name)
        place = None if spec is None or spec.origin is None else Path(spec.origin)
        if place is not None and ROOT not in place.resolve().parents:
            found = place.parent if place.name == "__init__.py" else place
            return (
                f"{found} stands before the package {name} of this program: start in another folder, "
                "take its folder from PYTHONPATH, or rename it"
            )
    return None
