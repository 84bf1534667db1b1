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


def test_task_loads_from_a_file(file: Path) -> None:
    task = load_task(f"{file}:task")
    assert task.steps_per_epoch == 4
    assert isinstance(task.model(), nn.Module)


@pytest.mark.parametrize(
    ("name", "steps_per_epoch", "metrics"),
    [("digits", 45, {"accuracy"}), ("stdlib-text", 174, set())],
)
def test_built_in_tasks_are_real_data(name: str, steps_per_epoch: int, metrics: set[str]) -> None:
    task = load_task(name)
    assert abs(task.steps_per_epoch - steps_per_epoch) < 10
    assert set(task.metrics) == metrics
    model, batch = task.model(), next(iter(task.train))
    loss = task.loss(model, batch)
    loss.backward()
    assert 1 < loss.item() < 6


def test_digits_has_the_same_split_every_time() -> None:
    first, second = load_task("digits").val[0], load_task("digits").val[0]
    assert torch.equal(first[0], second[0])
    assert torch.bincount(first[1]).min() >= 34  # of every digit


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "there is no task 'digit'; did you mean 'digits'"),
        ("nowhere.py:task", "there is no file nowhere.py"),
        ("{file}:tusk", "has no function 'tusk'; it has task, number, broken"),
        ("{file}:number", "returned int; expected a ratecraft.Task"),
        ("{file}:broken", "ZeroDivisionError: division by zero"),
        ("no_such_module:task", "cannot import 'no_such_module'"),
        ("{file}", "file.py:function"),
    ],
)
def test_task_that_cannot_be_loaded_raises(file: Path, name: str, message: str) -> None:
    with pytest.raises(TaskError) as error:
        load_task(name.format(file=file))
    assert message in str(error.value)


def test_syntax_error_in_a_task_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("def task(:\n")
    with pytest.raises(TaskError, match=r"loading .*bad.py failed: SyntaxError"):
        load_task(f"{path}:task")


def task_fields(**changes):
    x = torch.zeros(4, 1)
    good = {
        "model": lambda: nn.Linear(1, 1),
        "loss": lambda m, b: m(b).sum(),
        "train": [x],
        "val": [x],
    }
    return good | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": nn.Linear(1, 1)}, r"write model=lambda: MyModel"),
        ({"metrics": {"loss": len}}, r"leave 'loss' out"),
        ({"metrics": [len]}, r"a dict of functions"),
        ({"loss": 3}, r"Task\(loss=...\) must be a function, not int"),
        ({"train": iter([1])}, r"iterated more than once, not list_iterator"),
        ({"train": []}, r"Task\(train=...\) has a length of 0"),
        ({"val": (x for x in range(3))}, r"Task\(val=...\) must be batches"),
    ],
)
def test_invalid_task_field_raises(changes, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task(**task_fields(**changes))


def test_reference_names_a_function_for_workers() -> None:
    assert reference("digits") == "digits"
    assert reference(task_fields) == f"{task_fields.__module__}:task_fields"
    with pytest.raises(TaskError, match="workers=0"):
        reference(lambda: None)
