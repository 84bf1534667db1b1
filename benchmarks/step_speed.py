"""Time of one scheduler step, ratecraft and torch alternating in one process.

    python benchmarks/step_speed.py

The ratio is torch's time / ratecraft's time, the median over rounds.
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
TOTAL_STEPS = 1_000_000
warnings.simplefilter("ignore")  # torch warns without optimizer.step() before scheduler.step()


def optimizer(groups: int) -> torch.optim.Optimizer:
    rows = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)]
    return torch.optim.SGD(rows, lr=0.1, momentum=0.9)


def torch_cosine(groups: int) -> Callable[[], None]:
    return lr_scheduler.CosineAnnealingLR(optimizer(groups), TOTAL_STEPS).step


def torch_one_cycle(groups: int) -> Callable[[], None]:
    return lr_scheduler.OneCycleLR(
        optimizer(groups), 0.1, total_steps=TOTAL_STEPS, cycle_momentum=False
    ).step


def torch_sequential(groups: int) -> Callable[[], None]:
    sgd = optimizer(groups)
    parts = [
        lr_scheduler.LinearLR(sgd, 1e-3, total_iters=TOTAL_STEPS // 10),
        lr_scheduler.CosineAnnealingLR(sgd, TOTAL_STEPS - TOTAL_STEPS // 10),
    ]
    return lr_scheduler.SequentialLR(sgd, parts, [TOTAL_STEPS // 10]).step


PAIRS = {
    "CosineAnnealingLR": (torch_cosine, cosine()),
    "OneCycleLR": (torch_one_cycle, one_cycle(percent(30))),
    "SequentialLR": (torch_sequential, warmup(percent(10), start=1e-3).then(cosine())),
}


def timed(step: Callable[[], None], count: int) -> float:
    start = time.thread_time()
    for _ in range(count):
        step()
    return (time.thread_time() - start) / count


def main() -> None:
    print(f"{'':20}{'groups':>8}{'ratecraft':>14}{'torch':>14}{'ratio':>8}")
    for name, (theirs, schedule) in PAIRS.items():
        for groups in (1, 100, 1000):
            ours = ScheduleLR(
                optimizer(groups), factor=schedule, total_steps=TOTAL_STEPS, clock="step"
            ).step
            torchs = theirs(groups)
            count = max(20_000 // groups // 4, 5)
            rounds = [(timed(ours, count), timed(torchs, count)) for _ in range(ROUNDS)]
            mine, its = (statistics.median(times) for times in zip(*rounds, strict=True))
            ratio = statistics.median(b / a for a, b in rounds)
            print(f"{name:20}{groups:>8}{mine * 1e6:>11.2f} us{its * 1e6:>11.2f} us{ratio:>8.2f}")


if __name__ == "__main__":
    main()
