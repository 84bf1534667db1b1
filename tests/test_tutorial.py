"""The tutorial's commands, run in order, print what the page shows.

Trained numbers differ from processor to processor: they are compared within their noise.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs" / "get-started" / "ten-minutes.md").read_text()
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
TIME = re.compile(r"[\d.]+ h \d+ min|\d+ min \d+ s|[\d.]+ s\b")
SPREAD = re.compile(r"± *[\d.e-]+|[\d.]+%|(?<=interval )-?[\d.e-]+ to [\d.e-]+")
TIES = re.compile(r" Not significantly worse .*")  # of a verdict; another processor may have others
BORDER = re.compile(r"([━─])\1+")  # as long as the numbers in its table
LR_RATIO = 2.5  # a learning rate that is found, and the ends of its range
LOSS_DIFFERENCE = 0.15  # several times the standard deviation over seeds


def is_close(shown: str, seen: str) -> bool:
    """Whether two numbers agree: counts exactly, losses and learning rates within their noise."""
    if shown == seen:
        return True
    if shown.replace(",", "").isdigit() and seen.replace(",", "").isdigit():
        return False
    a, b = float(shown.replace(",", "")), float(seen.replace(",", ""))
    if max(abs(a), abs(b)) < 0.2:
        return 0 < a < b * LR_RATIO and b < a * LR_RATIO
    return abs(a - b) <= LOSS_DIFFERENCE


def is_alike(shown: str, seen: str) -> bool:
    """Whether two lines agree: the same words, close numbers, any times and spreads."""
    shown, seen = (
        BORDER.sub(r"\1", TIES.sub("", SPREAD.sub("± S", TIME.sub("T", line))))
        for line in (shown, seen)
    )
    if NUMBER.sub("N", shown).split() != NUMBER.sub("N", seen).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(seen), strict=True)
    return all(is_close(a, b) for a, b in pairs)


def test_every_output_is_reproduced(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(ratecraft .*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.S)
    assert len(blocks) > 4
    (task,) = re.findall(r"```python\n(.*?def task.*?)```", PAGE.partition("my_task.py")[2], re.S)
    (tmp_path / "my_task.py").write_text(task)
    for commands, shown in blocks:
        output = ""
        for command in commands.replace("\\\n", "").strip().splitlines():
            done = subprocess.run(
                [sys.executable, "-m", "ratecraft", *shlex.split(command)[1:]],
                cwd=tmp_path,
                env=os.environ | {"NO_COLOR": "1", "COLUMNS": "80"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            output += done.stdout
        for line in shown.splitlines():
            if line.strip() in ("", "..."):
                continue
            assert any(is_alike(line, other) for other in output.splitlines()), (
                f"{commands}\nnot in the output:\n{line}\n\n{output}"
            )
    assert (tmp_path / "report.html").exists()


def test_lines_agree_within_the_noise_of_training() -> None:
    assert is_alike("lr: 0.0176 in 3.4 s", "lr: 0.0125 in 1 min 3 s")
    assert is_alike("cosine 1.4024 ± 0.0013  0 of 2", "cosine 1.4030 ± 0.0244  0 of 2")
    assert is_alike("after 600 steps: 1.40", "after 600 steps: 1.45")
    assert is_alike("0.01 lower (95 % interval 0.01 to 1)", "0.02 lower (95 % interval -1 to 2)")
    assert is_alike("misses the losses by 3.7%", "misses the losses by 4.4%")
    assert is_alike("a is best. Not significantly worse with 3 seeds: b.", "a is best.")
    assert is_alike("┏━━━━┳━━┓", "┏━━┳━━━┓")


def test_lines_differ_in_words_in_counts_and_beyond_the_noise() -> None:
    assert not is_alike("cosine ends at 1.4", "linear ends at 1.4")
    assert not is_alike("lr: 0.05 (as good)", "lr: 0.01 (as good)")
    assert not is_alike("cosine 1.40 ± 0.01", "cosine 1.60 ± 0.01")
    assert not is_alike("0 of 2 diverged", "1 of 2 diverged")
