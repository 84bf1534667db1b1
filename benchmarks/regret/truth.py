"""Find out by training what the best lr of every task is, and what any other lr costs.

    python benchmarks/regret/truth.py [TASK ...]    writes truth.json, about an hour on two cores

Each task is trained with warmup over 10 % and cosine decay to 0 at 13 peak lrs half a decade
apart, 1e-5 to 10 (further where the best one lies at an end), then at four more a quarter decade
and three quarters around the best; with three seeds; over the task's short run and over one
eight times as long. What counts is the last validation loss.
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
from tasks import TASKS, entry

from ratecraft import Schedule, constant, cosine, percent, warmup
from ratecraft.experiments import train

PLACE = Path(__file__).with_name("truth.json")
SEEDS = (1000, 1001, 1002)
LENGTHS = {"short": 1, "long": 8}  # times the short run
GRID = tuple(i / 2 for i in range(-10, 3))  # log10 of the lrs
FINER = (-0.75, -0.25, 0.25, 0.75)


def schedule() -> Schedule:
    """Return the schedule of every run of the truth: a factor of the peak lr."""
    return warmup(percent(10)).then(cosine(1, 0))


def losses(name: str, length: str, exponent: float) -> list[float | None]:
    """Return the last validation loss of each seed; None where training diverged."""
    one = entry(name)
    task, total = one.build(), one.steps * LENGTHS[length]
    finals: list[float | None] = []
    for seed in SEEDS:
        run = train(task, schedule(), lr=10**exponent, seed=seed, total_steps=total)
        finals.append(None if run.diverged is not None else float(f"{run.final():.6g}"))
    return finals


def untrained(name: str) -> float:
    """Return the validation loss before any training, the seeds' mean."""
    task = entry(name).build()
    runs = [train(task, constant(0), seed=seed, total_steps=1) for seed in SEEDS]
    return float(f"{sum(run.final() for run in runs) / len(runs):.6g}")


def mean(losses: list[float | None], ceiling: float) -> float:
    """Return the mean loss of the seeds; what is worse than no training counts as none."""
    kept = [ceiling if loss is None or loss > ceiling else loss for loss in losses]
    return sum(kept) / len(kept)


def measure(job: tuple[str, str]) -> tuple[str, str, float, dict[str, Any]]:
    """Return a task's losses over the grid, refined around the best."""
    torch.set_num_threads(1)
    name, length = job
    start, found = untrained(name), {x: losses(name, length, x) for x in GRID}

    def best() -> float:
        return min(found, key=lambda x: mean(found[x], start))

    while best() in (min(found), max(found)) and -8 < best() < 3:
        beyond = best() + math.copysign(0.5, best() - sum(GRID) / len(GRID))
        found[beyond] = losses(name, length, beyond)
    for x in [best() + step for step in FINER]:
        found[x] = losses(name, length, x)
    points = sorted(found.items())
    return name, length, start, {"log10_lrs": [x for x, _ in points],
                                 "losses": [one for _, one in points]}  # fmt: skip


def main(names: list[str]) -> None:
    """Measure the tasks that are named, or all, and write them to the file."""
    known: dict[str, Any] = json.loads(PLACE.read_text()) if PLACE.exists() else {"tasks": {}}
    known["made with"] = f"Python {platform.python_version()}, torch {torch.__version__}"
    jobs = [(one.name, length) for length in LENGTHS for one in TASKS
            if not names or one.name in names]  # fmt: skip
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for i, (name, length, start, points) in enumerate(pool.imap_unordered(measure, jobs)):
            task = known["tasks"].setdefault(name, {"steps": entry(name).steps})
            task["untrained"], task[length] = start, points
            PLACE.write_text(json.dumps(known, indent=None, separators=(",", ":")) + "\n")
            passed = time.perf_counter() - started
            print(f"{i + 1}/{len(jobs)}  {name} {length}  {passed:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
