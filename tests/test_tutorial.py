"""The tutorial's commands, run in order: each line of output that it shows is there again."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text()
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
TIME = re.compile(r"[\d.]+ h \d+ min|\d+ min \d+ s|[\d.]+ s\b")


def alike(shown: str, seen: str) -> bool:
    """Whether two lines say the same, times aside, with numbers that another machine may give."""
    shown, seen = TIME.sub("T", shown), TIME.sub("T", seen)
    if NUMBER.sub("N", shown).split() != NUMBER.sub("N", seen).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(seen), strict=True)
    values = ((float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in pairs)
    return all(a == pytest.approx(b, rel=0.1, abs=0.02) for a, b in values)


def test_every_output_is_reproduced(tmp_path: Path) -> None:
    steps = re.findall(r"```sh\n(ratecraft .*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.S)
    assert len(steps) > 4
    for commands, shown in steps:
        said = ""
        for command in commands.strip().splitlines():
            run = [sys.executable, "-m", "ratecraft", *shlex.split(command)[1:]]
            done = subprocess.run(
                run,
                cwd=tmp_path,
                env=os.environ | {"NO_COLOR": "1", "COLUMNS": "100"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            said += done.stdout
        for line in shown.splitlines():
            if line.strip() in ("", "..."):
                continue
            found = any(alike(line, one) for one in said.splitlines())
            assert found, f"{commands}\nnot in what it prints:\n{line}\n\n{said}"
    assert (tmp_path / "report.html").exists()


def test_lines_differ_by_what_they_say_and_by_numbers_too_far_apart() -> None:
    assert alike("lr: 0.0176 in 3.4 s", "lr: 0.0175 in 1 min 3 s")
    assert not alike("lr: 0.5 (as good)", "lr: 0.3 (as good)")
    assert not alike("cosine ends at 1.4", "linear ends at 1.4")
