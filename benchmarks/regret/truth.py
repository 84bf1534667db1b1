"""Measure the final loss of every task over a grid of learning rates.

    python benchmarks/regret/truth.py [TASK ...]    writes truth.json, about an hour on two cores

Each task is trained with warmup over 10 % and cosine decay to 0 at 13 peak learning rates half a
decade apart, 1e-5 to 10 (further if the best one is at an end), then at four more, a quarter and
three quarters of a decade on both sides of the best; with three seeds; over the task's short run
and over one eight times as long. The measure is the final validation loss.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tasks import TASKS, entry_named

from ratecraft import Schedule, constant, cosine, percent, warmup
from ratecraft.experiments import train

TRUTH = Path(__file__).with_name("truth.json")
SEEDS = (1000, 1001, 1002)
LENGTHS = {"short": 1, "long": 8}  # times the short run
GRID = tuple(i / 2 for i in range(-10, 3))  # log10 of the lrs
FINER = (-0.75, -0.25, 0.25, 0.75)


def schedule() -> Schedule:
    """Return the schedule of every run, a factor of the peak learning rate."""
    return warmup(percent(10)).then(cosine(1, 0))


def losses(name: str, length: str, exponent: float) -> list[float | None]:
    """Return the final validation loss of each seed; None where training diverged."""
    entry = entry_named(name)
    task, total_steps = entry.build(), entry.steps * LENGTHS[length]
    finals: list[float | None] = []
    for seed in SEEDS:
        run = train(task, schedule(), lr=10**exponent, seed=seed, total_steps=total_steps)
        finals.append(None if run.diverged is not None else float(f"{run.final():.6g}"))
    return finals


def untrained(name: str) -> float:
    """Return the validation loss before training, the mean of the seeds."""
    task = entry_named(name).build()
    runs = [train(task, constant(0), seed=seed, total_steps=1) for seed in SEEDS]
    return float(f"{sum(run.final() for run in runs) / len(runs):.6g}")


def mean(losses: list[float | None], ceiling: float) -> float:
    """Return the mean loss of the seeds; a loss above ``ceiling`` or None counts as ``ceiling``."""
    capped = [ceiling if loss is None or loss > ceiling else loss for loss in losses]
    return sum(capped) / len(capped)


def measure(job: tuple[str, str]) -> tuple[str, str, float, dict[str, Any]]:
    """Return a task's losses over the grid, refined around the best."""
    torch.set_num_threads(1)
    name, length = job
    start, grid = untrained(name), {x: losses(name, length, x) for x in GRID}

    def best() -> float:
        return min(grid, key=lambda x: mean(grid[x], start))

    while best() in (min(grid), max(grid)) and -8 < best() < 3:
        beyond = best() + math.copysign(0.5, best() - sum(GRID) / len(GRID))
        grid[beyond] = losses(name, length, beyond)
    for x in [best() + step for step in FINER]:
        grid[x] = losses(name, length, x)
    points = sorted(grid.items())
    return name, length, start, {"log10_lrs": [x for x, _ in points],
                                 "losses": [seeds for _, seeds in points]}  # fmt: skip


def main(names: list[str]) -> None:
    """Measure the named tasks, or all of them, and write truth.json."""
    measured: dict[str, Any] = json.loads(TRUTH.read_text()) if TRUTH.exists() else {"tasks": {}}
    measured["made with"] = f"Python {platform.python_version()}, torch {torch.__version__}"
    jobs = [(entry.name, length) for length in LENGTHS for entry in TASKS
            if not names or entry.name in names]  # fmt: skip
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for i, (name, length, start, points) in enumerate(pool.imap_unordered(measure, jobs)):
            task = measured["tasks"].setdefault(name, {"steps": entry_named(name).steps})
            task["untrained"], task[length] = start, points
            TRUTH.write_text(json.dumps(measured, indent=None, separators=(",", ":")) + "\n")
            passed = time.perf_counter() - started
            print(f"{i + 1}/{len(jobs)}  {name} {length}  {passed:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
