import math
import os
from concurrent.futures import BrokenExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from ratecraft import ScheduleError, constant, cosine, custom, warmup, wsd
from ratecraft.errors import RunFailed, TaskError
from ratecraft.experiments import Plateau, compare, load_task, train
from ratecraft.experiments._engines import LocalEngine
from ratecraft.experiments._train import create_model_and_optimizer
from ratecraft.finder import range_test
from ratecraft.results import load

SCHEDULES = {"flat": constant(1), "cosine": warmup(5).then(cosine(1, 0))}


def exit_process() -> None:
    os._exit(9)


def test_workers_and_this_process_train_every_schedule_with_every_seed() -> None:
    counts = []
    result = compare(
        "digits",
        SCHEDULES,
        lrs=0.01,
        seeds=2,
        total_steps=30,
        workers=2,
        progress=lambda p: p.event == "done" and counts.append((p.done, p.planned)),
    )
    assert [(run.schedule, run.seed) for run in result.runs] == [
        (repr(schedule), seed) for schedule in SCHEDULES.values() for seed in (0, 1)
    ]
    assert counts == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [len(result.runs_for(name)) for name in SCHEDULES] == [2, 2]
    assert result.metrics() == ("loss", "accuracy")
    inline = compare("digits", SCHEDULES, lrs=0.01, seeds=2, total_steps=30, workers=0)
    for run, again in zip(result.runs, inline.runs, strict=True):
        assert run.final() == pytest.approx(again.final(), rel=0.2)


def test_runs_of_one_seed_start_from_the_same_weights_and_data() -> None:
    result = compare("digits", SCHEDULES, lrs=0.0, seeds=[4], total_steps=8, workers=0)
    assert result.runs[0].losses == result.runs[1].losses


def test_schedules_in_a_list_are_named_as_they_were_written() -> None:
    schedules = [wsd(2), 0.5 * wsd(2), Plateau(wsd(2), factor=0.5)]
    result = compare("digits", schedules, lrs=0.01, seeds=1, total_steps=8, workers=0)
    names = ["wsd(2)", "0.5 * wsd(2)", "plateau(wsd(2), factor=0.5)"]
    assert list(result.schedules) == names
    assert list(result.schedules.values()) == [repr(schedule) for schedule in schedules]
    assert [run.schedule for run in result.runs] == list(result.schedules.values())


def test_random_numbers_of_a_task_function_are_the_same_for_every_run(tmp_path: Path) -> None:
    file = tmp_path / "random_data.py"
    file.write_text(
        "import torch\n"
        "from ratecraft.experiments import Task\n"
        "def task():\n"
        "    x = torch.randn(64, 3)\n"
        "    loss = lambda model, batch: ((model(batch) - batch.sum(1)[:, None]) ** 2).mean()\n"
        "    line = lambda: torch.nn.Linear(3, 1)\n"
        "    return Task(model=line, loss=loss, train=x.split(16), val=[x])\n"
    )
    for workers in (0, 2):
        runs = compare(
            f"{file}:task", SCHEDULES, lrs=0.0, seeds=2, total_steps=6, workers=workers
        ).runs
        assert runs[0].losses == pytest.approx(runs[2].losses, rel=1e-6)
        assert runs[1].losses == pytest.approx(runs[3].losses, rel=1e-6)


def test_saved_comparison_loads_unchanged(tmp_path: Path) -> None:
    result = compare(
        "digits", [constant(1), constant(1e30)], lrs=0.1, seeds=1, total_steps=5, workers=0
    )
    assert result.runs[1].diverged is not None
    loaded = load(result.save(tmp_path / "deep" / "c.json"))
    # As text, since NaN differs from itself.
    assert repr(asdict(loaded)) == repr(asdict(result))
    assert math.isnan(loaded.summaries()[1].mean["loss"])


def test_invalid_arguments_raise_before_training() -> None:
    with pytest.raises(ScheduleError, match="at least one schedule, one lr and one seed"):
        compare("digits", {}, lrs=0.1)
    with pytest.raises(ScheduleError, match="given twice"):
        compare("digits", {"a": constant(1), "b": constant(1)}, lrs=0.1)
    with pytest.raises(ScheduleError, match="no room"):
        compare("digits", [warmup(50).then(cosine(1, 0))], lrs=0.1, total_steps=10)
    with pytest.raises(ScheduleError, match="custom"):
        compare("digits", [custom(lambda t: 1.0)], lrs=0.1, total_steps=10)
    with pytest.raises(TypeError, match="expected a Schedule"):
        compare("digits", {"a": "cosine(1, 0)"}, lrs=0.1)
    with pytest.raises(TaskError, match="workers=0"):
        compare(lambda: load_task("digits"), [constant(1)], lrs=0.1, total_steps=3)


def test_dying_worker_raises_run_failed(tmp_path: Path) -> None:
    file = tmp_path / "dying.py"
    file.write_text(
        "import os, multiprocessing\n"
        "from ratecraft.experiments import load_task\n"
        "def task():\n"
        "    if multiprocessing.parent_process() is not None:\n"
        "        os._exit(9)\n"
        "    return load_task('digits')\n"
    )
    with pytest.raises(RunFailed, match="a worker process died"):
        compare(f"{file}:task", [constant(1)], lrs=0.1, seeds=1, total_steps=3, workers=1)


def test_other_workers_of_a_local_engine_survive_a_dead_worker() -> None:
    with closing(LocalEngine(2)) as engine:
        dead, alive = engine.submit(exit_process), engine.submit(os.getpid)
        assert alive.result(60) != os.getpid()
        with pytest.raises(BrokenExecutor):
            dead.result(60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_lr_of_the_range_test_trains_digits_to_97_percent(seed: int) -> None:
    task = load_task("digits")
    torch.manual_seed(seed)
    lr = range_test(*create_model_and_optimizer(task), task.train, task.loss).suggestion
    run = train(task, warmup(20).then(cosine(1, 0)), lr=lr, seed=seed, total_steps=450)
    assert run.final("accuracy") >= 0.97
