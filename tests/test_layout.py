"""Layers look down, names are free, the catalogue is complete."""

import ast
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.conftest import catalogue, options

ROOT = Path(__file__).parent.parent

# Each package may import the ones before it. conf is the configuration and may import data.bounds alone.
LAYERS = ["data", "models", "metrics", "methods", "runner"]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_look_down(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :]) | ({"conf", "hydra"} if layer != "runner" else set())
    for path in (ROOT / layer).rglob("*.py"):
        assert not imports(path) & above, f"{path} looks up"


def test_the_configuration_imports_bounds_and_no_torch() -> None:
    import conf

    tree = ast.parse(Path(conf.__file__).read_text())
    ours = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {module for module in ours if module.split(".")[0] in LAYERS} == {"data.bounds"}
    code = "import conf, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_runner_names_no_method_model_or_data_set() -> None:
    names = set(options("method")) | set(options("model")) | set(options("dataset"))
    for path in (ROOT / "runner").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module.split(".")[-1] not in names, f"{path} imports {node.module}"


def test_no_other_distribution_ships_our_names() -> None:
    ours = {"conf", *LAYERS}
    for distribution in distributions():
        if distribution.metadata["Name"] == "unlearn":
            continue
        tops = {file.parts[0] for file in distribution.files or [] if file.suffix == ".py"}
        taken = {top.removesuffix(".py") for top in tops} & ours
        assert not taken, f"{distribution.metadata['Name']} ships {taken}"


def test_every_method_has_a_module_a_card_and_a_row_in_the_catalogue() -> None:
    assert set(catalogue()) == set(options("method"))
    for name in catalogue():
        card = ast.get_docstring(ast.parse((ROOT / "methods" / f"{name}.py").read_text())) or ""
        for heading in ("Idea:", "Update rule:", "Needs:", "Reference:"):
            assert heading in card, f"{name}'s card lacks {heading}"
