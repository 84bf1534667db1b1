"""docs/reference/supported-versions.md has every environment, and its versions are the bounds."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "reference" / "supported_versions.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def load() -> Any:
    spec = importlib.util.spec_from_file_location("supported_versions", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load()
RESULTS = json.loads(script.RESULTS.read_text())


def test_the_page_is_what_the_script_writes() -> None:
    assert script.PAGE.read_text() == script.page(RESULTS)


def test_every_environment_has_a_result_and_no_test_failed() -> None:
    assert list(RESULTS) == list(script.environments())
    for name, result in RESULTS.items():
        if "not_run" not in result:
            assert result["passed"] > 1000, name
            assert result["failed"] == 0, name
            assert all(result["skipped"]), f"{name}: a test was skipped without a reason"


def test_the_lowest_versions_of_the_page_are_the_bounds() -> None:
    bounds = script.lowest()
    assert set(script.PACKAGES) <= set(bounds)
    for package in script.PACKAGES:
        version = RESULTS["lowest"][package]
        assert re.fullmatch(rf"{re.escape(bounds[package])}(\.0)*(\+\w+)?", version), package


def test_the_classifiers_are_the_pythons_of_the_page() -> None:
    prefix = "Programming Language :: Python :: "
    classifiers = {c.removeprefix(prefix) for c in PROJECT["classifiers"] if c.startswith(prefix)}
    versions = {r["python"].rpartition(".")[0] for r in RESULTS.values() if "python" in r}
    assert versions == classifiers - {"3 :: Only"}


def test_every_test_that_environments_run_exists() -> None:
    for path in script.SELECTION:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("names", [["torch-1.0"], ["--print", "torch-1.0"]])
def test_an_unknown_environment_is_refused(
    names: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *names])
    assert script.main() == 2
    assert "write one of lowest, " in capsys.readouterr().out
