"""What a Probe at every 10th update costs a training loop on the digits CNN.

    python benchmarks/probe_cost.py

Two loops take turns, ten updates each, one with a probe that measures one of them; the ratio is
the median over all such pairs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch

from ratecraft.compare import Task, load_task
from ratecraft.compare.loop import start
from ratecraft.finder.preserve import seed_everything
from ratecraft.torch import Probe

EVERY, PAIRS, WARM = 10, 600, 30


def blocks(task: Task, *, probed: bool) -> Iterator[float]:
    """Train for ever, and yield how long each ten updates took."""
    seed_everything(0)
    model, optimizer = start(task)
    given = [batch for batch in task.train if len(batch[0]) == 32]
    with Probe(optimizer, model, every=EVERY) if probed else nullcontext():
        done = 0
        while True:
            started = time.perf_counter()
            for _ in range(EVERY):
                update(task, model, optimizer, given[done % len(given)])
                done += 1
            yield time.perf_counter() - started


def update(task: Task, model: Any, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    optimizer.zero_grad()
    task.loss(model, batch).backward()
    optimizer.step()


def main() -> None:
    torch.set_num_threads(1)
    task = load_task("digits")
    plain, probed = blocks(task, probed=False), blocks(task, probed=True)
    ratios = []
    for i in range(WARM + PAIRS):
        if i % 2:
            without, with_probe = next(plain), next(probed)
        else:
            with_probe, without = next(probed), next(plain)
        ratios.append(with_probe / without)
    low, middle, high = statistics.quantiles(ratios[WARM:], n=4)
    print(f"with a probe at every {EVERY}th update: {middle:.3f} of the time without "
          f"(half of {PAIRS} pairs from {low:.3f} to {high:.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
