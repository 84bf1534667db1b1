"""The command as a user runs it: a process of its own, its output and its exit code."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ratecraft.cli._app import app
from ratecraft.results import load

TASK = """
import torch
from torch import nn
from ratecraft.experiments import Task

x = torch.linspace(-1, 1, 64)[torch.arange(64) * 37 % 64, None]

def make(loss=None, **fields):
    loss = loss or (lambda model, batch: ((model(batch) - 2 * batch) ** 2).mean())
    sgd = lambda model: torch.optim.SGD(model.parameters(), lr=0.1)
    return Task(model=lambda: nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x], optimizer=sgd)

def task(): return make()
def leaves(): return make(lambda model, batch: (model(batch).mean(), __import__("sys").exit(0))[0])
def noisy():
    noise = __import__("numpy").random.randn
    return make(lambda model, batch: ((model(batch) - 2 * batch + 0.1 * noise()) ** 2).mean())
def number(): return 3
def nan(): return make(lambda model, batch: model(batch).mean() * float("nan"))
def crash(): return make(lambda model, batch: (model(batch) @ torch.zeros(7, 7)).mean())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_task.py").write_text(TASK)
    return folder


def ratecraft(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "ratecraft", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


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


def test_show_draws_a_schedule_with_a_length_of_its_own(folder: Path) -> None:
    done = ratecraft(folder, "show", "warmup(epochs(2))", "--steps-per-epoch", "50")
    assert "100 steps" in done.stdout


def test_find_and_compare_run_a_users_own_file(folder: Path) -> None:
    done = ratecraft(
        folder, *("find", "my_task.py:task", "--save", "r.json", "-o", "r.svg", "-t", "epochs(5)")
    )
    assert done.returncode == 0, done.stderr
    result = load(folder / "r.json")
    band = f"(as good: {result.low:.3g} to {result.high:.3g})"
    assert f"\nlr: {result.lr:.3g} {band}\n" in done.stdout
    assert f"SGD: {result.cost}\n{result.reason}\n" in done.stdout
    assert re.search("[\u2801-\u28ff]", done.stdout)
    assert (result.seed, result.optimizer, result.allowed) == (0, "SGD", 200)
    assert result.total_steps == 5 * 8
    assert "<svg" in (folder / "r.svg").read_text()
    other = ratecraft(
        folder, *("find", "my_task.py:task", "--optimizer", "torch.optim.AdamW", "--steps", "90")
    )
    assert re.search(r"AdamW: \d+ of 90 steps in \d+ short runs", other.stdout)
    done = ratecraft(
        folder,
        *(
            "compare",
            "my_task.py:task",
            "constant(1)",
            "cosine(1, 0)",
            "--total-steps",
            "epochs(5)",
        ),
        *("--seeds", "2", "--workers", "2", "--save", "c.json", "-o", "c.html"),
    )
    assert done.returncode == 0, done.stderr
    comparison = load(folder / "c.json")
    assert comparison.verdict() in done.stdout.replace("\n", " ")
    assert len(comparison.runs) == 4
    assert comparison.runs[0].lr == result.lr
    assert comparison.verdict() in (folder / "c.html").read_text()


def test_find_classic_runs_the_range_test_and_shows_what_known_rules_make_of_it(
    folder: Path,
) -> None:
    done = ratecraft(
        folder,
        *("find", "my_task.py:task", "--classic", "--linear", "--low", "1e-4", "--high", "1"),
        *("--steps", "120", "--save", "s.json", "-o", "s.svg"),
    )
    assert done.returncode == 0, done.stderr
    result = load(folder / "s.json")
    assert f"suggested lr: {result.suggestion:.3g}" in done.stdout
    assert re.search(r"\n  valley +[\d.e-]+  the middle of the longest valley", done.stdout)
    assert result.cost in done.stdout
    assert (result.low, result.high, result.planned) == (1e-4, 1.0, 120)
    assert result.spacing == "linear"
    assert "<svg" in (folder / "s.svg").read_text()


def test_check_finds_and_exits_with_1_on_errors(folder: Path) -> None:
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


def test_doctor_looks_at_what_a_function_builds(folder: Path) -> None:
    (folder / "setups.py").write_text(SETUPS)
    good = ratecraft(folder, "doctor", "setups.py:right", "--total-steps", "100")
    assert (good.returncode, good.stdout) == (0, "setups.py:right: nothing to report\n")
    bad = ratecraft(folder, "doctor", "setups.py:wrong", "--total-steps", "300")
    assert bad.returncode == 1
    assert "error: CosineAnnealingLR drives another optimizer" in bad.stdout
    assert "error: CosineAnnealingLR ends after 100 of the run's 300 steps" in bad.stdout
    assert bad.stderr == "error: 2 of the findings are errors\n"
    odd = ratecraft(folder, "doctor", "setups.py:nothing")
    assert odd.returncode == 2
    assert "setups.py:nothing: doctor() looks at models, optimizers" in odd.stderr
    missing = ratecraft(folder, "doctor", "setups.py")
    assert missing.returncode == 2
    assert "expected file.py:function" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "warmpu(500)"), 2, "did you mean 'warmup'?\n  warmpu(500)\n  ^^^^^^"),
        (("show", "cosine(1, 0)"), 2, "has no length of its own and needs total_steps="),
        (("show", "constant(1)"), 2, "--total-steps 10000"),
        (("show",), 2, "show needs a schedule"),
        (("show", "warmup(5)", "-o", "x.gif"), 2, ".png"),
        (("check",), 2, "check needs a schedule"),
        (("check", "cosine(1"), 2, "'(' was never closed"),
        (("shw",), 2, 'Did you mean "show"?'),
        (("find",), 2, "requires an argument"),
        (("find", "nowhere.py:task"), 2, "there is no file nowhere.py; that folder has my_task.py"),
        (("find", "my_task.py:tusk"), 2, "has no function 'tusk'"),
        (("find", "my_task.py:number"), 2, "returned int, where a ratecraft.experiments.Task was"),
        (("find", "my_task.py:task", "--optimizer", "torch.Adam"), 2, "is no optimizer class"),
        (("find", "my_task.py:nan"), 1, "the loss is nan before any training"),
        (("find", "my_task.py:nan", "--classic"), 1, "the loss is nan at the first step"),
        (("find", "my_task.py:task", "--steps", "9"), 2, "steps=9: expected at least 50"),
        (("find", "my_task.py:task", "--low", "1"), 2, "belong to the range test; add --classic"),
        (("find", "my_task.py:task", "--total-steps", "x"), 2, "x"),
        (
            ("find", "my_task.py:task", "--classic", "-t", "9"),
            2,
            "--total-steps: the range test knows",
        ),
        (("find", "my_task.py:crash"), 1, "RuntimeError: mat1 and mat2 shapes"),
        (
            ("find", "my_task.py:task", "--classic", "--low", "5", "--high", "1"),
            2,
            "0 < low < high",
        ),
        (("compare", "my_task.py:task", "--lr", "1"), 2, "compare needs schedules"),
        (("compare", "my_task.py:task", "cosine()", "--lr", "-1"), 2, "an lr must be >= 0"),
        (("compare", "my_task.py:task", "cosine()", "--seeds", "0"), 2, "expected >= 1"),
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
            "the loss of every run became nan or inf; train at a lower --lr",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_each_mistake_gives_one_clear_message(
    folder: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = ratecraft(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr + done.stdout


def test_ctrl_c_stops_it_without_a_traceback(folder: Path) -> None:
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
        # Tests that run in a shell's background would hand down that Ctrl-C is ignored.
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
    assert "error: stopped" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_the_demo_does_the_whole_job(tmp_path: Path) -> None:
    done = ratecraft(tmp_path, "demo", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    comparison = load(tmp_path / "ratecraft-demo" / "comparison.json")
    found = load(tmp_path / "ratecraft-demo" / "found-lr.json")
    assert len(comparison.schedules) == 5
    assert len(comparison.runs) == 10
    assert {run.lr for run in comparison.runs} == {found.lr}
    page = (tmp_path / "ratecraft-demo" / "report.html").read_text()
    for row in comparison.summaries():
        assert row.name in done.stdout
        assert f"{row.mean['accuracy']:.4f} ± {row.spread['accuracy']:.4f}" in done.stdout
        assert row.name in page
        assert row.mean["accuracy"] > 0.9
    assert comparison.verdict() in done.stdout.replace("\n", " ")


@pytest.fixture(scope="module")
def log(folder: Path) -> str:
    rows = ["step,lr,loss"]
    for k in range(20, 2001, 20):
        lr = 0.01 * min(1, (2000 - k) / 400)
        rows.append(f"{k},{lr},{2 + 3 * (k / 1000 + 0.1) ** -0.3 - 0.2 * max(0, k - 1600) / 400}")
    (folder / "run.csv").write_text("\n".join(rows) + "\n")
    return "run.csv"


def test_predict_foresees_schedules_from_a_log(folder: Path, log: str) -> None:
    plans = ("constant(1).then(cooldown(percent(20)))", "constant(1)")
    done = ratecraft(folder, "predict", log, *plans, "--save", "f.json", "-o", "f.html")
    assert done.returncode == 0, done.stderr
    result = load(folder / "f.json")
    assert [one.name for one in result.candidates] == list(plans)
    assert result.total_steps == 2000
    for told in ("Loss after 2,000 steps", result.verdict(), "result: f.json", "report: f.html"):
        assert told in done.stdout
    assert "<h1>" in (folder / "f.html").read_text()
    done = ratecraft(folder, "predict", log, log, "cosine(1, 0)", "-t", "4000", "-o", "f.png",
                     "--plan", "0.01 * constant(1, over=1600).then(linear(1, 0))",
                     "--plan", "0.01 * constant(1, over=1600).then(linear(1, 0))")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "f.png").read_bytes().startswith(b"\x89PNG")


def test_predict_takes_the_whole_plan_of_a_log_that_ends_before(folder: Path) -> None:
    rows = ["step,loss"] + [f"{k},{2 + 3 * (k / 1000 + 0.1) ** -0.3}" for k in range(20, 1001, 20)]
    (folder / "early.csv").write_text("\n".join(rows) + "\n")
    plan = ("--plan", "0.01 * warmup(epochs(1)).then(cosine(1, 0))", "--steps-per-epoch", "50")
    done = ratecraft(folder, "predict", "early.csv", *plan, "--plan-total", "2000", "cosine(1, 0)",
                     "--total-steps", "2000", "--save", "early.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load(folder / "early.json").peak == 0.01
    done = ratecraft(folder, "predict", "early.csv", *plan, "--plan-total", "500", "cosine(1, 0)")
    assert "the plan ends after 500 steps, the log goes on to 1000" in done.stderr
    for wrong in (("--total-steps", "0"), ("--plan-total", "2000")):
        done = ratecraft(folder, "predict", "early.csv", "cosine(1, 0)", *wrong)
        assert done.returncode == 2
        assert wrong[0] in done.stderr


def test_predict_recommends_where_no_schedule_is_given(folder: Path, log: str) -> None:
    done = ratecraft(folder, "predict", log, "--total-steps", "3000")
    assert done.returncode == 0, done.stderr
    assert "Loss after 3,000 steps" in done.stdout
    assert "constant(1).then(polynomial(" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "predict needs the log of a run"),
        (("cosine(1, 0)",), "predict needs the log of a run"),
        (("none.csv", "cosine(1, 0)"), "none.csv: no such file"),
        (("run.csv", "cosine(1"), "cosine(1"),
        (("run.csv", "2 * cosine(1, 0)"), "the law knows one peak lr"),
        (("run.csv", "cosine(1, 0)", "--loss", "nll"), "no column nll; there is lr, loss"),
        (("run.csv", "cosine(1, 0)", "--plan", "0.02 * constant(1)"), "at step 20 the log has a"),
        (("run.csv", "run.csv", "--plan", "constant(1)"), "--plan is given 1 times for 2 logs"),
        (("run.csv", "cosine(1, 0)", "-o", "f.txt"), "expected a file ending in .html, .png"),
        (("my_task.py", "cosine(1, 0)"), "expected CSV, JSON, JSON lines or events"),
    ],
)
def test_predict_tells_what_is_wrong(
    folder: Path, log: str, arguments: tuple[str, ...], words: str
) -> None:
    done = ratecraft(folder, "predict", *arguments)
    assert done.returncode == 2, done.stdout
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_compare_takes_several_lrs_and_optimizers_and_keeps_runs(folder: Path) -> None:
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
    assert "StepOptions much the lr matters" in (folder / "many.html").read_text()
    again = ratecraft(folder, *command)
    assert again.returncode == 0, again.stderr
    assert load(folder / "many.json") == result
    (folder / "notes.db").write_bytes(b"notes" * 1000)
    wrong = ratecraft(folder, *command[:-6], "--store", "notes.db")
    assert wrong.returncode == 2
    assert "is no store of runs" in wrong.stderr
    wrong = ratecraft(folder, "compare", "digits", "constant(1)", "--optimizer", "sgd,adam")
    assert "each optimizer has its own" in wrong.stderr


def test_info_says_what_is_there(folder: Path) -> None:
    done = ratecraft(folder, "info")
    assert done.returncode == 0, done.stderr
    import torch

    assert f"torch {torch.__version__}: " in done.stdout
    assert re.search(r"\ndevices: cpu \(\d+ threads\)", done.stdout)
    assert "scikit-learn" in done.stdout


def test_help_has_examples_and_the_exit_codes(folder: Path) -> None:
    shown = ratecraft(folder, "--help").stdout
    assert "143" in shown
    assert "NO_COLOR" in shown
    for name in ("show", "check", "doctor", "find", "predict", "train", "compare", "merge"):
        told = ratecraft(folder, name, "--help").stdout
        assert f"ratecraft {name} " in told, name


def test_everything_that_can_be_given_has_its_help() -> None:
    counted = 0
    for name in (one for one in app if not one.startswith("-")):
        for argument in app[name].assemble_argument_collection(parse_docstring=True):
            assert argument.parameter.help, f"{name} {argument.name}"
            counted += 1
    assert counted > 50


def test_no_color_leaves_colours_out(folder: Path) -> None:
    command = [sys.executable, "-m", "ratecraft", "show", "cosine(1, 0)", "linear(1, 0)", "-t9"]
    seen = []
    for more in ({}, {"NO_COLOR": "1"}):
        kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        environment = kept | {"FORCE_COLOR": "1"} | more  # as on a terminal
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        seen.append("\x1b[3" in done.stdout)
    assert seen == [True, False]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_written_and_nothing_else_is_changed(folder: Path, shell: str) -> None:
    target = folder / f"completion.{shell}"
    done = ratecraft(folder, "--install-completion", "--shell", shell, "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert "compare" in target.read_text()


def test_leaving_python_in_a_loss_is_an_error(folder: Path) -> None:
    task, short = ("my_task.py:leaves", "constant(1)", "--lr", "1"), ("--total-steps", "8")
    for command in (("train", *task, *short), ("compare", *task, *short, "--workers", "1")):
        done = ratecraft(folder, *command)
        assert done.returncode == 1, command
        assert "SystemExit: 0" in done.stderr


def test_find_seeds_every_source_of_random_numbers(folder: Path) -> None:
    seen = {ratecraft(folder, "find", "my_task.py:noisy").stdout for _ in range(2)}
    assert len({re.search("lr: .*", one)[0] for one in seen}) == 1


def test_predict_takes_a_long_text_for_a_schedule(folder: Path) -> None:
    text = ".then(".join(["constant(1, over=10)"] * 30) + ")" * 29
    done = ratecraft(folder, "predict", "no-such-log.csv", text)
    assert done.returncode == 2
    assert "no-such-log.csv" in done.stderr


def test_a_module_in_the_current_folder_is_found(folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("ratecraft")), "train", "my_task:task"]
    for task in ("my_task:task", "no_such:task"):
        command[2:] = [task, "constant(1)", "--lr", "0.1", "--total-steps", "8"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == (0 if task == "my_task:task" else 2), done.stderr
    assert "cannot import 'no_such'" in done.stderr


def test_lengths_in_tokens_are_shown_and_refused_where_steps_are_counted(folder: Path) -> None:
    done = ratecraft(folder, "show", "cosine(1, 0.25)", "--total-steps", "tokens(1e9)")
    assert done.returncode == 0, done.stderr
    assert "first 1, last 0.25, 1,000,000,000 tokens" in done.stdout
    for command in (("find",), ("train", "constant(1)", "--lr", "1"), ("compare", "constant(1)")):
        name, *rest = command
        done = ratecraft(folder, name, "my_task.py:task", *rest, "--total-steps", "samples(100)")
        assert done.returncode == 2, name
        assert "a Task's run is counted in steps, not in samples" in done.stderr, name
