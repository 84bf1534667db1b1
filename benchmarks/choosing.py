"""What lr, schedule, warm-up and cooldown did on two small real tasks.

    python benchmarks/choosing.py                # the tables, from the losses on file
    python benchmarks/choosing.py train          # train all of it anew: 18 minutes on two cores
    python benchmarks/choosing.py train warmup   # one section

Every figure is a validation loss: the mean over seeds ± its standard error. A row's best is bold;
"lost" means that a seed's loss stopped being finite. docs/choosing.md quotes what this prints.
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

KEPT = Path(__file__).with_suffix(".json")
WORKERS, SEEDS = 2, 3
UP = warmup(percent(5))
STEPS = staircase([1, 0.1, 0.01], at=[percent(50), percent(75)])
SHIFTED, TRANSPOSED = "shifted", "transposed"

Table = dict[str, Any]  # corner, columns, and the losses: row -> column -> seed


@dataclass(frozen=True)
class Trial:
    """One training run; ``start`` is None from scratch, else what a trained network learns next."""

    schedule: Schedule
    lr: float
    total: int
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
        network = trained()  # now, and not under the seed of the run that asks first
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


def result(trial: Trial) -> float:
    task = task_of(replace(trial, schedule=UP, lr=1, total_steps=0, seed=0))
    run = train(task, trial.schedule, lr=trial.lr, seed=trial.seed, total_steps=trial.total_steps)
    return run.final()


def found(trial: Trial) -> float:
    """Return the lr that find_lr answers for a trial."""
    task = task_of(replace(trial, schedule=UP, lr=1, total_steps=0, seed=0))
    torch.manual_seed(trial.seed)
    model = task.model()
    answer = find_lr(
        model, task.optimizer(model), task.train, task.loss, total_steps=trial.total_steps
    )
    return float("nan") if answer.lr is None else float(f"{answer.lr:.2g}")


def measured(
    pool: ProcessPoolExecutor, corner: str, columns: list[str], rows: dict[str, list[Trial]]
) -> Table:
    """Train every trial of a table with every seed."""
    trials = [trial for row in rows.values() for trial in row]
    jobs = [replace(trial, seed=seed) for trial in trials for seed in range(SEEDS)]
    losses = pool.map(result, jobs)
    kept: dict[str, list[list[float]]] = {}
    for name, row in rows.items():
        kept[name] = [[next(losses) for _ in range(SEEDS)] for _ in row]
        print(f"{corner} {name}", file=sys.stderr, flush=True)
    return {"corner": corner, "columns": columns, "losses": kept}


def told(losses: list[float]) -> str:
    if any(math.isnan(loss) for loss in losses):
        return "lost"
    error = statistics.stdev(losses) / math.sqrt(len(losses))
    return f"{statistics.mean(losses):.3f} ± {error:.3f}"


def show(table: Table) -> None:
    print(f"| {table['corner']} | {' | '.join(table['columns'])} |")
    print("|" + "---|" * (len(table["columns"]) + 1))
    for name, cells in table["losses"].items():
        means = [statistics.mean(cell) for cell in cells]
        best = min((mean for mean in means if not math.isnan(mean)), default=math.nan)
        said = [
            f"**{told(cell)}**" if mean == best else told(cell)
            for cell, mean in zip(cells, means, strict=True)
        ]
        print(f"| {name} | {' | '.join(said)} |")
    print()


def wsd(share: float) -> Schedule:
    return UP.then(constant(1)).then(cooldown(percent(share)))


def lrs(schedule: Schedule, tried: list[float], total: int, **more: Any) -> list[Trial]:
    return [Trial(schedule, lr, total, **more) for lr in tried]


def shapes(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """Schedules on stdlib-text, AdamW, 200 steps, warm-up of 5 %."""
    tried, said = [0.006, 0.012, 0.024], {"task": "stdlib-text", "optimizer": "adamw"}
    named = {
        "constant": UP.then(constant(1)),
        "cooldown of 10 %": wsd(10),
        "cooldown of 20 %": wsd(20),
        "cooldown of 40 %": wsd(40),
        "linear to 0": UP.then(linear(1, 0)),
        "cosine to 0": UP.then(cosine(1, 0)),
        "cosine to a tenth": UP.then(cosine(1, 0.1)),
    }
    rows = {name: lrs(schedule, tried, 200, **said) for name, schedule in named.items()}
    yield measured(pool, "schedule", [f"lr {lr}" for lr in tried], rows)


def steps(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """Steps or a curve on digits, SGD with momentum 0.9, 225 steps, warm-up of 5 %."""
    tried = [0.01, 0.03, 0.1, 0.3]
    named = {
        "constant": UP.then(constant(1)),
        "x 0.1 at 50 and 75 %": UP.then(STEPS),
        "cooldown of 20 %": wsd(20),
        "linear to 0": UP.then(linear(1, 0)),
        "cosine to 0": UP.then(cosine(1, 0)),
    }
    rows = {name: lrs(schedule, tried, 225) for name, schedule in named.items()}
    yield measured(pool, "schedule", [f"lr {lr}" for lr in tried], rows)


def warm(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """Warm-up on digits, 225 steps, cosine to 0."""
    tried = {"momentum": [0.03, 0.1, 0.3, 1.0], "adamw": [0.003, 0.01, 0.03, 0.1]}
    for optimizer, some in tried.items():
        rows = {
            f"{optimizer}, {share} %": lrs(
                warmup(percent(share)).then(cosine(1, 0)), some, 225, optimizer=optimizer
            )
            for share in (0, 5, 20)
        }
        yield measured(pool, "warm-up", [f"lr {lr}" for lr in some], rows)


def starts(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """The old starting values and find_lr, digits, 135 steps, warm-up of 5 %, cosine to 0."""
    tried = [0.001, 0.01, 0.1]
    schedule = UP.then(cosine(1, 0))
    names = {None: "from scratch", SHIFTED: "trained, then shifted", TRANSPOSED: "then transposed"}
    rows = {}
    for optimizer in ("sgd", "momentum"):
        for start, name in names.items():
            said = {"optimizer": optimizer, "start": start}
            asked = Trial(schedule, 0.0, 135, **said)
            answer = pool.submit(found, asked).result()
            row = lrs(schedule, [*tried, answer], 135, **said)
            rows[f"{name}, {optimizer}, find_lr {answer}"] = row
    yield measured(pool, "network", [*(f"lr {lr}" for lr in tried), "lr of find_lr"], rows)


def batches(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """Batch size on digits, four epochs each, warm-up of 5 %, cosine to 0."""
    tried = {
        "momentum": [0.0125, 0.025, 0.05, 0.1, 0.2],
        "adamw": [0.0025, 0.005, 0.01, 0.02, 0.04],
    }
    schedule = UP.then(cosine(1, 0))
    for optimizer, some in tried.items():
        rows = {
            f"{optimizer}, {size}": lrs(
                schedule, some, 4 * math.ceil(1437 / size), optimizer=optimizer, batch=size
            )
            for size in (16, 64, 256)
        }
        yield measured(pool, "batch", [f"lr {lr}" for lr in some], rows)


def decays(pool: ProcessPoolExecutor) -> Iterator[Table]:
    """Weight decay of AdamW on 300 of the digits, 200 steps, warm-up of 5 %, cosine to 0."""
    tried, schedule = [0.01, 0.1, 0.3, 1.0, 3.0], UP.then(cosine(1, 0))
    rows = {
        f"lr {lr}": [
            Trial(schedule, lr, 200, optimizer="adamw", images=300, decay=decay) for decay in tried
        ]
        for lr in (0.001, 0.01)
    }
    yield measured(pool, "", [f"decay {decay}" for decay in tried], rows)


SECTIONS: dict[str, Callable[[ProcessPoolExecutor], Iterator[Table]]] = {
    "shapes": shapes,
    "steps": steps,
    "warmup": warm,
    "starts": starts,
    "batches": batches,
    "decays": decays,
}


def train_sections(names: list[str]) -> None:
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        WORKERS, spawned, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for name in names:
            kept[name] = list(SECTIONS[name](pool))
            KEPT.write_text(json.dumps({name: kept[name] for name in SECTIONS if name in kept}))


def main() -> None:
    match sys.argv[1:]:
        case ["train", *names]:
            train_sections(names or list(SECTIONS))
    for name, tables in json.loads(KEPT.read_text()).items():
        print(f"{SECTIONS[name].__doc__.removesuffix('.')}:\n")
        for table in tables:
            show(table)


if __name__ == "__main__":
    main()
