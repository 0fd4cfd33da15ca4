"""Layers look down, names are free, the catalogue is complete."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path

import pytest

from data.component import Component
from tests.conftest import CONF, catalogue, options

ROOT = Path(__file__).parent.parent

# Each package may import the ones before it. conf is the configuration and may import data.bounds alone.
LAYERS = ["data", "models", "metrics", "methods", "runner"]

# Hydra accepts launchers from the namespace hydra_plugins alone, which other distributions share.
PLUGINS = "hydra_plugins/unlearn_launchers"


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


def named(path: Path) -> set[str]:
    """Return the dotted names that a file imports, in any form, or spells in a string."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"\b(?:data|methods|models)(?:\.\w+)+", node.value))
    return found


def concrete() -> set[str]:
    """Return the classes that the options of method, model and dataset name, and the modules that hold
    nothing else."""
    groups = [path for group in ("method", "model", "dataset") for path in CONF.glob(f"{group}/*.yaml")]
    texts = [path.read_text() for path in groups]
    classes = {target for text in texts for target in re.findall(r"_target_: ([\w.]+)", text)}
    modules = {target.rpartition(".")[0] for target in classes}
    return classes | {module for module in modules if components_of(module) <= classes}


def components_of(module: str) -> set[str]:
    """Return the components that a module defines."""
    found = vars(import_module(module)).values()
    classes = [value for value in found if isinstance(value, type) and issubclass(value, Component)]
    return {f"{module}.{cls.__qualname__}" for cls in classes if cls.__module__ == module}


def test_the_configuration_imports_bounds_and_no_torch() -> None:
    import conf

    tree = ast.parse(Path(conf.__file__).read_text())
    ours = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {module for module in ours if module.split(".")[0] in LAYERS} == {"data.bounds"}
    code = "import conf, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_runner_names_no_method_model_or_data_set() -> None:
    forbidden = concrete()
    assert "methods.finetune" in forbidden and any(name.endswith(".MNIST") for name in forbidden)
    for path in (ROOT / "runner").rglob("*.py"):
        assert not named(path) & forbidden, path


def test_every_way_of_naming_a_module_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    for line in (
        "import methods.finetune",
        "import methods.finetune as tuned",
        "from methods import finetune",
        "from methods.finetune import Finetune",
        "def f(): import methods.finetune",
        "x = import_module('methods.finetune')",
        "x = 'see methods.finetune, there'",
    ):
        file.write_text(line)
        assert "methods.finetune" in named(file), line


def test_no_other_distribution_ships_our_names() -> None:
    ours = {"conf", *LAYERS}
    for distribution in distributions():
        if distribution.metadata["Name"] == "unlearn":
            continue
        tops = {file.parts[0] for file in distribution.files or [] if file.suffix == ".py"}
        taken = {top.removesuffix(".py") for top in tops} & ours
        assert not taken, f"{distribution.metadata['Name']} ships {taken}"


def test_the_namespace_of_plugins_stays_open_to_other_distributions() -> None:
    assert not (ROOT / "hydra_plugins" / "__init__.py").exists()
    needed = {"collections", "types", "typing", "hydra", "omegaconf", "runner"}
    assert imports(ROOT / PLUGINS / "__init__.py") <= needed, "Hydra imports it at every start"


def test_every_method_has_a_module_a_card_and_a_line_in_the_catalogue() -> None:
    assert set(catalogue()) == set(options("method"))
    for name in catalogue():
        card = ast.get_docstring(ast.parse((ROOT / "methods" / f"{name}.py").read_text())) or ""
        for heading in ("Idea:", "Update rule:", "Needs:", "Reference:"):
            assert heading in card, f"{name}'s card lacks {heading}"


@pytest.mark.parametrize("package", ["conf", *LAYERS, PLUGINS, "docs", "tests"])
def test_files_and_functions_stay_short(package: str) -> None:
    """At most 300 lines a file, 400 of tests, and 40 lines a function."""
    for path in sorted((ROOT / package).rglob("*.py")):
        assert len(path.read_text().splitlines()) <= (400 if package == "tests" else 300), path
        assert all(length <= 40 for length in functions_of(path).values()), path


def test_nearly_all_functions_have_at_most_22_lines() -> None:
    files = [path for package in ("conf", *LAYERS, PLUGINS) for path in (ROOT / package).rglob("*.py")]
    lengths = sorted(length for path in files for length in functions_of(path).values())
    assert lengths[int(0.95 * len(lengths))] <= 22


def functions_of(path: Path) -> dict[tuple[str, int], int]:
    """Return the number of lines of each function, by its name and first line."""
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    return {(f.name, f.lineno): (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
