"""Changes of a task's code, and other inputs of compare."""

import importlib
import os
import sqlite3
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ratecraft import constant, cosine
from ratecraft.errors import RatecraftError, ResultError, RunFailed, SettingError, TaskError
from ratecraft.experiments import Plateau, Task, compare, load_task, merge
from ratecraft.experiments._source import identify, load_function
from ratecraft.experiments._task import load_task_version

CODE = """
import torch
from torch import nn
from ratecraft.experiments import Task

x = torch.linspace(-1, 1, 32)[:, None]

def task():
    loss = lambda model, batch: ((model(batch) - SLOPE * batch) ** 2).mean()
    sgd = lambda model: torch.optim.SGD(model.parameters(), lr=0.1)
    return Task(model=lambda: nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x], optimizer=sgd)
"""
SHORT = {"lrs": 0.1, "seeds": 1, "total_steps": 8, "workers": 0}


def write(path: Path, slope: float) -> str:
    path.write_text(CODE.replace("SLOPE", str(slope)))
    return f"{path}:task"


def line_task(slope: float = 2.0) -> Task:
    x = torch.linspace(-1, 1, 32)[:, None]
    return Task(
        model=lambda: nn.Linear(1, 1),
        loss=lambda model, batch: ((model(batch) - slope * batch) ** 2).mean(),
        train=x.split(8),
        val=[x],
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )


def final_loss(task, **options) -> float:
    return compare(task, [constant(1)], **SHORT | options).runs[0].final()


def test_edited_file_is_trained_again_and_stored_separately(tmp_path: Path) -> None:
    name, options = write(tmp_path / "edited.py", 2), {"store": tmp_path / "r.db"}
    before = final_loss(name, **options)
    write(tmp_path / "edited.py", 50)
    after = final_loss(name, **options)
    assert after > 100 * before
    write(tmp_path / "edited.py", 2)
    assert final_loss(name, **options) == before == final_loss(name)


def test_file_that_changes_during_a_comparison_raises(tmp_path: Path) -> None:
    name = write(tmp_path / "changing.py", 2)
    source_hash = identify(name)[1]
    load_task(name)
    write(tmp_path / "changing.py", 3)
    assert (
        len(load_task_version(name, source_hash).train) == 4
    )  # this process has loaded the old code
    load_task(name)
    with pytest.raises(TaskError, match="was changed during the comparison"):
        load_task_version(name, source_hash)


def test_edited_module_needs_a_new_session(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(tmp_path / "edited_module.py", 2)
    task = load_function("edited_module:task")
    identify(task)
    write(tmp_path / "edited_module.py", 31)
    for function in (task, "edited_module:task"):
        with pytest.raises(TaskError, match="edited_module was changed after it had been imported"):
            final_loss(function, store=tmp_path / "r.db")
    reloaded = importlib.reload(sys.modules["edited_module"]).task
    assert final_loss(reloaded, store=tmp_path / "r.db") > 50
    with pytest.raises(TaskError, match="cannot import 'no_such_module'"):
        load_function("no_such_module:task")


def test_edited_file_replaces_its_module(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("edited_here.py"), 2)
    load_task("./edited_here.py:task")
    first = sys.modules["edited_here"]
    write(Path("edited_here.py"), 3)
    load_task("edited_here.py:task")
    assert sys.modules["edited_here"] is not first
    monkeypatch.delitem(sys.modules, "edited_here")


def test_file_that_fails_leaves_no_module(tmp_path: Path) -> None:
    (tmp_path / "halfway.py").write_text("x = 1\nraise SystemExit(3)")
    with pytest.raises(TaskError, match=r"loading .* failed: SystemExit: 3"):
        load_task(f"{tmp_path / 'halfway.py'}:task")
    assert "halfway" not in sys.modules


def test_closure_with_a_store_raises(tmp_path: Path) -> None:
    def factory(slope: float):
        def task() -> Task:
            return line_task(slope)

        return task

    assert final_loss(factory(50)) > 100 * final_loss(factory(2))
    with pytest.raises(TaskError, match="is a closure over slope"):
        final_loss(factory(2), store=tmp_path / "r.db")

    def with_default(slope: float):
        return eval("lambda slope=slope: line_task(slope)", globals(), {"slope": slope})  # noqa: S307

    with pytest.raises(TaskError, match="cannot be read"):
        identify(with_default(2))


def test_partial_function_has_a_name_in_the_result() -> None:
    assert compare(partial(line_task, 3.0), [constant(1)], **SHORT).task == "partial"


def test_loaders_of_the_caller_are_restored() -> None:
    generator = torch.Generator().manual_seed(5)
    data = torch.utils.data.TensorDataset(torch.linspace(-1, 1, 32)[:, None])
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, generator=generator)

    def task() -> Task:
        plain = line_task()
        return Task(
            model=plain.model,
            loss=lambda model, batch: plain.loss(model, batch[0]),
            train=loader,
            val=plain.val and [[plain.val[0]]],
            optimizer=plain.optimizer,
        )

    before = generator.get_state()
    first = compare(task, [constant(1), cosine(1, 0)], **SHORT)
    assert torch.equal(generator.get_state(), before)
    assert compare(task, [constant(1)], **SHORT).runs[0].losses == first.runs[0].losses
    generator.manual_seed(7)
    assert compare(task, [constant(1)], **SHORT).runs[0].losses != first.runs[0].losses


def test_sys_exit_in_a_task_is_a_failed_run(tmp_path: Path) -> None:
    text = CODE.replace("SLOPE", "2").replace(
        "    loss = lambda", "    import sys\n    loss = lambda"
    )
    text = text.replace("((model", "sys.exit(0) or ((model")
    (tmp_path / "exits.py").write_text(text)
    with pytest.raises(RunFailed, match="SystemExit: 0"):
        compare(f"{tmp_path / 'exits.py'}:task", [constant(1)], **SHORT)


def test_foreign_database_raises_and_is_not_changed(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE users (name TEXT)")
    db.commit()
    db.close()
    before = other.read_bytes()
    with pytest.raises(ResultError, match=r"an SQLite file of another program \(tables users\)"):
        final_loss(line_task, store=other)
    with pytest.raises(ResultError, match="another program"):
        merge(tmp_path / "all.db", other)
    assert other.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) in (["all.db", "other.db"], ["other.db"])
    (tmp_path / "empty.db").touch()
    with pytest.raises(ResultError, match="is empty"):
        merge(tmp_path / "all.db", tmp_path / "empty.db")
    assert not (tmp_path / "empty.db").stat().st_size


def test_numpy_numbers_are_accepted(tmp_path: Path) -> None:
    options = {"workers": 0, "store": tmp_path / "r.db"}
    plain = compare(line_task, constant(1), lrs=[1, 2], seeds=[0, 1], total_steps=8, **options)
    events = []
    again = compare(
        line_task, constant(1), lrs=np.array([1.0, 2.0]), seeds=np.arange(2),
        total_steps=np.int64(8), progress=lambda p: events.append(p.event), **options,
    )  # fmt: skip
    assert events == ["resumed"] * 4  # with the keys of the same trials
    assert again.runs == plain.runs
    single = compare(
        line_task, constant(1), lrs=np.float32(0.5), seeds=np.int64(1), total_steps=8, workers=0
    )
    assert single.runs[0].lr == 0.5
    for wrong, words in (
        ({"seeds": 1.5}, "seeds 1.5: expected a whole number"),
        ({"seeds": [True]}, "seed True"),
        (
            {"total_steps": "epochs(3)"},
            r"total_steps='epochs\(3\)': expected .* ratecraft.parse_length reads",
        ),
        ({"lrs": "0.1"}, "lr '0.1'"),
        ({"lrs": float("nan")}, "lr nan"),
    ):
        with pytest.raises(SettingError, match=words):
            compare(line_task, constant(1), **SHORT | wrong)
    with pytest.raises(TypeError, match=r"not 'constant\(1\)'; ratecraft.parse reads a text"):
        compare(line_task, "constant(1)", **SHORT)


def test_halving_runs_of_one_to_three_steps() -> None:
    for total_steps in (1, 2, 3):
        result = compare(
            line_task,
            constant(1),
            **SHORT | {"lrs": [0.1, 0.2], "total_steps": total_steps},
            halving=True,
        )
        assert len(result.runs) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": lambda model, batch: model(batch).mean().detach()}, "does not require grad"),
        ({"val": [torch.zeros(0, 1)]}, "val= have no rows|nan"),
    ],
)
def test_task_that_cannot_train_raises_with_reason(change, words: str) -> None:
    with pytest.raises(RatecraftError, match=words):
        final_loss(lambda: replace(line_task(), **change))


def test_single_plateau_can_be_compared() -> None:
    assert compare(line_task, Plateau(patience=1), **SHORT).runs[0].realized_schedule
