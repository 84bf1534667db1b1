"""docs/reference/command-line.md has the help of every command, as the commands print it."""

import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from command_line import ratecraft

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs" / "reference" / "command_line.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("command_line_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load()


def test_the_page_is_what_the_generator_writes() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    for package in ("cyclopts", "rich"):
        if f"\n{package}=={version(package)}\n" not in pins:
            pytest.skip(f"another version of {package} may print the help differently")
    assert generator.PAGE.read_text(encoding="utf-8") == generator.page()


@pytest.mark.parametrize("command", [[], ["compare"]], ids=["ratecraft", "compare"])
def test_the_generator_has_what_the_command_prints(command: list[str], tmp_path: Path) -> None:
    done = ratecraft(tmp_path, *command, "--help", columns=generator.COLUMNS)
    printed = [line.rstrip() for line in done.stdout.strip().splitlines()]
    assert printed == generator.help_text(*command).splitlines()


def test_every_command_has_a_section() -> None:
    text = generator.page()
    for command in generator.SECTIONS:
        assert f"\n## ratecraft {command}\n" in text
        assert f"Usage: ratecraft {command}" in text
