"""A folder with a task of the user."""

from pathlib import Path

import pytest
from command_line import TASK


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with my_task.py."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_task.py").write_text(TASK)
    return folder
