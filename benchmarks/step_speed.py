"""What one step of a scheduler costs: ours beside torch's, taking turns in one process.

    python benchmarks/step_speed.py

A ratio is how many times faster ours is: the median over rounds of torch's time by ours.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch.optim import lr_scheduler

from ratecraft import cosine, one_cycle, percent, warmup
from ratecraft.torch import ScheduleLR

ROUNDS = 41
TOTAL = 1_000_000
warnings.simplefilter("ignore")  # torch asks for optimizer.step() before scheduler.step()


def optimizer(groups: int) -> torch.optim.Optimizer:
    rows = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)]
    return torch.optim.SGD(rows, lr=0.1, momentum=0.9)


def torch_cosine(groups: int) -> Callable[[], None]:
    return lr_scheduler.CosineAnnealingLR(optimizer(groups), TOTAL).step


def torch_one_cycle(groups: int) -> Callable[[], None]:
    return lr_scheduler.OneCycleLR(
        optimizer(groups), 0.1, total_steps=TOTAL, cycle_momentum=False
    ).step


def torch_sequential(groups: int) -> Callable[[], None]:
    innermost_optimizer = optimizer(groups)
    parts = [
        lr_scheduler.LinearLR(innermost_optimizer, 1e-3, total_iters=TOTAL // 10),
        lr_scheduler.CosineAnnealingLR(innermost_optimizer, TOTAL - TOTAL // 10),
    ]
    return lr_scheduler.SequentialLR(innermost_optimizer, parts, [TOTAL // 10]).step


PAIRS = {
    "CosineAnnealingLR": (torch_cosine, cosine()),
    "OneCycleLR": (torch_one_cycle, one_cycle(percent(30))),
    "SequentialLR": (torch_sequential, warmup(percent(10), start=1e-3).then(cosine())),
}


def timed(step: Callable[[], None], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def main() -> None:
    print(f"{'':20}{'groups':>8}{'ratecraft':>14}{'torch':>14}{'ratio':>8}")
    for name, (theirs, schedule) in PAIRS.items():
        for groups in (1, 100, 1000):
            ours = ScheduleLR(
                optimizer(groups), factor=schedule, total_steps=TOTAL, clock="step"
            ).step
            torchs = theirs(groups)
            count = max(20_000 // groups // 4, 5)
            rounds = [(timed(ours, count), timed(torchs, count)) for _ in range(ROUNDS)]
            mine, its = (statistics.median(times) for times in zip(*rounds, strict=True))
            ratio = statistics.median(b / a for a, b in rounds)
            print(f"{name:20}{groups:>8}{mine * 1e6:>11.2f} us{its * 1e6:>11.2f} us{ratio:>8.2f}")


if __name__ == "__main__":
    main()
