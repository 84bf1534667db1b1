"""Imports run in one direction, modules are private, and no two names collide."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from public import public_names

import ratecraft

ROOT = Path(ratecraft.__file__).parent
BOTTOM = {"errors", "_version", "_public", "_keywords", "_files", "_progress", "_interrupt"}
# What each package may import besides itself.
BELOW: dict[str, set[str]] = {name: set() for name in BOTTOM}
BELOW["_progress"] = {"errors"}
BELOW["_render"] = BOTTOM
BELOW["schedule"] = {*BOTTOM, "_render"}
BELOW["_trial"] = {*BELOW["schedule"], "schedule"}
BELOW["results"] = {*BELOW["schedule"], "schedule"}
BELOW["forecasting"] = {*BELOW["results"], "results"}
BELOW["report"] = BELOW["forecasting"]
BELOW["_trainers"] = {"errors"}
BELOW["torch"] = BELOW["_training"] = {*BELOW["forecasting"], "_trainers", "_trial"}
BELOW["diagnostics"] = {*BELOW["torch"], "torch", "_training"}
BELOW["finder"] = BELOW["diagnostics"]
BELOW["experiments"] = {*BELOW["finder"], "finder", "forecasting"}
BELOW["integrations"] = {*BELOW["experiments"], "diagnostics"}
BELOW["cli"] = {*BELOW["integrations"], "integrations", "experiments", "forecasting", "report"}
BELOW["__main__"] = {"cli", "_interrupt"}
BELOW["__init__"] = {*BOTTOM, "schedule", *("torch", "diagnostics", "finder"), "results"}
BELOW["__init__"] |= {"experiments", "forecasting", "_trial"}
HEAVY = {"torch", "numpy", "matplotlib", "sklearn", "scipy", "rich", "cyclopts"}
# What a package may load when it is imported; anything else is imported inside functions.
LOADS = {
    "torch": {"torch"},
    "_training": {"torch"},
    "diagnostics": {"torch"},
    "finder": {"torch"},
    "experiments": {"torch", "numpy"},
    "integrations": {"torch"},
    "cli": {"cyclopts", "rich"},
}
MAX_FILE_LINES, MAX_METHODS, MAX_BODY_LINES = 450, 20, 50
# The one writer of an optimizer's hyperparameters, and ScheduleLR with torch's interface.
MANY_METHODS = {"torch/_writer.py", "torch/_scheduler.py"}
FILES = sorted(ROOT.rglob("*.py"))
PACKAGES = sorted(path.parent for path in ROOT.rglob("__init__.py"))


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(("ratecraft", *path.relative_to(ROOT).with_suffix("").parts))


def imported(node: ast.AST, path: Path) -> list[str]:
    """The absolute names of the modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level:
        parent = ".".join(module_of(path).split(".")[: -node.level])
        return [f"{parent}.{node.module}" if node.module else parent]
    names = [f"{node.module}.{alias.name}" for alias in node.names]
    return names if node.module == "ratecraft" else [node.module or ""]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down_only(path: Path) -> None:
    package = package_of(path)
    for node in ast.walk(ast.parse(path.read_text())):
        for name in imported(node, path):
            if name.split(".")[0] != "ratecraft":
                continue
            target = [*name.split("."), ""][1]
            assert target in BELOW[package] | {package}, name


def test_no_module_imports_itself_through_others() -> None:
    modules = {module_of(path).removesuffix(".__init__"): path for path in FILES}
    graph = {}
    for module, path in modules.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            for name in imported(node, path):
                # `from package import module` or `from module import object`
                inner = {f"{name}.{alias.name}" for alias in getattr(node, "names", [])}
                names |= inner & set(modules) or {name}
        graph[module] = names & set(modules) - {module}
    # Without the modules that import no other one, again and again, only cycles are left.
    while leaves := {module for module, names in graph.items() if not names}:
        graph = {module: names - leaves for module, names in graph.items() if module not in leaves}
    assert graph == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_classes_and_bodies_are_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            may_have_more = str(path.relative_to(ROOT)) in MANY_METHODS
            assert may_have_more or len(methods) <= MAX_METHODS, node.name
        if isinstance(node, ast.FunctionDef):
            body = node.body[ast.get_docstring(node) is not None :] or node.body
            assert body[-1].end_lineno - body[0].lineno < MAX_BODY_LINES, node.name  # type: ignore


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_code_of_the_same_package_is_imported_relatively(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, "write an absolute import"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        for name in imported(node, path):
            package = name.split(".")[0]
            assert package not in HEAVY or package in LOADS.get(package_of(path), set()), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_private(path: Path) -> None:
    assert path.name.startswith("_") or path == ROOT / "errors.py"
    names = [
        node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)
    ]
    assert "__all__" not in names, "public names are those of __init__, as X as X"


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_no_public_name_is_the_name_of_a_package_or_module(folder: Path) -> None:
    package = importlib.import_module(module_of(folder / "__init__.py").removesuffix(".__init__"))
    modules = {path.parent.name if path.stem == "__init__" else path.stem for path in FILES}
    assert set(public_names(package)) & modules == set()


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_public_objects_name_the_package_that_lists_them(folder: Path) -> None:
    package = importlib.import_module(module_of(folder / "__init__.py").removesuffix(".__init__"))
    for name in public_names(package):
        module = getattr(getattr(package, name), "__module__", "")
        assert not module.startswith("ratecraft.") or "._" not in module, name


def test_the_root_docstring_lists_every_public_package() -> None:
    modules = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"errors"}
    public = {name for name in modules if not name.startswith("_")}
    assert set(re.findall(r"^    ratecraft\.(\w+)  ", ratecraft.__doc__ or "", re.M)) == public


@pytest.mark.parametrize("folder", PACKAGES[1:], ids=lambda folder: folder.name)
def test_a_package_docstring_lists_its_files(folder: Path) -> None:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    files = {path.name for path in folder.glob("_*.py")} - {"__init__.py"}
    folders = {f"{path.name}/" for path in folder.iterdir() if (path / "__init__.py").exists()}
    assert set(re.findall(r"^(\w+(?:\.py|/))  ", docstring, re.M)) == files | folders
