"""Learning rate, schedule, warm-up and cooldown on two small tasks.

    python benchmarks/choosing.py                # print the tables, from saved losses
    python benchmarks/choosing.py train          # train all sections: 18 minutes on two cores
    python benchmarks/choosing.py train warmup   # train one section

Each cell is a validation loss: the mean over seeds ± its standard error. The best cell of a row is
bold; "diverged" means that the loss of a seed stopped being finite.
docs/explanation/benchmarks-choosing.md quotes the output.
"""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from ratecraft import Schedule, constant, cooldown, cosine, linear, percent, staircase, warmup
from ratecraft.experiments import Task, load_task, train
from ratecraft.finder import find_lr
from ratecraft.torch._optimizers import optimizer_named

RESULTS = Path(__file__).with_suffix(".json")
WORKERS, SEEDS = 2, 3
UP = warmup(percent(5))
STEPS = staircase([1, 0.1, 0.01], at=[percent(50), percent(75)])
SHIFTED, TRANSPOSED = "shifted", "transposed"

Table = dict[str, Any]  # "corner", "columns" and "losses": row -> column -> seed


@dataclass(frozen=True)
class Trial:
    """Training run; ``start`` names how the data change for a trained network, if there is one."""

    schedule: Schedule
    lr: float
    total_steps: int
    task: str = "digits"
    optimizer: str = "momentum"
    batch: int | None = None
    images: int | None = None
    decay: float | None = None
    start: str | None = None
    seed: int = 0


@cache
def task_of(trial: Trial) -> Task:
    task = load_task(trial.task)
    build, settings = optimizer_named(trial.optimizer), {}
    if trial.decay is not None:
        settings["weight_decay"] = trial.decay
    task = replace(task, optimizer=lambda model: build(model.parameters(), **settings))
    if trial.task != "digits":
        return task
    data: Any = task.train
    images, labels = (part[: trial.images] for part in data.dataset.tensors)
    model = task.model
    if trial.start is not None:
        change = changed(trial.start)
        images, task = change(images), replace(task, val=[(change(x), y) for x, y in task.val])
        network = trained()  # here, so that its seed does not depend on the first run that uses it
        model = lambda: copy.deepcopy(network)  # noqa: E731
    order = BatchSampler(RandomSampler(labels), batch_size=trial.batch or 32, drop_last=False)
    loader = DataLoader(TensorDataset(images, labels), sampler=order, batch_size=None)
    return replace(task, train=loader, model=model)


def changed(start: str) -> Any:
    if start == SHIFTED:
        return lambda images: torch.roll(images, 1, 3)
    return lambda images: images.transpose(2, 3)


@cache
def trained() -> nn.Module:
    """Return the digits network after four epochs."""
    task = load_task("digits")
    torch.manual_seed(0)
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    for _ in range(4):
        for batch in task.train:
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()
    return model


def final_loss(trial: Trial) -> float:
    task = task_of(replace(trial, schedule=UP, lr=1, total_steps=0, seed=0))
    run = train(task, trial.schedule, lr=trial.lr, seed=trial.seed, total_steps=trial.total_steps)
    return run.final()


def suggested_lr(trial: Trial) -> float:
    """Return the result of find_lr for a trial."""
    task = task_of(replace(trial, schedule=UP, lr=1, total_steps=0, seed=0))
    torch.manual_seed(trial.seed)
    model = task.model()
    result = find_lr(
        model, task.optimizer(model), task.train, task.loss, total_steps=trial.total_steps
    )
    return float("nan") if result.lr is None else float(f"{result.lr:.2g}")


def table_of(
    pool: ProcessPoolExecutor, corner: str, columns: list[str], rows: dict[str, list[Trial]]
) -> Table:
    """Train every trial of a table with every seed."""
    trials = [trial for row in rows.values() for trial in row]
    jobs = [replace(trial, seed=seed) for trial in trials for seed in range(SEEDS)]
    losses = pool.map(final_loss, jobs)
    cells: dict[str, list[list[float]]] = {}
    for name, row in rows.items():
        cells[name] = [[next(losses) for _ in range(SEEDS)] for _ in row]
        print(f"{corner} {name}", file=sys.stderr, flush=True)
    return {"corner": corner, "columns": columns, "losses": cells}


def cell_text(losses: list[float]) -> str:
    if any(math.isnan(loss) for loss in losses):
        return "diverged"
    error = statistics.stdev(losses) / math.sqrt(len(losses))
    return f"{statistics.mean(losses):.3f} ± {error:.3f}"


def show(table: Table) -> None:
    print(f"| {table['corner']} | {' | '.join(table['columns'])} |")
    print("|" + "---|" * (len(table["columns"]) + 1))
    for name, cells in table["losses"].items():
        means = [statistics.mean(cell) for cell in cells]
        best = min((mean for mean in means if not math.isnan(mean)), default=math.nan)
        texts = [
            f"**{cell_text(cell)}**" if mean == best else cell_text(cell)
            for cell, mean in zip(cells, means, strict=True)
        ]
        print(f"| {name} | {' | '.join(texts)} |")
    print()


def wsd(share: float) -> Schedule:
    return UP.then(constant(1)).then(cooldown(percent(share)))


def trials(schedule: Schedule, lrs: list[float], total_steps: int, **options: Any) -> list[Trial]:
    return [Trial(schedule, lr, total_steps, **options) for lr in lrs]


def shapes(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """Schedules on stdlib-text, AdamW, 200 steps, warm-up of 5 %."""
    lrs = [0.006, 0.012, 0.024]
    schedules = {
        "constant": UP.then(constant(1)),
        "cooldown of 10 %": wsd(10),
        "cooldown of 20 %": wsd(20),
        "cooldown of 40 %": wsd(40),
        "linear to 0": UP.then(linear(1, 0)),
        "cosine to 0": UP.then(cosine(1, 0)),
        "cosine to a tenth": UP.then(cosine(1, 0.1)),
    }
    rows = {
        name: trials(schedule, lrs, 200, task="stdlib-text", optimizer="adamw")
        for name, schedule in schedules.items()
    }
    yield table_of(pool, "schedule", [f"lr {lr}" for lr in lrs], rows)


def steps(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """Steps or a curve on digits, SGD with momentum 0.9, 225 steps, warm-up of 5 %."""
    lrs = [0.01, 0.03, 0.1, 0.3]
    schedules = {
        "constant": UP.then(constant(1)),
        "x 0.1 at 50 and 75 %": UP.then(STEPS),
        "cooldown of 20 %": wsd(20),
        "linear to 0": UP.then(linear(1, 0)),
        "cosine to 0": UP.then(cosine(1, 0)),
    }
    rows = {name: trials(schedule, lrs, 225) for name, schedule in schedules.items()}
    yield table_of(pool, "schedule", [f"lr {lr}" for lr in lrs], rows)


def warmups(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """Warm-up on digits, 225 steps, cosine to 0."""
    lrs_of = {"momentum": [0.03, 0.1, 0.3, 1.0], "adamw": [0.003, 0.01, 0.03, 0.1]}
    for optimizer, lrs in lrs_of.items():
        rows = {
            f"{optimizer}, {share} %": trials(
                warmup(percent(share)).then(cosine(1, 0)), lrs, 225, optimizer=optimizer
            )
            for share in (0, 5, 20)
        }
        yield table_of(pool, "warm-up", [f"lr {lr}" for lr in lrs], rows)


def starts(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """The old starting values and find_lr, digits, 135 steps, warm-up of 5 %, cosine to 0."""
    lrs = [0.001, 0.01, 0.1]
    schedule = UP.then(cosine(1, 0))
    names = {None: "from scratch", SHIFTED: "trained, then shifted", TRANSPOSED: "then transposed"}
    rows = {}
    for optimizer in ("sgd", "momentum"):
        for start, name in names.items():
            options = {"optimizer": optimizer, "start": start}
            lr = pool.submit(suggested_lr, Trial(schedule, 0.0, 135, **options)).result()
            row = trials(schedule, [*lrs, lr], 135, **options)
            rows[f"{name}, {optimizer}, find_lr {lr}"] = row
    yield table_of(pool, "network", [*(f"lr {lr}" for lr in lrs), "lr of find_lr"], rows)


def batches(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """Batch size on digits, four epochs each, warm-up of 5 %, cosine to 0."""
    lrs_of = {
        "momentum": [0.0125, 0.025, 0.05, 0.1, 0.2],
        "adamw": [0.0025, 0.005, 0.01, 0.02, 0.04],
    }
    schedule = UP.then(cosine(1, 0))
    for optimizer, lrs in lrs_of.items():
        rows = {
            f"{optimizer}, {size}": trials(
                schedule, lrs, 4 * math.ceil(1437 / size), optimizer=optimizer, batch=size
            )
            for size in (16, 64, 256)
        }
        yield table_of(pool, "batch", [f"lr {lr}" for lr in lrs], rows)


def decays(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """Weight decay of AdamW on 300 of the digits, 200 steps, warm-up of 5 %, cosine to 0."""
    decays, schedule = [0.01, 0.1, 0.3, 1.0, 3.0], UP.then(cosine(1, 0))
    rows = {
        f"lr {lr}": [
            Trial(schedule, lr, 200, optimizer="adamw", images=300, decay=decay) for decay in decays
        ]
        for lr in (0.001, 0.01)
    }
    yield table_of(pool, "", [f"decay {decay}" for decay in decays], rows)


SECTIONS: dict[str, Callable[[ProcessPoolExecutor], Iterator[Table]]] = {
    "shapes": shapes,
    "steps": steps,
    "warmup": warmups,
    "starts": starts,
    "batches": batches,
    "decays": decays,
}


def train_sections(names: list[str]) -> None:
    tables = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        WORKERS, spawned, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for name in names:
            tables[name] = list(SECTIONS[name](pool))
            RESULTS.write_text(
                json.dumps({name: tables[name] for name in SECTIONS if name in tables})
            )


def main() -> None:
    match sys.argv[1:]:
        case ["train", *names]:
            train_sections(names or list(SECTIONS))
    for name, tables in json.loads(RESULTS.read_text()).items():
        print(f"{SECTIONS[name].__doc__.removesuffix('.')}:\n")
        for table in tables:
            show(table)


if __name__ == "__main__":
    main()
