from pathlib import Path

import pytest
import torch
from torch import nn

from ratecraft.errors import TaskError
from ratecraft.experiments import Task, load_task
from ratecraft.experiments._source import reference

GOOD = """
import torch
from torch import nn
from ratecraft.experiments import Task

def task():
    x = torch.linspace(-1, 1, 32)[:, None]
    return Task(
        model=lambda: nn.Linear(1, 1),
        loss=lambda model, batch: ((model(batch) - 2 * batch) ** 2).mean(),
        train=x.split(8),
        val=[x],
    )

def number():
    return 3

def broken():
    return 1 / 0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    return path


def test_a_function_in_a_users_own_file(file: Path) -> None:
    task = load_task(f"{file}:task")
    assert task.steps_per_epoch == 4
    assert isinstance(task.model(), nn.Module)


@pytest.mark.parametrize(
    ("name", "epoch", "metrics"), [("digits", 45, {"accuracy"}), ("stdlib-text", 174, set())]
)
def test_built_in_tasks_are_real_data(name: str, epoch: int, metrics: set[str]) -> None:
    task = load_task(name)
    assert abs(task.steps_per_epoch - epoch) < 10
    assert set(task.metrics) == metrics
    model, batch = task.model(), next(iter(task.train))
    loss = task.loss(model, batch)
    loss.backward()
    assert 1 < loss.item() < 6


def test_digits_is_split_the_same_way_every_time() -> None:
    first, second = load_task("digits").val[0], load_task("digits").val[0]
    assert torch.equal(first[0], second[0])
    assert torch.bincount(first[1]).min() >= 34  # every digit is there


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digit", "no task is named 'digit'; did you mean 'digits'"),
        ("nowhere.py:task", "there is no file nowhere.py"),
        ("{file}:tusk", "has no function 'tusk'; it has task, number, broken"),
        ("{file}:number", "returned int, where a ratecraft.experiments.Task was expected"),
        ("{file}:broken", "ZeroDivisionError: division by zero"),
        ("no_such_module:task", "cannot import 'no_such_module'"),
        ("{file}", "file.py:function"),
    ],
)
def test_what_cannot_be_loaded_is_explained(file: Path, name: str, words: str) -> None:
    with pytest.raises(TaskError) as error:
        load_task(name.format(file=file))
    assert words in str(error.value)


def test_a_file_that_does_not_parse_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("def task(:\n")
    with pytest.raises(TaskError, match=r"loading .*bad.py failed: SyntaxError"):
        load_task(f"{path}:task")


def fields(**changes):
    x = torch.zeros(4, 1)
    good = {
        "model": lambda: nn.Linear(1, 1),
        "loss": lambda m, b: m(b).sum(),
        "train": [x],
        "val": [x],
    }
    return good | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": nn.Linear(1, 1)}, r"write model=lambda: MyModel"),
        ({"metrics": {"loss": len}}, r"leave 'loss' out"),
        ({"metrics": [len]}, r"functions by name"),
        ({"loss": 3}, r"Task\(loss=...\) must be a function, not int"),
        ({"train": iter([1])}, r"iterated again and again, not list_iterator"),
        ({"train": []}, r"at least 1"),
        ({"val": (x for x in range(3))}, r"Task\(val=...\) must be batches"),
    ],
)
def test_a_task_with_a_wrong_field_is_refused(changes, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        Task(**fields(**changes))


def test_a_worker_finds_functions_by_name() -> None:
    assert reference("digits") == "digits"
    assert reference(fields) == f"{fields.__module__}:fields"
    with pytest.raises(TaskError, match="workers=0"):
        reference(lambda: None)
