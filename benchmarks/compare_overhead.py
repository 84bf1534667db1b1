"""What an engine and a store add to trials: the same ones in a bare loop, and through each engine.

    python benchmarks/compare_overhead.py [rounds]

Each round trains four digits trials (450 steps each) in a bare loop, through the local engine
with one worker, and through Ray with one, each engine started and warm, with a store on disk; the
order changes from round to round. Beside it: what starting an engine takes, once. Every run must
be the bare loop's to the last bit.
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
LR, TOTAL = 0.003, 450


def bare(seeds: list[int]) -> list[Run]:
    return [
        train(load_task("digits"), schedule, lr=LR, seed=seed, total_steps=TOTAL)
        for schedule in SCHEDULES.values()
        for seed in seeds
    ]


def through(engine: Engine, seeds: list[int], folder: Path) -> list[Run]:
    store = folder / f"{time.monotonic_ns()}.db"
    found = compare(
        "digits", SCHEDULES, lrs=LR, seeds=seeds, total_steps=TOTAL, engine=engine, store=store
    )
    return list(found.runs)


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    bare([0])  # the first one warms up
    engines: dict[str, Engine] = {}
    kinds = {"local": lambda: LocalEngine(1), "ray": lambda: RayEngine(cpus=2)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, build in kinds.items():
            began = time.perf_counter()
            engines[kind] = build()
            through(engines[kind], [0], folder)
            print(f"{kind}: {time.perf_counter() - began:.1f} s to start, with two trials")
        spent = dict.fromkeys(("bare", *engines), 0.0)
        for i in range(rounds):
            seeds = [2 * i, 2 * i + 1]
            names = list(spent)
            names = names[i % len(names) :] + names[: i % len(names)]
            runs = {}
            for one in names:
                began = time.perf_counter()
                runs[one] = bare(seeds) if one == "bare" else through(engines[one], seeds, folder)
                spent[one] += time.perf_counter() - began
            plain = [[dataclasses.replace(run, seconds=0.0) for run in runs[one]] for one in spent]
            assert all(one == plain[0] for one in plain)
        for engine in engines.values():
            engine.close()
    trials = 4 * rounds
    print(f"{trials} trials each, the same to the last bit")
    print("| | seconds per trial | of the bare loop |\n|---|---|---|")
    for one, seconds in spent.items():
        print(f"| {one} | {seconds / trials:.2f} | {seconds / spent['bare']:.3f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6)
