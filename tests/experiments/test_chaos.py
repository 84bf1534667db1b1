"""Forty trials, ten workers and ten drivers killed: the end is that of no disturbance."""

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
ROUNDS = 10


def workers(driver: int, mark: str) -> list[int]:
    """Return the processes below a driver whose command line says what workers are."""
    parents, found = {}, []
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
        above = parent
        while above not in (0, 1, driver):
            above = parents.get(above, 0)
        try:
            line = Path(f"/proc/{process}/cmdline").read_text()
        except OSError:
            continue
        if above == driver and mark in line:
            found.append(process)
    return found


def complete(store: str) -> int:
    """Return how many trials of a store are done."""
    if not Path(store).exists():
        return 0
    base = sqlite3.connect(store)
    try:
        return base.execute("SELECT count(*) FROM trials WHERE status = 'done'").fetchone()[0]
    except sqlite3.OperationalError:  # it is being made
        return 0
    finally:
        base.close()


def table(result: Comparison) -> list[object]:
    runs = [dataclasses.replace(run, seconds=0.0) for run in result.runs]
    return [runs, result.summaries(), result.verdict()]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc")
@pytest.mark.parametrize(("engine", "mark"), [("local", "spawn_main"), ("ray", "ray::")])
def test_forty_trials_survive_twenty_kills(tmp_path: Path, engine: str, mark: str) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="the engine extra is not installed")
    (tmp_path / "task.py").write_text(TASK)
    task, store = f"{tmp_path / 'task.py'}:task", str(tmp_path / "runs.db")
    settings = {"lrs": [0.1, 0.01], "seeds": 10, "total": 40}
    plans = {"flat": constant(1), "wave": cosine(1, 0)}
    undisturbed = compare(task, plans, **settings, workers=2)
    assert len(undisturbed.runs) == 40
    (tmp_path / "driver.py").write_text(DRIVER.format(task=task, engine=engine, store=store))
    rng, killed = random.Random(0), 0
    for _ in range(2 * ROUNDS):
        if killed == ROUNDS:
            break
        with subprocess.Popen(
            [sys.executable, str(tmp_path / "driver.py")],
            env=os.environ | {"SLOW": "4", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as driver:
            before, end = complete(store), time.monotonic() + 90
            while complete(store) == before and time.monotonic() < end:
                time.sleep(0.2)
            time.sleep(2 * rng.random())
            if there := workers(driver.pid, mark):
                os.kill(rng.choice(there), signal.SIGKILL)
                killed += 1
            time.sleep(3 * rng.random())
            driver.kill()
        time.sleep(0.5)
    told = []
    result = compare(
        task, plans, **settings, engine=engine, store=store,
        progress=lambda p: told.append(p.what),
    )  # fmt: skip
    assert killed == ROUNDS
    assert told.count("kept") > 0
    assert told.count("done") == 40 - told.count("kept")
    assert table(result) == table(undisturbed)
