"""The README's picture of the terminal shows what the command prints."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_picture_of_the_terminal_is_what_the_command_prints() -> None:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec
    assert spec.loader
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    drawn = (ROOT / "docs" / "images" / "terminal.svg").read_text()
    assert pictures.terminal_picture() == drawn, "run python docs/pictures.py"
