"""The house keeps its shape: imports run down only, and the map names every room."""

import ast
import re
from pathlib import Path

import pytest

import ratecraft

ROOT = Path(ratecraft.__file__).parent
# Who may stand on whom; anything not listed is refused.
BELOW = {
    "errors": set(),
    "schedule": {"errors"},
    "rules": {"errors"},
    "records": {"errors", "schedule", "rules"},
    "torch": {"errors", "schedule", "records"},
    "finder": {"errors", "schedule", "records", "rules"},
    "foresee": {"errors", "schedule", "records"},
    "view": {"errors", "schedule", "records", "rules"},
    "compare": {"errors", "schedule", "records", "torch", "finder", ""},
    "cli": {
        *("errors", "schedule", "records", "rules"),
        *("torch", "finder", "foresee", "compare", "view", ""),
    },
    "": {"errors", "schedule"},  # ratecraft/__init__.py
}
HEAVY = {"torch", "numpy", "matplotlib", "sklearn", "scipy", "rich", "cyclopts"}
# What a wing may load when it is imported; anything else is imported inside functions.
LOADS = {
    "torch": {"torch"},
    "finder": {"torch"},
    "compare": {"torch", "numpy"},
    "cli": {"cyclopts", "rich"},
}
# The one door upstairs: a value that a notebook holds shows itself.
DOORS = {("schedule/nodes.py", "view"), ("schedule/curve.py", "view")}
FILES = sorted(ROOT.rglob("*.py"))


def wing(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        return names if node.module == "ratecraft" else [node.module or ""]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_down_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), "imports are absolute"
        for name in imported(node):
            if name.split(".")[0] != "ratecraft":
                continue
            target = [*name.split("."), ""][1]
            target = target if target in BELOW else ""
            door = (str(path.relative_to(ROOT)), target)
            assert target in BELOW[wing(path)] | {wing(path)} or door in DOORS, name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    module = ast.parse(path.read_text())
    for node in module.body:
        for name in imported(node):
            package = name.split(".")[0]
            assert package not in HEAVY or package in LOADS.get(wing(path), set()), name


def test_the_map_names_every_wing() -> None:
    wings = {
        p.name.removesuffix(".py") for p in ROOT.iterdir() if not p.name.startswith(("_", "py."))
    }
    assert set(re.findall(r"^    ratecraft\.(\w+)  ", ratecraft.__doc__, re.M)) == wings


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in ROOT.glob("*/__init__.py")), ids=lambda p: p.name
)
def test_each_wing_names_its_files(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    files = {p.name for p in folder.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"^\s*(\w+\.py)  ", text or "", re.M)) == files
