"""compare and merge: files, lines of progress, events, interruptions."""

import dataclasses
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import command_line
import pytest

from ratecraft import epochs
from ratecraft.cli._config import VALUE_TYPES, CompareConfig
from ratecraft.results import load

TASK = """
import os, time
import torch
from torch import nn
from ratecraft.experiments import Task

x = torch.linspace(-1, 1, 64)[torch.arange(64) * 37 % 64, None]

def task():
    time.sleep(float(os.environ.get("SLOW", 0)))
    loss = lambda model, batch: ((model(batch) - 2 * batch) ** 2).mean()
    def sgd(model):
        groups = [{"params": [model.weight], "name": "weight"},
                  {"params": [model.bias], "lr": 0.01, "name": "bias"}]
        return torch.optim.SGD(groups, lr=0.1)
    error = lambda model, batch: (model(batch) - 2 * batch).abs().mean()
    return Task(model=lambda: nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x],
                optimizer=sgd, metrics={"error": error})
"""
CONFIG = """
task = "my_task.py:task"
lrs = [0.1, 0.01]
seeds = 2
total_steps = 16
store = "runs.db"
save = "c.json"
output = ["c.html", "c.svg"]
workers = 0

[schedules]
flat = "constant(1)"
"goes down" = "cosine(1, 0)"
falls = "plateau(factor=0.5, patience=0)"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_task.py").write_text(TASK)
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def ratecraft(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command_line.ratecraft(folder, *arguments, columns=120)


def enable_ctrl_c() -> None:
    """Handle Ctrl-C in a child process, also if these tests run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_options_override_a_toml_file(folder: Path) -> None:
    (folder / "deep").mkdir()
    done = ratecraft(folder / "deep", "compare", "../config.toml")
    assert done.returncode == 0, done.stderr
    result = load(folder / "c.json")
    assert len(result.runs) == 3 * 2 * 2
    assert "falls, lr 0.01" in result.schedules
    assert result.schedules["falls, lr 0.01"] == "plateau(constant(1), factor=0.5, patience=0)"
    assert result.verdict() in done.stdout.replace("\n", " ")
    assert "[12/12] falls, lr 0.01, seed 1: loss " in done.stderr
    assert "best lr 0.1, not significantly worse" in done.stdout
    assert (folder / "c.html").exists()
    assert "<svg" in (folder / "c.svg").read_text()
    again = ratecraft(folder, "compare", "config.toml", "--seeds", "1", "--quiet")
    assert again.returncode == 0
    assert again.stderr == ""
    assert len(load(folder / "c.json").runs) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task = 3", "config.toml: task = 3; expected a string"),
        ('task = "digits"\nlr = 0.1', "unknown key 'lr'; did you mean 'lrs'?"),
        ('task = "digits"\ntotal_step = 9', "'total_step'; did you mean 'total_steps'?"),
        ('task = "digits"\nzzz = 9', "unknown key 'zzz'; expected task, schedules, lrs"),
        ('task = "digits"\nseeds = "many"', "expected an integer"),
        ('task = "digits"\nschedules = 4', "expected strings, or a table of strings"),
        ('task = "digits"\nhalving = 1', "expected true or false"),
        ('seeds = 3\n[schedules]\na = "constant(1)"', "task is missing"),
        ("task = ", "config.toml is not a valid TOML file"),
        ("task = " + "[" * 10_000, "config.toml is not a valid TOML file: it is nested too deeply"),
        ('task = "digits"\nlrs = 0.1', "compare needs schedules"),
        ('task = "digits"\nlrs = 0.1\nschedules = ["cosine()))"]', "cosine()))"),
    ],
)
def test_an_invalid_toml_file_is_an_error(folder: Path, text: str, words: str) -> None:
    (folder / "config.toml").write_text(text)
    done = command_line.ratecraft_in_this_process(folder, "compare", "config.toml")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shard", "1/2"), "--shard needs its own --store"),
        (("--shard", "3/2", "--store", "s.db"), "expected i/n, such as 1/8"),
        (("--address", "auto"), "need --engine ray"),
        (("--engine", "slurm"), 'expected "local", "ray"'),
        (("--forecast", "c.json"), "c.json"),
        (("--halving", "--lrs", "0.1"), "halving chooses among lrs"),
        (("--lrs", "0.1,x"), "'x': expected a number"),
        (("--lrs", "find", "--optimizers", "sgd,adam"), "finds the lr of one optimizer"),
    ],
)
def test_options_that_conflict_are_errors(folder: Path, arguments: tuple, words: str) -> None:
    if "--lrs" not in arguments:
        arguments = (*arguments, "--lrs", "0.1")
    done = command_line.ratecraft_in_this_process(
        folder, "compare", "my_task.py:task", "constant(1)", "-n", "8", *arguments
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_events_are_lines_of_json(folder: Path) -> None:
    done = ratecraft(folder, "compare", "config.toml", "--json", "--lrs", "0.1,1e30")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    lines = [line for line in lines if line["event"] != "step"]  # on a slow machine
    assert [line["event"] for line in lines] == ["started", "done"] * 12 + ["result"]
    assert lines[1]["metrics"].keys() == {"loss", "error"}
    assert lines[-2]["done"] == lines[-2]["planned"] == 12
    assert any(line.get("diverged") is not None for line in lines)
    assert lines[-1]["verdict"].endswith(".")
    assert lines[-1]["rows"][-1]["mean"]["loss"] is None
    assert "report: " in done.stderr


@pytest.mark.slow
def test_shards_are_merged(folder: Path) -> None:
    for i in (1, 2):
        done = ratecraft(
            folder, "compare", "config.toml", "--shard", f"{i}/2", "--store", f"{i}.db", "--quiet"
        )
        assert done.returncode == 0, done.stderr
        assert f"shard {i} of 2 is done" in done.stderr
    done = ratecraft(folder, "merge", "runs.db", "1.db", "2.db")
    assert done.stdout == "runs.db: 12 new runs\n"
    done = ratecraft(folder, "compare", "config.toml", "--json")
    assert {json.loads(line)["event"] for line in done.stdout.splitlines()} == {"resumed", "result"}
    assert ratecraft(folder, "merge", "runs.db").returncode == 2
    assert "there is no store" in ratecraft(folder, "merge", "runs.db", "none.db").stderr


@pytest.mark.slow
def test_a_report_shows_a_forecast_next_to_the_results(folder: Path) -> None:
    ratecraft(folder, *("train", "my_task.py:task", "wsd(5)", "--lr", "0.01", "-n", "60"),
              *("--save", "log.json"))  # fmt: skip
    done = ratecraft(folder, *("forecast", "log.json", "cosine(1, 0)", "--save", "f.json"))
    assert done.returncode == 0, done.stderr
    done = ratecraft(
        folder,
        *("compare", "my_task.py:task", "cosine(1, 0)", "--lrs", "0.01", "-n", "60"),
        *("--seeds", "1", "--workers", "0", "--forecast", "f.json", "-o", "r.html"),
    )
    assert done.returncode == 0, done.stderr
    page = (folder / "r.html").read_text()
    assert '<h2 id="forecast">Forecast</h2>' in page
    wrong = ratecraft(folder, *("compare", "my_task.py:task", "cosine(1, 0)", "--lrs", "0.01"),
                      *("--forecast", "log.json"))  # fmt: skip
    assert "holds a Comparison; expected a forecast" in wrong.stderr


@pytest.mark.parametrize(
    ("signal_number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_an_interrupted_comparison_is_resumed(folder: Path, signal_number: int, code: int) -> None:
    command = [sys.executable, "-m", "ratecraft", "compare", "config.toml", "--workers", "1"]
    environment = os.environ | {"SLOW": "0.5", "NO_COLOR": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
        preexec_fn=enable_ctrl_c,  # noqa: PLW1509 - no thread runs yet
    ) as process:  # fmt: skip
        lines = []
        while not any(line.startswith("[2/12]") for line in lines):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        process.send_signal(signal_number)
        rest = process.stderr.read()
    assert process.returncode == code
    assert re.search(r"\d+ of 12 runs are saved in \S*runs.db; run the same command again", rest)
    assert "Traceback" not in rest
    done = ratecraft(folder, "compare", "config.toml")
    assert done.returncode == 0
    assert len(load(folder / "c.json").runs) == 12


@pytest.mark.slow
def test_a_terminal_shows_a_live_view(folder: Path) -> None:
    terminal, child_terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ratecraft", "compare", "config.toml"],
        cwd=folder,
        env=os.environ | {"SLOW": "0.3", "TERM": "xterm", "COLUMNS": "150"},
        stdout=subprocess.PIPE,
        stderr=child_terminal,
        text=True,
    ) as process:
        os.close(child_terminal)
        screen = b""
        while True:
            try:
                chunk = os.read(terminal, 4096)
            except OSError:  # the command has ended
                break
            if not chunk:
                break
            screen += chunk
        result = process.stdout.read()
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.decode())
    assert re.search(r"training .*\d+/12 runs .* left", text)
    assert re.search(r"1 running  best so far [\d.e-]+: ", text)
    assert "[1/12]" not in text
    assert "has the lowest validation loss" in result.replace("\n", " ")
    assert "\x1b" not in result


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from ratecraft import constant\n"
        "from ratecraft.experiments import compare\n"
        "compare('digits', [constant(1)], lrs=0.1, seeds=1, total_steps=3, workers=1)\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'put the call under if __name__ == "__main__":' in done.stderr


@pytest.mark.slow
def test_a_task_typed_into_a_session_trains_in_its_process(tmp_path: Path) -> None:
    session = (
        "from ratecraft import constant\n"
        "from ratecraft.experiments import compare, load_task\n"
        "def mine():\n"
        "    return load_task('digits')\n"
        "\n"
        "options = {'lrs': 0.1, 'seeds': 1, 'total_steps': 3}\n"
        "print(len(compare(mine, [constant(1)], **options, workers=0).runs))\n"
        "compare(mine, [constant(1)], **options)\n"
    )
    done = subprocess.run(
        [sys.executable], input=session, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "1\n"
    assert "move it into a file, or pass workers=0 to train in this process" in done.stderr


def test_ctrl_c_ends_an_import_that_discards_exceptions(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import sys, time\n"
        "print('importing', file=sys.stderr, flush=True)\n"
        "try:\n"
        "    time.sleep(5)\n"
        "except BaseException:  # as extension modules do\n"
        "    pass\n"
    )
    (tmp_path / "my_task.py").write_text("import stubborn\n" + TASK)
    with subprocess.Popen(
        [sys.executable, "-m", "ratecraft", "compare", "my_task.py:task", "constant(1)"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=enable_ctrl_c,  # noqa: PLW1509 - no thread runs yet
    ) as process:
        assert process.stderr.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert (process.returncode, errors) == (130, "error: interrupted\n")


def test_a_toml_file_may_have_one_schedule_but_no_empty_list(folder: Path) -> None:
    config = 'task = "my_task.py:task"\nlrs = 0.1\ntotal_steps = 8\nseeds = 1\nworkers = 0\n'
    (folder / "one.toml").write_text(config + 'schedules = "cosine(1, 0)"\nsave = "one.json"')
    done = ratecraft(folder, "compare", "one.toml")
    assert done.returncode == 0, done.stderr
    assert load(folder / "one.json").schedules == {"cosine(1, 0)": "cosine(1, 0)"}
    for name in ("lrs", "total_steps", "optimizers", "output"):
        text = re.sub(rf"^{name} = .*$", "", config, flags=re.M) + 'schedules = "cosine(1, 0)"\n'
        (folder / "empty.toml").write_text(text + f"{name} = []")
        done = ratecraft(folder, "compare", "empty.toml")
        assert done.returncode == 2
        assert f"{name} = []; expected" in done.stderr


def test_every_option_is_a_key_of_a_toml_file() -> None:
    assert {field.name for field in dataclasses.fields(CompareConfig)} == set(VALUE_TYPES)


def test_a_list_in_a_toml_file_is_an_option_with_commas(tmp_path: Path) -> None:
    path = tmp_path / "lists.toml"
    path.write_text(
        'task = "digits"\nlrs = [1e-5, 0.1]\noptimizers = ["sgd", "adam"]\n'
        'total_steps = [16, "epochs(2)"]\nschedules = ["wsd(2)", "cosine(1, 0)"]\n'
    )
    config = CompareConfig.load(str(path), (), None)
    assert config.lr_values() == [1e-5, 0.1]
    assert config.optimizer_names() == ["sgd", "adam"]
    assert [str(length) for length in config.lengths()] == ["16", str(epochs(2))]
    assert list(config.candidates()) == ["wsd(2)", "cosine(1, 0)"]
    assert list(CompareConfig.load(str(path), ("linear(1, 0)",), None).candidates()) == [
        "linear(1, 0)"
    ]


def test_a_shard_needs_lrs(folder: Path) -> None:
    done = ratecraft(
        folder, "compare", "my_task.py:task", "constant(1)", "--shard", "1/2", "--store", "s.db"
    )
    assert done.returncode == 2
    assert "--shard needs lrs" in done.stderr


@pytest.mark.slow
def test_compare_takes_several_lrs_and_optimizers_and_saves_runs(folder: Path) -> None:
    command = (
        *("compare", "my_task.py:task", "constant(1)", "cosine(1, 0)", "--lr", "0.01,0.1"),
        *("--optimizer", "sgd,adam", "--seeds", "2", "--total-steps", "16", "--workers", "0"),
        *("--store", "runs.db", "--save", "many.json", "-o", "many.html"),
    )
    done = ratecraft(folder, *command)
    assert done.returncode == 0, done.stderr
    result = load(folder / "many.json")
    assert len(result.schedules) == 8
    assert len(result.runs) == 16
    assert "Learning-rate sensitivity" in (folder / "many.html").read_text()
    again = ratecraft(folder, *command)
    assert again.returncode == 0, again.stderr
    assert load(folder / "many.json") == result
    (folder / "notes.db").write_bytes(b"notes" * 1000)
    wrong = ratecraft(folder, *command[:-6], "--store", "notes.db")
    assert wrong.returncode == 2
    assert "is not a store of runs" in wrong.stderr
    wrong = ratecraft(folder, "compare", "digits", "constant(1)", "--optimizer", "sgd,adam")
    assert "finds the lr of one optimizer" in wrong.stderr


def test_a_script_with_arguments_after_a_separator(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import sys, ratecraft\n"
        "trial = ratecraft.trial(lr=1, schedule='constant(1)')\n"
        "trial.log(trial.seed, val_loss=trial.lr * int(sys.argv[2]) + len(str(trial.schedule)))\n"
    )
    (tmp_path / "config.toml").write_text(
        'task = "train.py"\nschedules = "wsd(2)"\nlrs = 0.5\nseeds = 1\n'
        'arguments = ["--width", "3"]'
    )
    save = ("--save", "result.json", "--quiet", "--workers", "0")
    command = ("compare", "train.py", "wsd(2)", "--lr", "0.5", "--seeds", "1", *save)
    for words in ((*command, "--", "--width", "3"), ("compare", "config.toml", *save)):
        done = ratecraft(tmp_path, *words)
        assert done.returncode == 0, done.stderr
        assert "train.py --width 3" in load(tmp_path / "result.json").task
        (run,) = load(tmp_path / "result.json").runs
        assert run.final() > 1.5
    wrong = ratecraft(tmp_path, *command, "--width", "3")
    assert wrong.returncode == 2
    assert "the arguments of a script follow --" in wrong.stderr
    wrong = ratecraft(tmp_path, "compare", "digits", "wsd(2)", "--timeout", "3", "--", "--width")
    assert wrong.returncode == 2
    assert "--timeout and arguments after --: only for a script, such as train.py" in wrong.stderr
