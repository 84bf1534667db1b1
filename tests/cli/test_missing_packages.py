"""A command that lacks an optional package fails before it trains, and says how to install it."""

import sys
from pathlib import Path

import command_line
import pytest

from ratecraft import cosine
from ratecraft.errors import SettingError
from ratecraft.experiments import compare

TASK, SCHEDULE = "task.py:task", "cosine(1, 0)"
NO_MATPLOTLIB = "error: figures need matplotlib: pip install matplotlib"
NO_RAY = "error: this engine needs Ray: pip install ray"


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("matplotlib.figure", ["find", TASK, "-o", "a.png"], NO_MATPLOTLIB),
        ("matplotlib.figure", ["find", TASK, "--range-test", "-o", "a.pdf"], NO_MATPLOTLIB),
        ("matplotlib.figure", ["train", TASK, SCHEDULE, "-o", "a.svg"], NO_MATPLOTLIB),
        ("matplotlib.figure", ["compare", TASK, SCHEDULE, "-o", "a.png"], NO_MATPLOTLIB),
        ("matplotlib.figure", ["forecast", "log.csv", "-o", "a.png"], NO_MATPLOTLIB),
        ("matplotlib.figure", ["report", "runs.db", "-o", "a.png"], NO_MATPLOTLIB),
        ("matplotlib.figure", ["show", SCHEDULE, "-n", "9", "-o", "a.png"], NO_MATPLOTLIB),
        ("ray", ["compare", TASK, SCHEDULE, "--engine", "ray"], NO_RAY),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_missing_package_ends_a_command_before_it_reads_or_trains_anything(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    arguments: list[str],
    message: str,
) -> None:
    # Neither the task nor the log is there: each would be the error if it were read first.
    monkeypatch.setitem(sys.modules, module, None)
    done = command_line.ratecraft_in_this_process(tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", message)


def test_a_report_without_figures_needs_no_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    rows = [f"{k},{3e-4},{2 + 3 * (k + 1) ** -0.5:.6f}" for k in range(0, 2000, 5)]
    (tmp_path / "log.csv").write_text("\n".join(["step,lr,loss", *rows]) + "\n")
    arguments = ["forecast", "log.csv", SCHEDULE, "-o", "report.html"]
    done = command_line.ratecraft_in_this_process(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").is_file()


def test_compare_checks_its_engine_before_it_loads_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SettingError, match="pip install ray"):
        compare("digits", [cosine(1, 0)], lrs=0.1, engine="ray")


@pytest.mark.parametrize("command", ["find", "compare", "train"])
def test_the_digits_task_names_the_package_of_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    schedules = [] if command == "find" else [SCHEDULE]
    done = command_line.ratecraft_in_this_process(tmp_path, command, "digits", *schedules)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install scikit-learn" in done.stderr


def test_a_tensorboard_log_names_the_package_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tensorboard", "tensorboard.backend.event_processing.event_accumulator"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    done = command_line.ratecraft_in_this_process(tmp_path, "forecast", str(tmp_path), SCHEDULE)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install tensorboard" in done.stderr
