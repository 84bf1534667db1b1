"""show, check and doctor."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ratecraft

from ratecraft.schedule._parser import WORDS

SETUPS = """
import torch


def right():
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)


def wrong():
    model, _, scheduler = right()
    return model, torch.optim.SGD(model.parameters(), lr=0.1), scheduler


def nothing():
    return 3
"""


def test_show_draws_in_the_terminal_and_writes_a_figure(folder: Path) -> None:
    done = ratecraft(
        folder,
        *("show", "3e-4 * warmup(500).then(cosine(1, 0.1))", "constant(1e-4)"),
        *("--total-steps", "10000", "-o", "s.png", "--log"),
    )
    assert done.returncode == 0, done.stderr
    assert (
        "0.0003 * warmup(500).then(cosine(1, 0.1))\n  first 0, last 3e-05, 10,000 steps"
        in done.stdout
    )
    assert re.search("[\u2801-\u28ff]", done.stdout)
    assert (folder / "s.png").read_bytes().startswith(b"\x89PNG")


def test_schedules_are_shown_as_they_were_written(folder: Path) -> None:
    done = ratecraft(folder, "show", "0.1 * wsd(20)", "cosine(1, 0.1)", "-n", "100")
    assert done.returncode == 0, done.stderr
    assert "\n0.1 * wsd(20)\n  first 0, last " in done.stdout
    assert "one_minus_sqrt" not in done.stdout


def test_show_writes_several_figures(folder: Path) -> None:
    done = ratecraft(folder, "show", "wsd(20)", "-n", "100", "-o", "a.svg", "-o", "b.svg")
    assert done.returncode == 0, done.stderr
    for name in ("a.svg", "b.svg"):
        assert f"figure: {name}\n" in done.stdout
        assert "<svg" in (folder / name).read_text()


def test_show_draws_a_schedule_over_its_own_length(folder: Path) -> None:
    done = ratecraft(folder, "show", "warmup(epochs(2))", "--steps-per-epoch", "50")
    assert "100 steps" in done.stdout


def test_show_draws_lengths_in_tokens(folder: Path) -> None:
    done = ratecraft(folder, "show", "cosine(1, 0.25)", "--total-steps", "tokens(1e9)")
    assert done.returncode == 0, done.stderr
    assert "first 1, last 0.25, 1,000,000,000 tokens" in done.stdout


def test_no_color_turns_colors_off(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "ratecraft", "show", "cosine(1, 0)", "linear(1, 0)", "-n9"]
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("TERM", "xterm")
    colored = []
    for no_color in (None, "1"):
        monkeypatch.delenv("NO_COLOR", raising=False)
        if no_color is not None:
            monkeypatch.setenv("NO_COLOR", no_color)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        colored.append("\x1b[3" in done.stdout)
    assert colored == [True, False]


def test_check_prints_findings_and_exits_with_1_on_errors(folder: Path) -> None:
    done = ratecraft(
        folder, "check", "warmup(500).then(cosine(1, 0, over=9))", "--total-steps", "2000"
    )
    assert done.returncode == 1
    assert "error: the schedule ends at step 509 at lr 0" in done.stdout
    assert "\n  warmup(500).then(cosine(1, 0, over=9))\n  ^^^" in done.stdout
    assert done.stderr == "error: 1 of the findings is an error\n"
    good = ratecraft(folder, "check", "cosine(1, 0.1)", "warmup(9)", "--total-steps", "100")
    assert good.returncode == 0
    assert "cosine(1, 0.1): nothing to report" in good.stdout
    assert "note: step 0 has lr 0" in good.stdout


@pytest.mark.parametrize("name", ["show", "check"])
def test_help_lists_the_words_of_the_notation(folder: Path, name: str) -> None:
    text = " ".join(ratecraft(folder, name, "--help").stdout.split())
    words = re.search(r"Words of the notation: (.*?)\. Methods: ", text)
    assert words is not None
    assert words[1].split(", ") == sorted(WORDS)


def test_doctor_checks_what_a_function_returns(folder: Path) -> None:
    (folder / "setups.py").write_text(SETUPS)
    good = ratecraft(folder, "doctor", "setups.py:right", "--total-steps", "100")
    assert (good.returncode, good.stdout) == (0, "setups.py:right: nothing to report\n")
    bad = ratecraft(folder, "doctor", "setups.py:wrong", "--total-steps", "300")
    assert bad.returncode == 1
    assert "error: CosineAnnealingLR is not attached to the optimizer that steps" in bad.stdout
    assert "error: CosineAnnealingLR ends after 100 of the run's 300 steps" in bad.stdout
    assert bad.stderr == "error: 2 of the findings are errors\n"
    odd = ratecraft(folder, "doctor", "setups.py:nothing")
    assert odd.returncode == 2
    assert "setups.py:nothing: doctor() takes models, optimizers" in odd.stderr
    missing = ratecraft(folder, "doctor", "setups.py")
    assert missing.returncode == 2
    assert "expected file.py:function" in missing.stderr
