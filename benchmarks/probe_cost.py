"""What a Probe at every 10th step costs a training loop on the digits CNN.

    python benchmarks/probe_cost.py

One loop trains in blocks of ten steps, of which every other one has a probe that measures one
step; the ratio is the median over pairs of neighbours. (Two loops beside each other differ by a
per cent already by where their weights lie in memory.) The same without a probe in either block
tells how far from 1 the ratio may lie by chance.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch

from ratecraft._training._snapshot import seed_everything
from ratecraft.diagnostics import Probe
from ratecraft.experiments import load_task
from ratecraft.experiments._train import start

EVERY, PAIRS, WARM = 10, 1000, 30


def ratios(*, probed: bool) -> Iterator[float]:
    """Train for ever, and yield how much longer a block took than the one beside it."""
    seed_everything(0)
    task = load_task("digits")
    model, optimizer = start(task)
    batches = itertools.cycle([batch for batch in task.train if len(batch[0]) == 32])
    probe = Probe(optimizer, model, every=EVERY) if probed else nullcontext()

    def block(context: Any) -> float:
        with context:
            started = time.perf_counter()
            for batch in itertools.islice(batches, EVERY):
                optimizer.zero_grad()
                task.loss(model, batch).backward()
                optimizer.step()
            return time.perf_counter() - started

    while True:
        first, without = block(probe), block(nullcontext())
        yield first / without
        without, second = block(nullcontext()), block(probe)
        yield second / without


def told(what: str, found: Iterator[float]) -> None:
    low, middle, high = statistics.quantiles(itertools.islice(found, WARM, WARM + PAIRS), n=4)
    print(f"{what}: {middle:.3f} of the time without "
          f"(half of {PAIRS} pairs from {low:.3f} to {high:.3f})")  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    told(f"with a probe at every {EVERY}th step", ratios(probed=True))
    told("without one in either block", ratios(probed=False))


if __name__ == "__main__":
    main()
