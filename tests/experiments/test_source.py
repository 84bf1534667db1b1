"""What a task's code was when it was compared, and what happens when it changes."""

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
from ratecraft.experiments._source import load_function, source_of
from ratecraft.experiments._task import task_as_it_was

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
SHORT = {"lrs": 0.1, "seeds": 1, "total": 8, "workers": 0}


def write(path: Path, slope: float) -> str:
    path.write_text(CODE.replace("SLOPE", str(slope)))
    return f"{path}:task"


def made(slope: float = 2.0) -> Task:
    x = torch.linspace(-1, 1, 32)[:, None]
    return Task(
        model=lambda: nn.Linear(1, 1),
        loss=lambda model, batch: ((model(batch) - slope * batch) ** 2).mean(),
        train=x.split(8),
        val=[x],
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )


def final(task, **more) -> float:
    return compare(task, [constant(1)], **SHORT | more).runs[0].final()


def test_a_file_that_was_edited_is_trained_anew_and_kept_apart(tmp_path: Path) -> None:
    name, kept = write(tmp_path / "edited.py", 2), {"store": tmp_path / "r.db"}
    before = final(name, **kept)
    write(tmp_path / "edited.py", 50)
    after = final(name, **kept)
    assert after > 100 * before
    write(tmp_path / "edited.py", 2)
    assert final(name, **kept) == before == final(name)


def test_a_file_that_changes_while_it_is_compared_is_told(tmp_path: Path) -> None:
    name = write(tmp_path / "changing.py", 2)
    code = source_of(name)
    load_task(name)
    write(tmp_path / "changing.py", 3)
    assert len(task_as_it_was(name, code).train) == 4  # this process has it as it was
    load_task(name)
    with pytest.raises(TaskError, match="was changed while it was being compared"):
        task_as_it_was(name, code)


def test_a_module_that_was_edited_needs_a_new_session(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(tmp_path / "edited_module.py", 2)
    task = load_function("edited_module:task")
    source_of(task)
    write(tmp_path / "edited_module.py", 31)
    for function in (task, "edited_module:task"):
        with pytest.raises(TaskError, match="edited_module was changed after it had been imported"):
            final(function, store=tmp_path / "r.db")
    reloaded = importlib.reload(sys.modules["edited_module"]).task
    assert final(reloaded, store=tmp_path / "r.db") > 50
    with pytest.raises(TaskError, match="cannot import 'no_such_module'"):
        load_function("no_such_module:task")


def test_what_a_file_imports_by_its_own_name_is_the_new_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("here_now.py"), 2)
    load_task("./here_now.py:task")
    first = sys.modules["here_now"]
    write(Path("here_now.py"), 3)
    load_task("here_now.py:task")
    assert sys.modules["here_now"] is not first
    monkeypatch.delitem(sys.modules, "here_now")


def test_a_file_that_fails_leaves_no_half_a_module(tmp_path: Path) -> None:
    (tmp_path / "halfway.py").write_text("x = 1\nraise SystemExit(3)")
    with pytest.raises(TaskError, match=r"loading .* failed: SystemExit: 3"):
        load_task(f"{tmp_path / 'halfway.py'}:task")
    assert "halfway" not in sys.modules


def test_what_a_function_keeps_from_elsewhere_a_store_cannot_know(tmp_path: Path) -> None:
    def factory(slope: float):
        def task() -> Task:
            return made(slope)

        return task

    assert final(factory(50)) > 100 * final(factory(2))
    with pytest.raises(TaskError, match="keeps slope from where it was made"):
        final(factory(2), store=tmp_path / "r.db")

    def with_default(slope: float):
        return eval("lambda slope=slope: made(slope)", globals(), {"slope": slope})  # noqa: S307

    with pytest.raises(TaskError, match="cannot be read"):
        source_of(with_default(2))


def test_a_function_with_arguments_has_a_name_in_the_result() -> None:
    assert compare(partial(made, 3.0), [constant(1)], **SHORT).task == "partial"


def test_loaders_of_the_caller_are_left_as_they_were() -> None:
    generator = torch.Generator().manual_seed(5)
    data = torch.utils.data.TensorDataset(torch.linspace(-1, 1, 32)[:, None])
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, generator=generator)

    def task() -> Task:
        plain = made()
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


def test_leaving_python_in_a_task_is_a_failure_like_any_other(tmp_path: Path) -> None:
    text = CODE.replace("SLOPE", "2").replace(
        "    loss = lambda", "    import sys\n    loss = lambda"
    )
    text = text.replace("((model", "sys.exit(0) or ((model")
    (tmp_path / "leaves.py").write_text(text)
    with pytest.raises(RunFailed, match="SystemExit: 0"):
        compare(f"{tmp_path / 'leaves.py'}:task", [constant(1)], **SHORT)


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    base = sqlite3.connect(other)
    base.execute("CREATE TABLE users (name TEXT)")
    base.commit()
    base.close()
    before = other.read_bytes()
    with pytest.raises(ResultError, match=r"an SQLite file of something else \(tables users\)"):
        final(made, store=other)
    with pytest.raises(ResultError, match="something else"):
        merge(tmp_path / "all.db", other)
    assert other.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) in (["all.db", "other.db"], ["other.db"])
    (tmp_path / "empty.db").touch()
    with pytest.raises(ResultError, match="is empty"):
        merge(tmp_path / "all.db", tmp_path / "empty.db")
    assert not (tmp_path / "empty.db").stat().st_size


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    given = {"workers": 0, "store": tmp_path / "r.db"}
    plain = compare(made, constant(1), lrs=[1, 2], seeds=[0, 1], total_steps=8, **given)
    seen = []
    again = compare(
        made, constant(1), lrs=np.array([1.0, 2.0]), seeds=np.arange(2), total_steps=np.int64(8),
        progress=lambda one: seen.append(one.what), **given,
    )  # fmt: skip
    assert seen == ["kept"] * 4  # it is known by the same names
    assert again.runs == plain.runs
    one = compare(
        made, constant(1), lrs=np.float32(0.5), seeds=np.int64(1), total_steps=8, workers=0
    )
    assert one.runs[0].lr == 0.5
    for wrong, words in (
        ({"seeds": 1.5}, "seeds 1.5: expected a whole number"),
        ({"seeds": [True]}, "seed True"),
        ({"total": "epochs(3)"}, r"total_steps='epochs\(3\)': ratecraft.parse_length reads"),
        ({"lrs": "0.1"}, "lr '0.1'"),
        ({"lrs": float("nan")}, "lr nan"),
    ):
        with pytest.raises(SettingError, match=words):
            compare(made, constant(1), **SHORT | wrong)
    with pytest.raises(TypeError, match=r"not 'constant\(1\)'; ratecraft.parse reads one"):
        compare(made, "constant(1)", **SHORT)


def test_halving_over_an_step_or_two() -> None:
    for total in (1, 2, 3):
        found = compare(
            made, constant(1), **SHORT | {"lrs": [0.1, 0.2], "total": total}, halving=True
        )
        assert len(found.runs) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": lambda model, batch: model(batch).mean().detach()}, "without a gradient"),
        ({"val": [torch.zeros(0, 1)]}, "val= have no rows|nan"),
    ],
)
def test_what_cannot_train_is_told_in_words(change, words: str) -> None:
    with pytest.raises(RatecraftError, match=words):
        final(lambda: replace(made(), **change))


def test_a_plateau_alone_is_a_candidate() -> None:
    assert compare(made, Plateau(patience=1), **SHORT).runs[0].realized_schedule
