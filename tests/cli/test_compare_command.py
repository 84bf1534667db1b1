"""train, compare and merge as a user runs them: files, lines, events, ends."""

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
PLAN = """
task = "my_task.py:task"
lrs = [0.1, 0.01]
seeds = 2
total = 16
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
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path


def ratecraft(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ratecraft", *arguments],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


def heeding() -> None:
    """Let Ctrl-C be heard also where these tests run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_train_prints_every_epoch(folder: Path) -> None:
    done = ratecraft(
        folder,
        *("train", "my_task.py:task", "warmup(8).then(cosine(1, 0))", "--lr", "0.1"),
        *("-t", "epochs(3)", "--save", "r.json", "-o", "r.html", "-o", "r.png"),
    )
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()[:4]
    assert re.split("  +", head.strip()) == [
        "epoch", "step", "train loss", "val loss", "train error", "val error",
        "lr weight", "lr bias",
    ]  # fmt: skip
    assert [row.split()[:2] for row in rows] == [["1", "8"], ["2", "16"], ["3", "24"]]
    (run,) = load(folder / "r.json").runs
    for row, seen in zip(rows, run.evaluations, strict=True):
        told = [float(value) for value in row.split()[2:]]
        assert told[1] == pytest.approx(seen.metrics["loss"], rel=1e-3)
        assert told[-2:] == pytest.approx(list(seen.lrs.values()), rel=1e-3)
        assert told[-1] == pytest.approx(told[-2] / 10, rel=1e-3)
    assert "24 steps in " in done.stdout
    assert (folder / "r.html").exists()
    assert (folder / "r.png").read_bytes().startswith(b"\x89PNG")


def test_train_says_where_a_run_diverged(folder: Path) -> None:
    done = ratecraft(folder, "train", "my_task.py:task", "constant(1)", "--lr", "1e30")
    assert done.returncode == 1
    assert re.search(r"the loss became nan or inf at step \d", done.stderr)


def test_a_plan_in_a_file_and_options_before_it(folder: Path) -> None:
    (folder / "deep").mkdir()
    done = ratecraft(folder / "deep", "compare", "../plan.toml")
    assert done.returncode == 0, done.stderr
    result = load(folder / "c.json")
    assert len(result.runs) == 3 * 2 * 2
    assert "falls, lr 0.01" in result.schedules
    assert result.schedules["falls, lr 0.01"] == "plateau(constant(1), factor=0.5, patience=0)"
    assert result.verdict() in done.stdout.replace("\n", " ")
    assert "[12/12] falls, lr 0.01, seed 1: loss " in done.stderr
    assert "best lr 0.1, not told from it" in done.stdout
    assert (folder / "c.html").exists()
    assert "<svg" in (folder / "c.svg").read_text()
    again = ratecraft(folder, "compare", "plan.toml", "--seeds", "1", "--quiet")
    assert again.returncode == 0
    assert again.stderr == ""
    assert len(load(folder / "c.json").runs) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task = 3", "plan.toml: task = 3; expected a text"),
        ('task = "digits"\nlr = 0.1', "'lr' is none of what a comparison knows; did you mean"),
        ('task = "digits"\nseeds = "many"', "expected a whole number"),
        ('task = "digits"\nschedules = 4', "expected texts, or a table of texts by name"),
        ('task = "digits"\nhalving = 1', "expected true or false"),
        ('seeds = 3\n[schedules]\na = "constant(1)"', "task is missing"),
        ("task = ", "plan.toml is no TOML"),
        ('task = "digits"\nlrs = 0.1', "compare needs schedules"),
        ('task = "digits"\nlrs = 0.1\nschedules = ["cosine()))"]', "cosine()))"),
    ],
)
def test_what_is_wrong_in_the_file_is_told(folder: Path, text: str, words: str) -> None:
    (folder / "plan.toml").write_text(text)
    done = ratecraft(folder, "compare", "plan.toml")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shard", "1/2"), "--shard needs a --store"),
        (("--shard", "3/2", "--store", "s.db"), "expected i/n, such as 1/8"),
        (("--address", "auto"), "belong to --engine ray"),
        (("--engine", "slurm"), 'expected "local", "ray"'),
        (("--forecast", "c.json"), "c.json"),
        (("--halving", "--lrs", "0.1"), "halving chooses among lrs"),
        (("--lrs", "0.1,x"), "'x': expected a number"),
        (("--lrs", "find", "--optimizers", "sgd,adam"), "looks for one lr"),
    ],
)
def test_what_does_not_go_together_is_told(folder: Path, arguments: tuple, words: str) -> None:
    said = arguments if "--lrs" in arguments else (*arguments, "--lrs", "0.1")
    done = ratecraft(folder, "compare", "my_task.py:task", "constant(1)", "-t", "8", *said)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_events_are_lines_of_json(folder: Path) -> None:
    done = ratecraft(folder, "compare", "plan.toml", "--json", "--lrs", "0.1,1e30")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["what"] for line in lines] == ["started", "done"] * 12 + ["result"]
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
            folder, "compare", "plan.toml", "--shard", f"{i}/2", "--store", f"{i}.db", "--quiet"
        )
        assert done.returncode == 0, done.stderr
        assert f"shard {i} of 2 is done" in done.stderr
    done = ratecraft(folder, "merge", "runs.db", "1.db", "2.db")
    assert done.stdout == "runs.db: 12 runs that were not in it before\n"
    done = ratecraft(folder, "compare", "plan.toml", "--json")
    assert {json.loads(line)["what"] for line in done.stdout.splitlines()} == {"kept", "result"}
    assert ratecraft(folder, "merge", "runs.db").returncode == 2
    assert "there is no store" in ratecraft(folder, "merge", "runs.db", "none.db").stderr


@pytest.mark.slow
def test_a_forecast_is_shown_beside_what_happened(folder: Path) -> None:
    ratecraft(folder, *("train", "my_task.py:task", "wsd(5)", "--lr", "0.01", "-t", "60"),
              *("--save", "log.json"))  # fmt: skip
    done = ratecraft(folder, *("predict", "log.json", "cosine(1, 0)", "--save", "f.json"))
    assert done.returncode == 0, done.stderr
    done = ratecraft(
        folder,
        *("compare", "my_task.py:task", "cosine(1, 0)", "--lrs", "0.01", "-t", "60"),
        *("--seeds", "1", "--workers", "0", "--forecast", "f.json", "-o", "r.html"),
    )
    assert done.returncode == 0, done.stderr
    page = (folder / "r.html").read_text()
    assert "Foreseen" in page
    wrong = ratecraft(folder, *("compare", "my_task.py:task", "cosine(1, 0)", "--lrs", "0.01"),
                      *("--forecast", "log.json"))  # fmt: skip
    assert "holds a Comparison; expected a forecast" in wrong.stderr


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_it_can_be_stopped_and_goes_on(folder: Path, sent: int, code: int) -> None:
    command = [sys.executable, "-m", "ratecraft", "compare", "plan.toml", "--workers", "1"]
    environment = os.environ | {"SLOW": "0.5", "NO_COLOR": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding,  # noqa: PLW1509 - no thread runs yet
    ) as process:  # fmt: skip
        lines = []
        while not any(line.startswith("[2/12]") for line in lines):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        process.send_signal(sent)
        rest = process.stderr.read()
    assert process.returncode == code
    assert re.search(r"\d+ of 12 runs are in \S*runs.db; the same command goes on", rest)
    assert "Traceback" not in rest
    base = sqlite3.connect(folder / "runs.db")
    ((left,),) = base.execute("SELECT count(*) FROM trials WHERE status = 'running'").fetchall()
    base.close()
    assert left == 0
    done = ratecraft(folder, "compare", "plan.toml")
    assert done.returncode == 0
    assert len(load(folder / "c.json").runs) == 12


def test_on_a_terminal_there_is_a_live_view(folder: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ratecraft", "compare", "plan.toml"],
        cwd=folder,
        env=os.environ | {"SLOW": "0.3", "TERM": "xterm", "COLUMNS": "150"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the other side was closed
                break
            if not chunk:
                break
            seen += chunk
        result = process.stdout.read()
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert re.search(r"training .*\d+/12 runs .* left", text)
    assert re.search(r"1 running  best so far [\d.e-]+: ", text)
    assert "[1/12]" not in text
    assert "has the lowest validation loss" in result.replace("\n", " ")
    assert "\x1b" not in result


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_what_is_missing(tmp_path: Path) -> None:
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
def test_a_task_typed_into_a_session_trains_there(tmp_path: Path) -> None:
    session = (
        "from ratecraft import constant\n"
        "from ratecraft.experiments import compare, load_task\n"
        "def mine():\n"
        "    return load_task('digits')\n"
        "\n"
        "settings = {'lrs': 0.1, 'seeds': 1, 'total': 3}\n"
        "print(len(compare(mine, [constant(1)], **settings, workers=0).runs))\n"
        "compare(mine, [constant(1)], **settings)\n"
    )
    done = subprocess.run(
        [sys.executable], input=session, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "1\n"
    assert "put it into a file, or pass workers=0 to train in this process" in done.stderr


def test_ctrl_c_while_it_is_loading_ends_in_a_line(tmp_path: Path) -> None:
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "ratecraft", "compare", "digits", "constant(1)"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding,  # noqa: PLW1509 - no thread runs yet
    ) as process:
        time.sleep(0.35)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130, (told, time.monotonic() - started)
    assert "Traceback" not in told


def test_train_writes_down_which_optimizer_it_was(folder: Path) -> None:
    told = ("--lr", "0.01", "--total-steps", "8", "--optimizer", "adamw", "--save", "t.json")
    done = ratecraft(folder, "train", "my_task.py:task", "constant(1)", *told)
    assert done.returncode == 0, done.stderr
    assert load(folder / "t.json").runs[0].optimizer == "adamw"


def test_a_plan_may_have_one_schedule_and_nothing_empty(folder: Path) -> None:
    plan = 'task = "my_task.py:task"\nlrs = 0.1\ntotal = 8\nseeds = 1\nworkers = 0\n'
    (folder / "one.toml").write_text(plan + 'schedules = "cosine(1, 0)"\nsave = "one.json"')
    done = ratecraft(folder, "compare", "one.toml")
    assert done.returncode == 0, done.stderr
    assert load(folder / "one.json").schedules == {"cosine(1, 0)": "cosine(1, 0)"}
    for name in ("lrs", "total", "optimizers", "output"):
        text = re.sub(rf"^{name} = .*$", "", plan, flags=re.M) + 'schedules = "cosine(1, 0)"\n'
        (folder / "empty.toml").write_text(text + f"{name} = []")
        done = ratecraft(folder, "compare", "empty.toml")
        assert done.returncode == 2
        assert f"{name} = []; expected" in done.stderr


def test_words_between_colons_stay_words(folder: Path) -> None:
    (folder / "fire.json").write_text("{}")
    done = ratecraft(folder, "predict", "log:fire:.csv")
    assert ":fire:" in done.stderr


def test_a_shard_is_told_its_lrs(folder: Path) -> None:
    done = ratecraft(
        folder, "compare", "my_task.py:task", "constant(1)", "--shard", "1/2", "--store", "s.db"
    )
    assert done.returncode == 2
    assert "--shard needs lrs" in done.stderr
