"""One thread for each test process; Hypothesis profiles for `make test` and `make test-slow`."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Set before torch is loaded. As many tests run at once as there are cores, and with more threads
# than cores they wait for each other: the digits alone would take eight times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

checks = [HealthCheck.too_slow]
common = {"derandomize": True, "deadline": None, "suppress_health_check": checks}
settings.register_profile("quick", max_examples=50, **common)
settings.register_profile("thorough", max_examples=200, **common)
settings.register_profile(
    "nightly", max_examples=10_000, deadline=None, suppress_health_check=checks
)
settings.load_profile(os.environ.get("RATECRAFT_HYPOTHESIS", "quick"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with my_task.py, for tests of the command."""
    from command_line import TASK

    folder = tmp_path_factory.mktemp("user")
    (folder / "my_task.py").write_text(TASK)
    return folder
