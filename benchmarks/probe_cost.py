"""Cost of a Probe at every 10th step of a training loop on the digits CNN.

    python benchmarks/probe_cost.py

One loop trains in blocks of ten steps, alternately with and without a probe that measures one of
them; the ratio of times is the median over adjacent pairs of blocks. (Two separate loops differ by
a percent because of memory layout alone.) The same loop without any probe shows how far the ratio
differs from 1 by chance.
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
from ratecraft.experiments._train import create_model_and_optimizer

EVERY, PAIRS, WARMUP_PAIRS = 10, 1000, 30


def ratios(*, probed: bool) -> Iterator[float]:
    """Train endlessly; yield the time of a probed block over that of an adjacent plain one."""
    seed_everything(0)
    task = load_task("digits")
    model, optimizer = create_model_and_optimizer(task)
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
        with_probe, without = block(probe), block(nullcontext())
        yield with_probe / without
        without, with_probe = block(nullcontext()), block(probe)
        yield with_probe / without


def report(label: str, values: Iterator[float]) -> None:
    measured = itertools.islice(values, WARMUP_PAIRS, WARMUP_PAIRS + PAIRS)
    low, median, high = statistics.quantiles(measured, n=4)
    print(f"{label}: {median:.3f} of the time without a probe "
          f"(half of {PAIRS} pairs from {low:.3f} to {high:.3f})")  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    report(f"with a probe at every {EVERY}th step", ratios(probed=True))
    report("without a probe in either block", ratios(probed=False))


if __name__ == "__main__":
    main()
