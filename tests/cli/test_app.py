"""Errors, exit codes, help and completion of the command."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import ratecraft, ratecraft_in_this_process

from ratecraft.cli._app import app


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "warmpu(500)"), 2, "did you mean 'warmup'?\n  warmpu(500)\n  ^^^^^^"),
        (("show", "cosine(1, 0)"), 2, "needs total_steps=, or over= as a length of its own"),
        (("show", "constant(1)"), 2, "--total-steps 10000"),
        (("show",), 2, "show needs a schedule"),
        (("show", "warmup(5)", "-o", "x.gif"), 2, ".png"),
        (("check",), 2, "check needs a schedule"),
        (("check", "cosine(1"), 2, "'(' was never closed"),
        (("shw",), 2, 'Did you mean "show"?'),
        (("find",), 2, "requires an argument"),
        (("find", "nowhere.py:task"), 2, "there is no file nowhere.py; that folder has my_task.py"),
        (("find", "my_task.py:tusk"), 2, "has no function 'tusk'"),
        (("find", "my_task.py:number"), 2, "returned int; expected a ratecraft.Task"),
        (("find", "my_task.py:task", "--optimizer", "torch.Adam"), 2, "is not an optimizer class"),
        (("find", "my_task.py:nan"), 1, "the loss is nan before any training"),
        (("find", "my_task.py:nan", "--range-test"), 1, "the loss is nan at the first step"),
        (
            ("find", "my_task.py:task", "--budget-steps", "9"),
            2,
            "budget_steps=9: expected at least 50",
        ),
        (("find", "my_task.py:task", "--low", "1"), 2, "--high and --linear need --range-test"),
        (("find", "my_task.py:task", "--steps", "99"), 2, "--high and --linear need --range-test"),
        (("find", "my_task.py:task", "--total-steps", "x"), 2, "x"),
        (
            ("find", "my_task.py:task", "--range-test", "-n", "9"),
            2,
            "--total-steps and --budget-steps cannot be used with --range-test",
        ),
        (("find", "my_task.py:crash"), 1, "RuntimeError: mat1 and mat2 shapes"),
        (
            ("find", "my_task.py:task", "--range-test", "--low", "5", "--high", "1"),
            2,
            "0 < low < high",
        ),
        (("compare", "my_task.py:task", "--lr", "1"), 2, "compare needs schedules"),
        (("compare", "my_task.py:task", "cosine()", "--lr", "-1"), 2, "expected a number >= 0"),
        (("compare", "my_task.py:task", "cosine()", "--seeds", "0"), 2, "expected a number >= 1"),
        (
            ("compare", "my_task.py:task", "cosine()", "-o", "r.txt"),
            2,
            "ending in .html, .png, .svg, .pdf",
        ),
        (("find", "my_task.py:task", "--save", "."), 2, "ending in .json"),
        (("find", "my_task.py:task", "-o", "no/such/my_task.py/x.gif"), 2, ".png"),
        (("compare", "my_task.py:task", "cosine(1, 0)", "--lr", "fast"), 2, "expected a number"),
        (("compare", "my_task.py:task", "cosine(1 0)", "--lr", "1"), 2, "cosine(1 0)"),
        (
            ("compare", "my_task.py:nan", "cosine(1, 0)", "--lr", "1", "--workers", "0"),
            1,
            "the loss of every run became nan or inf; use a lower lr",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_each_mistake_gives_one_clear_message(
    folder: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = ratecraft_in_this_process(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("forecst", "log.csv"), 'Did you mean "forecast"?'),
        (("show", "cosine(1, 0)", "--total-stps", "9"), "Did you mean --total-steps?"),
        (("find", "digits", "--totl-steps", "9"), "Did you mean --total-steps?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistyped_name_gives_a_hint(
    tmp_path: Path, arguments: tuple[str, ...], hint: str
) -> None:
    done = ratecraft(tmp_path, *arguments)
    assert done.returncode == 2
    assert hint in done.stderr
    command = "ratecraft" if arguments[0] == "forecst" else f"ratecraft {arguments[0]}"
    assert done.stderr.endswith(f"\nsee: {command} --help\n")


def test_ctrl_c_stops_without_a_traceback(folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import multiprocessing, pathlib\n"
        "from ratecraft.experiments import load_task\n"
        "def task():\n"
        "    if multiprocessing.parent_process() is not None:\n"
        "        pathlib.Path('started').touch()\n"
        "    return load_task('digits')\n"
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ratecraft", "compare", "slow.py:task", "constant(1)"),
            *("--lr", "0.001", "--total-steps", "epochs(500)", "--workers", "1"),
        ],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores Ctrl-C, and so would its child processes.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    with process:
        try:
            while not (folder / "started").exists() and process.poll() is None:
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "error: interrupted" in errors
    assert "Traceback" not in errors


def test_info_prints_versions_and_devices(folder: Path) -> None:
    done = ratecraft(folder, "info")
    assert done.returncode == 0, done.stderr
    assert f"torch {torch.__version__}: " in done.stdout
    assert re.search(r"\ndevices: cpu \(\d+ threads\)", done.stdout)
    assert "scikit-learn" in done.stdout


def test_help_has_examples_and_the_exit_codes(folder: Path) -> None:
    text = ratecraft(folder, "--help").stdout
    assert "143" in text
    assert "NO_COLOR" in text
    for name in ("show", "check", "doctor", "find", "forecast", "train", "compare", "merge"):
        assert f"ratecraft {name} " in ratecraft(folder, name, "--help").stdout, name


def test_every_command_has_a_description_an_example_and_help_for_every_option() -> None:
    count = 0
    for name in (name for name in app if not name.startswith("-")):
        assert f"Example: `ratecraft {name}" in app[name].help, name
        for argument in app[name].assemble_argument_collection(parse_docstring=True):
            if argument.name == "*":  # options that are the fields of a dataclass follow
                continue
            assert argument.parameter.help, f"{name} {argument.name}"
            count += 1
    assert count > 50


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_written_to_a_file(folder: Path, shell: str) -> None:
    target = folder / f"completion.{shell}"
    done = ratecraft(folder, "--install-completion", "--shell", shell, "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert "compare" in target.read_text()


@pytest.mark.slow
def test_sys_exit_in_a_loss_is_an_error(folder: Path) -> None:
    task, short = ("my_task.py:leaves", "constant(1)", "--lr", "1"), ("--total-steps", "8")
    for command in (("train", *task, *short), ("compare", *task, *short, "--workers", "1")):
        done = ratecraft(folder, *command)
        assert done.returncode == 1, command
        assert "SystemExit: 0" in done.stderr


@pytest.mark.slow
def test_a_module_in_the_current_folder_is_found(folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("ratecraft")), "train", "my_task:task"]
    for task in ("my_task:task", "no_such:task"):
        command[2:] = [task, "constant(1)", "--lr", "0.1", "--total-steps", "8"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == (0 if task == "my_task:task" else 2), done.stderr
    assert "cannot import 'no_such'" in done.stderr


def test_lengths_in_samples_are_errors_in_commands_that_train(folder: Path) -> None:
    for command in (("find",), ("train", "constant(1)", "--lr", "1"), ("compare", "constant(1)")):
        name, *rest = command
        done = ratecraft_in_this_process(
            folder, name, "my_task.py:task", *rest, "--total-steps", "samples(100)"
        )
        assert done.returncode == 2, name
        assert "a Task's run is counted in steps, not in samples" in done.stderr, name
