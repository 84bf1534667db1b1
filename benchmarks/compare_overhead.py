"""Overhead of an engine and a store, relative to the same trials in a bare loop.

    python benchmarks/compare_overhead.py [rounds]

Each round trains four digits trials (450 steps each) in a bare loop, with the local engine and
with the Ray engine, each with one warm worker and a store on disk; the order rotates from round to
round. The time to start each engine is printed, too. Every run must equal that of the bare loop
to the last bit.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import torch

from ratecraft import constant, cosine
from ratecraft.experiments import compare, load_task, train
from ratecraft.experiments._engines import Engine, LocalEngine, RayEngine
from ratecraft.results import Run

SCHEDULES = {"constant": constant(1), "cosine": cosine(1, 0)}
LR, TOTAL_STEPS = 0.003, 450


def train_in_loop(seeds: list[int]) -> list[Run]:
    return [
        train(load_task("digits"), schedule, lr=LR, seed=seed, total_steps=TOTAL_STEPS)
        for schedule in SCHEDULES.values()
        for seed in seeds
    ]


def train_with(engine: Engine, seeds: list[int], folder: Path) -> list[Run]:
    store = folder / f"{time.monotonic_ns()}.db"
    result = compare(
        "digits",
        SCHEDULES,
        lrs=LR,
        seeds=seeds,
        total_steps=TOTAL_STEPS,
        engine=engine,
        store=store,
    )
    return list(result.runs)


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    train_in_loop([0])  # warm-up
    engines: dict[str, Engine] = {}
    builders = {"local": lambda: LocalEngine(1), "ray": lambda: RayEngine(cpus=2)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, build in builders.items():
            start = time.perf_counter()
            engines[name] = build()
            train_with(engines[name], [0], folder)
            print(f"{name}: {time.perf_counter() - start:.1f} s to start, with two trials")
        seconds = dict.fromkeys(("bare", *engines), 0.0)
        for i in range(rounds):
            seeds = [2 * i, 2 * i + 1]
            names = list(seconds)
            names = names[i % len(names) :] + names[: i % len(names)]
            runs = {}
            for name in names:
                start = time.perf_counter()
                runs[name] = (
                    train_with(engines[name], seeds, folder)
                    if name in engines
                    else train_in_loop(seeds)
                )
                seconds[name] += time.perf_counter() - start
            untimed = [
                [dataclasses.replace(run, seconds=0.0) for run in runs[name]] for name in seconds
            ]
            assert all(group == untimed[0] for group in untimed)
        for engine in engines.values():
            engine.close()
    trials = 4 * rounds
    print(f"{trials} trials each, the same to the last bit")
    print("| | seconds per trial | of the bare loop |\n|---|---|---|")
    for name, total in seconds.items():
        print(f"| {name} | {total / trials:.2f} | {total / seconds['bare']:.3f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6)
