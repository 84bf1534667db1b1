"""The progress of a comparison: steps inside running trials, views, lines, and bad functions."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from ratecraft import constant, cosine, wsd
from ratecraft.errors import SettingError
from ratecraft.experiments import Progress, compare
from ratecraft.experiments._jobs import planned_steps
from ratecraft.experiments._plan import Grid, TrialPlan
from ratecraft.experiments._task import load_task

SLOW_TASK = """
import sys, time
import torch
from ratecraft.experiments import Task

x = torch.linspace(-1, 1, 64)[:, None]

def task():
    print("building [the] task")
    steps = [0]
    def loss(model, batch):
        if model.training:
            time.sleep(0.03)
            steps[0] += 1
            if steps[0] % 20 == 0:
                print("step", steps[0], "x" * 60)
                print("warning at", steps[0], file=sys.stderr)
        return ((model(batch) - 2 * batch) ** 2).mean()
    return Task(model=lambda: torch.nn.Linear(1, 1), loss=loss, train=x.split(8), val=[x])
"""
SCHEDULES = {"flat": constant(1), "wave": cosine(1, 0)}


@pytest.fixture
def slow(tmp_path: Path) -> str:
    (tmp_path / "slow.py").write_text(SLOW_TASK)
    return f"{tmp_path / 'slow.py'}:task"


@pytest.mark.parametrize("workers", [0, 2])
def test_running_trials_report_their_steps_and_losses(slow: str, workers: int) -> None:
    events: list[Progress] = []
    result = compare(
        slow, SCHEDULES, lrs=0.1, seeds=1, total_steps=50, workers=workers, progress=events.append
    )
    for name, run in zip(("flat, seed 0", "wave, seed 0"), result.runs, strict=True):
        (*steps, done) = [event for event in events if event.name == name and event.event != "done"]
        assert steps[0].event == "started"
        assert steps[0].step is steps[0].loss is None
        steps = [*steps[1:], done]
        assert {event.event for event in steps} == {"step"}
        for event in steps:
            assert event.total_steps == 50
            assert event.loss == run.losses[event.step - 1]
        assert all(a.step < b.step for a, b in pairwise(steps))
    assert all(event.planned_steps == 100 for event in events)
    assert all(a.done_steps <= b.done_steps for a, b in pairwise(events))
    assert all(event.left is not None for event in events if event.event == "step")
    assert [events[0].done_steps, events[-1].done_steps] == [0, 100]
    assert events[-1].left == 0.0


def test_an_event_of_a_step_is_plain_data(slow: str) -> None:
    events: list[Progress] = []
    compare(
        slow, [constant(1)], lrs=0.1, seeds=1, total_steps=30, workers=0, progress=events.append
    )
    fields = {event.event: event.as_dict() for event in events}
    step = {"step", "total_steps", "loss"}
    assert fields["step"].keys() >= step
    assert not step & fields["started"].keys()
    assert not step & fields["done"].keys()
    assert fields["done"]["steps"] == 30
    json.dumps(list(fields.values()), allow_nan=False)


@pytest.mark.parametrize(
    ("schedules", "options"),
    [
        ([wsd(0), 0.5 * wsd(0), constant(1)], {"branches": True, "total_steps": [24, 40]}),
        ([constant(1)], {"halving": True, "total_steps": 30}),
        (list(SCHEDULES.values()), {"total_steps": [10, 20]}),
    ],
)
def test_planned_steps_are_those_that_are_trained(
    tmp_path: Path, monkeypatch, schedules: list, options: dict
) -> None:
    count = tmp_path / "count"
    monkeypatch.setenv("COUNT", str(count))
    (tmp_path / "counting.py").write_text(
        "import os, torch\n"
        "from ratecraft.experiments import Task\n"
        "x = torch.linspace(-1, 1, 64)[:, None]\n"
        "def task():\n"
        "    def loss(model, batch):\n"
        "        if model.training:\n"
        "            with open(os.environ['COUNT'], 'a') as file:\n"
        "                file.write('.')\n"
        "        return ((model(batch) - 2 * batch) ** 2).mean()\n"
        "    return Task(model=lambda: torch.nn.Linear(1, 1), loss=loss, train=x.split(8),\n"
        "                val=[x])\n"
    )
    events: list[Progress] = []
    lrs = [0.001, 0.003, 0.01, 0.03, 0.1]
    compare(
        f"{tmp_path / 'counting.py'}:task", schedules, lrs=lrs, seeds=2, workers=0,
        progress=events.append, **options,
    )  # fmt: skip
    assert {event.planned_steps for event in events} == {len(count.read_text())}
    assert events[-1].done_steps == events[-1].planned_steps


def test_runs_in_the_store_are_done_steps(slow: str, tmp_path: Path) -> None:
    settings = {"lrs": 0.1, "seeds": 1, "total_steps": 5, "workers": 0, "store": tmp_path / "r.db"}
    compare(slow, [constant(1)], **settings)
    events: list[Progress] = []
    compare(slow, SCHEDULES, **settings, progress=events.append)
    states = {event.event: (event.done_steps, event.planned_steps) for event in events}
    assert states["resumed"] == states["started"] == (5, 10)
    assert states["done"] == (10, 10)


def test_an_error_in_a_progress_function_loses_no_result(slow: str) -> None:
    calls = []

    def progress(event: Progress) -> None:
        calls.append(event.done)
        if event.event == "done":
            raise ValueError("on purpose")

    message = "ValueError: on purpose; training goes on without it"
    with pytest.warns(RuntimeWarning, match=message) as warned:
        result = compare(
            slow, SCHEDULES, lrs=0.1, seeds=1, total_steps=5, workers=0, progress=progress
        )
    assert len(result.runs) == 2
    assert calls[-1] == 1  # it is not called again
    assert [warning.filename for warning in warned] == [__file__]


def test_ctrl_c_in_a_progress_function_ends_the_comparison(slow: str) -> None:
    def progress(event: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(slow, SCHEDULES, lrs=0.1, seeds=1, total_steps=5, workers=0, progress=progress)


def test_an_unknown_progress_is_refused_before_training(slow: str) -> None:
    with pytest.raises(SettingError, match="progress='bar': expected None, True, False or a"):
        compare(slow, SCHEDULES, lrs=0.1, seeds=1, total_steps=5, workers=0, progress="bar")


@pytest.mark.parametrize("progress", [None, False])
def test_nothing_is_shown_without_a_terminal(tmp_path: Path, capfd, progress) -> None:
    compare("digits", [constant(1)], lrs=0.1, seeds=1, total_steps=5, workers=0, progress=progress)
    assert capfd.readouterr() == ("", "")


def test_lines_are_shown_on_request_without_a_terminal(capfd) -> None:
    compare("digits", SCHEDULES, lrs=0.1, seeds=1, total_steps=5, workers=0, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines()] == [
        "[1/2] flat, seed 0", "[2/2] wave, seed 0",
    ]  # fmt: skip


def test_shared_steps_are_planned_once() -> None:
    task = load_task("digits")
    grid = Grid.create(task, [wsd(0)], [0.1], None, 1, [40, 80])
    plan = TrialPlan.create("digits", "", grid, halving=False, branches=True, shard=(1, 1))
    (job,) = plan.jobs
    steps = planned_steps(job, grid.lengths, task.steps_per_epoch)
    alone = [planned_steps((trial,), grid.lengths, task.steps_per_epoch) for trial in job]
    assert alone == [40, 80]
    assert 80 < steps < 120
