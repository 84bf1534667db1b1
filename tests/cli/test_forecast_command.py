"""forecast."""

from pathlib import Path

import pytest
from command_line import ratecraft

from ratecraft.results import load


@pytest.fixture(scope="module")
def log(folder: Path) -> str:
    """A log with learning rates: constant for 1600 steps, then a cooldown."""
    rows = ["step,lr,loss"]
    for k in range(20, 2001, 20):
        lr = 0.01 * min(1, (2000 - k) / 400)
        rows.append(f"{k},{lr},{2 + 3 * (k / 1000 + 0.1) ** -0.3 - 0.2 * max(0, k - 1600) / 400}")
    (folder / "run.csv").write_text("\n".join(rows) + "\n")
    return "run.csv"


def test_forecast_prints_the_losses_of_schedules(folder: Path, log: str) -> None:
    schedules = ("constant(1).then(cooldown(percent(20)))", "constant(1)")
    done = ratecraft(folder, "forecast", log, *schedules, "--save", "f.json", "-o", "f.html")
    assert done.returncode == 0, done.stderr
    result = load(folder / "f.json")
    assert [entry.name for entry in result.entries] == list(schedules)
    assert result.total_steps == 2000
    assert done.stdout.startswith("run.csv: 100 losses from loss, steps from step, lrs from lr\n")
    for line in ("Loss after 2,000 steps", result.verdict(), "result: f.json", "report: f.html"):
        assert line in done.stdout
    assert "<h1>" in (folder / "f.html").read_text()
    of_log = ("--log-schedule", "0.01 * constant(1, over=1600).then(linear(1, 0))")
    done = ratecraft(
        folder, "forecast", log, log, "cosine(1, 0)", "-n", "4000", "-o", "f.png", *of_log, *of_log
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "f.png").read_bytes().startswith(b"\x89PNG")


def test_the_schedule_of_a_log_may_be_longer_than_the_log(folder: Path) -> None:
    rows = ["step,loss"] + [f"{k},{2 + 3 * (k / 1000 + 0.1) ** -0.3}" for k in range(20, 1001, 20)]
    (folder / "early.csv").write_text("\n".join(rows) + "\n")
    command = (
        *("forecast", "early.csv", "cosine(1, 0)", "--steps-per-epoch", "50"),
        *("--log-schedule", "0.01 * warmup(epochs(1)).then(cosine(1, 0))", "--log-total-steps"),
    )
    done = ratecraft(folder, *command, "2000", "--total-steps", "2000", "--save", "early.json")
    assert done.returncode == 0, done.stderr
    assert load(folder / "early.json").peak_lr == 0.01
    done = ratecraft(folder, *command, "500")
    assert "the schedule ends after 500 steps, the log after 1000" in done.stderr
    for wrong in (("--total-steps", "0"), ("--log-total-steps", "2000")):
        done = ratecraft(folder, "forecast", "early.csv", "cosine(1, 0)", *wrong)
        assert done.returncode == 2
        assert wrong[0] in done.stderr


def test_text_logs_and_the_columns_that_are_read(folder: Path) -> None:
    lines = ""
    for k in range(20, 1001, 20):
        loss = 2 + 3 * (k / 1000 + 0.1) ** -0.3
        rise = 0.002 * max(0, k - 500)
        lines += f"step {k}: train loss {loss:.4f}, val loss {loss + rise:.4f}\n"
    (folder / "train.log").write_text(lines)
    command = ("forecast", "train.log", "cosine(1, 0)")
    done = ratecraft(folder, *command)
    assert done.returncode == 2
    assert (
        "no lrs were logged; pass the schedule of the run, as schedule= or --log-sch" in done.stderr
    )
    command += ("--log-schedule", "0.01 * constant(1)")
    done = ratecraft(folder, *command)
    assert done.returncode == 0, done.stderr
    columns = "train.log: 50 losses from val loss, steps from step, lrs from the schedule\n"
    assert done.stdout.startswith(columns)
    assert "caution: the val loss of train.log rises by" in done.stdout
    done = ratecraft(folder, *command, "--loss", "train_loss")
    assert "train.log: 50 losses from train loss" in done.stdout
    assert "rises" not in done.stdout


def test_training_losses_are_forecast_only_if_they_are_named(folder: Path) -> None:
    rows = [f"{k},{2 + 3 / k},{2.5 if k % 400 == 0 else ''},0.01" for k in range(20, 1001, 20)]
    (folder / "few.csv").write_text("\n".join(["step,train_loss,val_loss,lr", *rows]))
    done = ratecraft(folder, "forecast", "few.csv", "cosine(1, 0)")
    assert done.returncode == 2
    assert "few.csv: val_loss has 2 losses, and a fit needs at least 8" in done.stderr
    assert '(--loss "train_loss")' in done.stderr
    done = ratecraft(folder, "forecast", "few.csv", "cosine(1, 0)", "--loss", "train_loss")
    assert done.returncode == 0, done.stderr
    assert "few.csv: 50 losses from train_loss, steps from step, lrs from lr" in done.stdout


def test_without_schedules_one_is_recommended(folder: Path, log: str) -> None:
    done = ratecraft(folder, "forecast", log, "--total-steps", "3000")
    assert done.returncode == 0, done.stderr
    assert "Loss after 3,000 steps" in done.stdout
    assert "constant(1).then(polynomial(" in done.stdout
    done = ratecraft(folder, "forecast", log, "--total-steps", "3000", "--warmup-steps", "200")
    assert done.returncode == 0, done.stderr
    assert "warmup(200).then(" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "forecast needs the log of a run"),
        (("cosine(1, 0)",), "forecast needs the log of a run"),
        (("none.csv", "cosine(1, 0)"), "none.csv: no such file"),
        (("run.csv", "cosine(1"), "cosine(1"),
        (("run.csv", "2 * cosine(1, 0)"), "pass schedules with the peak lr of the logs"),
        (
            ("run.csv", "cosine(1, 0)", "--loss", "nll"),
            "no column nll with numbers; the columns are step, lr, loss",
        ),
        (
            ("run.csv", "cosine(1, 0)", "--log-schedule", "0.02 * constant(1)"),
            "at step 20 the log has a",
        ),
        (
            ("run.csv", "run.csv", "--log-schedule", "constant(1)"),
            "--log-schedule is given once for 2 logs",
        ),
        (("run.csv", "cosine(1, 0)", "--warmup-steps", "9"), "--warmup-steps is for a recommended"),
        (("run.csv", "cosine(1, 0)", "-o", "f.txt"), "expected a file ending in .html, .png"),
        (("my_task.py", "cosine(1, 0)"), "my_task.py: no line has a step and another number"),
    ],
)
def test_invalid_arguments_are_errors(
    folder: Path, log: str, arguments: tuple[str, ...], words: str
) -> None:
    done = ratecraft(folder, "forecast", *arguments)
    assert done.returncode == 2, done.stdout
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_schedule_may_be_longer_than_a_file_name(folder: Path) -> None:
    text = ".then(".join(["constant(1, over=10)"] * 30) + ")" * 29
    done = ratecraft(folder, "forecast", "no-such-log.csv", text)
    assert done.returncode == 2
    assert "no-such-log.csv" in done.stderr


def test_colons_in_a_path_are_not_emoji(folder: Path) -> None:
    (folder / "fire.json").write_text("{}")
    done = ratecraft(folder, "forecast", "log:fire:.csv")
    assert ":fire:" in done.stderr
