"""report: saved results, stores, and a store that grows."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import command_line
import pytest

from ratecraft.results import LRRangeTestResult

COMPARE = ("compare", "my_task.py:task", "cosine(1, 0)", "constant(1)", "--total-steps", "8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_task.py").write_text(command_line.TASK)
    return tmp_path


def test_a_store_and_a_saved_result_give_the_same_report(folder: Path) -> None:
    options = ("--lrs", "0.1", "--seeds", "2", "--workers", "0", "--quiet")
    files = ("--store", "runs.db", "--save", "result.json")
    assert command_line.ratecraft(folder, *COMPARE, *options, *files).returncode == 0
    store = command_line.ratecraft(folder, "report", "runs.db", "-o", "a.html", "-o", "a.svg")
    saved = command_line.ratecraft(folder, "report", "result.json")
    assert (store.returncode, saved.returncode) == (0, 0)
    assert "report: a.html\nfigure: a.svg\n" in store.stdout
    assert "cosine(1, 0)" in (folder / "a.html").read_text()
    assert store.stdout.startswith(saved.stdout)


def test_a_report_of_a_growing_store_shows_the_complete_runs(folder: Path) -> None:
    arguments = [*COMPARE, "--lrs", "0.1", "--seeds", "500", "--store", "runs.db"]
    command = [sys.executable, "-m", "ratecraft", *arguments, "--workers", "1", "--quiet"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as driver:
        done = command_line.ratecraft(folder, "report", "runs.db")
        while done.returncode and driver.poll() is None:
            done = command_line.ratecraft(folder, "report", "runs.db")
        growing = driver.poll() is None
        second = command_line.ratecraft(folder, *arguments[:-2], "--store", "runs.db")
        driver.kill()
    assert growing
    assert "cosine(1, 0)" in done.stdout
    assert second.returncode == 1
    assert "another comparison is writing to runs.db" in second.stderr


def test_a_search_is_drawn_with_its_verdict(folder: Path) -> None:
    losses = (2.0, 1.0)
    result = LRRangeTestResult((0.01, 0.1), losses, losses, "stopped", None, "no suggestion: short")
    result.save(folder / "search.json")
    done = command_line.ratecraft(folder, "report", "search.json")
    assert done.stdout.endswith("No suggestion: short\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.db"], "error: nothing.db: No such file or directory"),
        (["my_task.py"], "error: my_task.py is not a result"),
        (["empty.db"], "error: empty.db is empty: its shard has not started"),
        (["search.json", "--task", "digits"], "--task is for a store; search.json is not one"),
        (["search.json", "--forecast", "f.json"], "needs the runs of a comparison"),
        (["search.json", "-o", "page.txt"], "page.txt: expected a file ending in"),
    ],
    ids=str,
)
def test_wrong_input_is_answered_in_one_line(
    folder: Path, arguments: list[str], message: str
) -> None:
    losses = (2.0, 1.0)
    result = LRRangeTestResult((0.01, 0.1), losses, losses, "stopped", None, "no suggestion: short")
    result.save(folder / "search.json")
    (folder / "empty.db").touch()
    done = command_line.ratecraft(folder, "report", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_result_is_read_from_a_pipe(folder: Path) -> None:
    losses = (2.0, 1.0)
    result = LRRangeTestResult((0.01, 0.1), losses, losses, "stopped", None, "no suggestion: short")
    content = result.save(folder / "search.json").read_bytes()
    os.mkfifo(folder / "pipe")
    writer = threading.Thread(target=(folder / "pipe").write_bytes, args=[content], daemon=True)
    writer.start()
    done = command_line.ratecraft(folder, "report", "pipe")
    assert done.returncode == 0, done.stderr
    assert done.stdout == command_line.ratecraft(folder, "report", "search.json").stdout
