"""A few hundred damaged files, by benchmarks/fuzz_files.py, give only errors of ratecraft."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz_files.py"


@pytest.mark.skipif(sys.platform == "win32", reason="stops slow cases with an alarm of POSIX")
def test_damaged_files_give_only_errors_of_ratecraft() -> None:
    command = [sys.executable, str(SCRIPT), "400", "200", "30", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("read") == 3
