"""Time of one step of each drop-in class and of torch's, alternating in one process.

    python benchmarks/drop_in_speed.py

The ratio is torch's time / ratecraft's time, the median over rounds.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler

from ratecraft.torch.drop_in import _schedulers as drop_in

ROUNDS = 21
TOTAL_STEPS = 1_000_000
warnings.simplefilter("ignore")  # torch warns without optimizer.step() before scheduler.step()

SCHEDULERS: dict[str, Callable[[Any, Any], Any]] = {
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda k: 0.5),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda k: 0.9999),
    "StepLR": lambda m, o: m.StepLR(o, 30),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [30, 60, 90]),
    "ConstantLR": lambda m, o: m.ConstantLR(o),
    "LinearLR": lambda m, o: m.LinearLR(o, total_iters=TOTAL_STEPS),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.99999),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, TOTAL_STEPS),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, TOTAL_STEPS),
    "CosineAnnealingLR, eta_min": lambda m, o: m.CosineAnnealingLR(o, TOTAL_STEPS, 1e-3),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 1000),
    "CyclicLR": lambda m, o: m.CyclicLR(o, 0.01, 0.1),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, 0.1, TOTAL_STEPS),
    "SequentialLR": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, total_iters=TOTAL_STEPS), m.ExponentialLR(o, 0.9)], [TOTAL_STEPS]
    ),
    "ChainedScheduler": lambda m, o: m.ChainedScheduler(
        [m.LinearLR(o, total_iters=TOTAL_STEPS), m.ExponentialLR(o, 0.99999)]
    ),
    "ReduceLROnPlateau": lambda m, o: m.ReduceLROnPlateau(o, patience=TOTAL_STEPS),
}


def step_of(module: Any, name: str, groups: int) -> Callable[[], None]:
    rows = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1 / (i + 1)} for i in range(groups)
    ]
    scheduler = SCHEDULERS[name](module, torch.optim.SGD(rows, lr=0.1, momentum=0.9))
    if name == "ReduceLROnPlateau":
        return lambda: scheduler.step(1.0)
    step: Callable[[], None] = scheduler.step
    return step


def timed(step: Callable[[], None], count: int) -> float:
    start = time.thread_time()
    for _ in range(count):
        step()
    return (time.thread_time() - start) / count


def main() -> None:
    print(
        f"{'ratio (ratecraft, torch, us)':28}"
        + "".join(f"{n:>9} groups   " for n in (1, 100, 1000))
    )
    for name in SCHEDULERS:
        row = f"{name:28}"
        for groups in (1, 100, 1000):
            ours, theirs = (step_of(module, name, groups) for module in (drop_in, lr_scheduler))
            count = max(2_000 // groups, 3)
            rounds = [(timed(ours, count), timed(theirs, count)) for _ in range(ROUNDS)]
            mine, its = (statistics.median(times) for times in zip(*rounds, strict=True))
            ratio = statistics.median(b / a for a, b in rounds)
            row += f"{ratio:5.2f} ({mine * 1e6:.0f}, {its * 1e6:.0f})".ljust(19)
        print(row)


if __name__ == "__main__":
    main()
