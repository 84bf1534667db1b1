"""train."""

import re
from pathlib import Path

import pytest
from command_line import ratecraft

from ratecraft.results import load

TASK = """
import torch
from torch import nn
from ratecraft.experiments import Task

x = torch.linspace(-1, 1, 64)[torch.arange(64) * 37 % 64, None]

def task():
    loss = lambda model, batch: ((model(batch) - 2 * batch) ** 2).mean()
    def sgd(model):
        groups = [{"params": [model.weight], "name": "weight"},
                  {"params": [model.bias], "lr": 0.01, "name": "bias"}]
        return torch.optim.SGD(groups, lr=0.1)
    error = lambda model, batch: (model(batch) - 2 * batch).abs().mean()
    return Task(model=lambda: nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x],
                optimizer=sgd, metrics={"error": error})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_task.py").write_text(TASK)
    return tmp_path


def test_train_prints_a_line_per_epoch(folder: Path) -> None:
    done = ratecraft(
        folder,
        *("train", "my_task.py:task", "warmup(8).then(cosine(1, 0))", "--lr", "0.1"),
        *("-n", "epochs(3)", "--save", "r.json", "-o", "r.html", "-o", "r.png"),
    )
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()[:4]
    assert re.split("  +", head.strip()) == [
        "epoch", "step", "train loss", "val loss", "train error", "val error",
        "lr weight", "lr bias",
    ]  # fmt: skip
    assert [row.split()[:2] for row in rows] == [["1", "8"], ["2", "16"], ["3", "24"]]
    (run,) = load(folder / "r.json").runs
    for row, evaluation in zip(rows, run.evaluations, strict=True):
        values = [float(cell) for cell in row.split()[2:]]
        assert values[1] == pytest.approx(evaluation.metrics["loss"], rel=1e-3)
        assert values[-2:] == pytest.approx(list(evaluation.lrs.values()), rel=1e-3)
        assert values[-1] == pytest.approx(values[-2] / 10, rel=1e-3)
    assert "24 steps in " in done.stdout
    assert (folder / "r.html").exists()
    assert (folder / "r.png").read_bytes().startswith(b"\x89PNG")


def test_train_reports_the_step_at_which_a_run_diverged(folder: Path) -> None:
    done = ratecraft(folder, "train", "my_task.py:task", "constant(1)", "--lr", "1e30")
    assert done.returncode == 1
    assert re.search(r"the loss became nan or inf at step \d", done.stderr)


def test_the_result_names_the_optimizer(folder: Path) -> None:
    options = ("--lr", "0.01", "--total-steps", "8", "--optimizer", "adamw", "--save", "t.json")
    done = ratecraft(folder, "train", "my_task.py:task", "constant(1)", *options)
    assert done.returncode == 0, done.stderr
    assert load(folder / "t.json").runs[0].optimizer == "adamw"


def test_the_help_says_what_reads_the_saved_result(tmp_path: Path) -> None:
    text = " ".join(ratecraft(tmp_path, "train", "--help").stdout.replace("│", " ").split())
    assert "Write the result as JSON, which ratecraft forecast reads." in text
