"""Forty trials with ten workers and ten drivers killed give the undisturbed result."""

import dataclasses
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ratecraft import constant, cosine
from ratecraft.experiments import compare
from ratecraft.results import Comparison

pytestmark = pytest.mark.slow

TASK = """
import os, time
import torch
from torch import nn
from ratecraft.experiments import Task

x = torch.linspace(-1, 1, 64)[:, None]
data = torch.utils.data.TensorDataset(x)

def task():
    time.sleep(float(os.environ.get("SLOW", 0)))
    return Task(
        model=lambda: nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.1), nn.Linear(4, 1)),
        loss=lambda model, batch: ((model(batch[0]) - 2 * batch[0]) ** 2).mean(),
        train=torch.utils.data.DataLoader(data, batch_size=8, shuffle=True),
        val=[(x,)],
    )
"""
DRIVER = """
from ratecraft import constant, cosine
from ratecraft.experiments import compare
if __name__ == "__main__":
    compare({task!r}, {{"flat": constant(1), "wave": cosine(1, 0)}}, lrs=[0.1, 0.01], seeds=10,
            total_steps=40, engine={engine!r}, store={store!r})
"""
WORKER_KILLS = 10


def worker_processes(driver: int, pattern: str) -> list[int]:
    """Return the processes below a driver whose command line contains a pattern."""
    parents, workers = {}, []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if stat[0] != "Z":
                parents[int(entry.name)] = int(stat[1])
        except OSError:
            continue
    for process, parent in parents.items():
        ancestor = parent
        while ancestor not in (0, 1, driver):
            ancestor = parents.get(ancestor, 0)
        try:
            line = Path(f"/proc/{process}/cmdline").read_text()
        except OSError:
            continue
        if ancestor == driver and pattern in line:
            workers.append(process)
    return workers


def count_done(store: str) -> int:
    """Return how many trials of a store are done."""
    if not Path(store).exists():
        return 0
    db = sqlite3.connect(store)
    try:
        return db.execute("SELECT count(*) FROM trials").fetchone()[0]
    except sqlite3.OperationalError:  # the store is being created
        return 0
    finally:
        db.close()


def contents(result: Comparison) -> list[object]:
    """Return what must be equal: everything but the times."""
    runs = [dataclasses.replace(run, seconds=0.0) for run in result.runs]
    return [runs, result.summaries(), result.verdict()]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds worker processes in /proc")
@pytest.mark.parametrize(("engine", "pattern"), [("local", "spawn_main"), ("ray", "ray::")])
def test_forty_trials_survive_twenty_kills(tmp_path: Path, engine: str, pattern: str) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="the engine extra is not installed")
    (tmp_path / "task.py").write_text(TASK)
    task, store = f"{tmp_path / 'task.py'}:task", str(tmp_path / "runs.db")
    settings = {"lrs": [0.1, 0.01], "seeds": 10, "total_steps": 40}
    schedules = {"flat": constant(1), "wave": cosine(1, 0)}
    undisturbed = compare(task, schedules, **settings, workers=2)
    assert len(undisturbed.runs) == 40
    (tmp_path / "driver.py").write_text(DRIVER.format(task=task, engine=engine, store=store))
    rng, kills = random.Random(0), 0
    for _ in range(2 * WORKER_KILLS):
        if kills == WORKER_KILLS:
            break
        with subprocess.Popen(
            [sys.executable, str(tmp_path / "driver.py")],
            env=os.environ | {"SLOW": "4", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as driver:
            before, deadline = count_done(store), time.monotonic() + 90
            while count_done(store) == before and time.monotonic() < deadline:
                time.sleep(0.2)
            time.sleep(2 * rng.random())
            if processes := worker_processes(driver.pid, pattern):
                os.kill(rng.choice(processes), signal.SIGKILL)
                kills += 1
            time.sleep(3 * rng.random())
            driver.kill()
        time.sleep(0.5)
    events = []
    result = compare(
        task, schedules, **settings, engine=engine, store=store,
        progress=lambda p: events.append(p.event),
    )  # fmt: skip
    assert kills == WORKER_KILLS
    assert events.count("resumed") > 0
    assert events.count("done") == 40 - events.count("resumed")
    assert contents(result) == contents(undisturbed)
