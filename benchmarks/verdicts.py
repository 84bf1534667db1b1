"""False verdicts of `compare` on equal candidates, and its power to find a loss twice as high.

    python benchmarks/verdicts.py

The first table has the share of 2,000 simulated comparisons of equal candidates in which any
candidate is called significantly worse than the best. The losses have normal, log-normal or
Student's t noise with 3 degrees of freedom, and each seed changes those of all candidates. The
second table has the share in which a candidate with twice the loss is called worse.
"""

from __future__ import annotations

import math

import numpy as np

from ratecraft.results import Comparison, Evaluation, Run

SIMULATIONS = 2000
CANDIDATES = 2, 3, 5, 10, 20
SEEDS = 3, 5
SPREADS = 0.02, 0.3  # standard deviation of the noise, relative to the loss
SEED_SPREAD = 0.1  # of the effect of the seed on log loss
POWER_SPREAD = 0.1  # standard deviation of log loss
STUDENT_SPREAD = math.sqrt(3)  # of Student's t with 3 degrees of freedom


def comparison(losses: np.ndarray) -> Comparison:
    """Return a comparison with the given final losses, by candidate and seed."""
    names = [f"candidate {i}" for i in range(len(losses))]
    runs = [
        Run(name, 0.1, seed, 1, 1, (loss,), (Evaluation(1, {"loss": loss}),))
        for name, row in zip(names, losses.tolist(), strict=True)
        for seed, loss in enumerate(row)
    ]
    return Comparison("simulated", dict(zip(names, names, strict=True)), tuple(runs))


def noisy_losses(
    rng: np.random.Generator, noise: str, spread: float, shape: tuple[int, int]
) -> np.ndarray:
    """Return losses of equal candidates, positive ones if the noise is log-normal."""
    if noise == "log-normal":
        losses = np.exp(spread * rng.normal(size=shape))
    elif noise == "normal":
        losses = 1 + spread * rng.normal(size=shape)
    else:
        losses = 1 + spread * rng.standard_t(3, size=shape) / STUDENT_SPREAD
    return losses * np.exp(SEED_SPREAD * rng.normal(size=(1, shape[1])))


def false_verdicts(noise: str, spread: float, count: int, seeds: int) -> float:
    rng = np.random.default_rng([count, seeds, round(1000 * spread)])
    false = 0
    for _ in range(SIMULATIONS):
        result = comparison(noisy_losses(rng, noise, spread, (count, seeds)))
        false += any(row.is_worse for row in result.summaries())
    return false / SIMULATIONS


def power(count: int, seeds: int) -> float:
    """Return how often a candidate with twice the loss of the others is called worse."""
    rng = np.random.default_rng([count, seeds])
    found = 0
    for _ in range(SIMULATIONS):
        losses = noisy_losses(rng, "log-normal", POWER_SPREAD, (count, seeds))
        losses[-1] *= 2
        worse = {row.name for row in comparison(losses).summaries() if row.is_worse}
        found += f"candidate {count - 1}" in worse
    return found / SIMULATIONS


def main() -> None:
    print("| any false difference, % | sd / loss | seeds |", end="")
    print("".join(f" {n} candidates |" for n in CANDIDATES))
    print("|---|---|---|" + "---|" * len(CANDIDATES))
    for noise in ("normal", "log-normal", "Student's t"):
        for spread in SPREADS:
            for seeds in SEEDS:
                shares = [false_verdicts(noise, spread, n, seeds) for n in CANDIDATES]
                cells = "".join(f" {100 * share:.1f} |" for share in shares)
                print(f"| {noise} | {spread:g} | {seeds} |{cells}", flush=True)
    print(f"\n| twice the loss is called worse, %, sd(log loss) {POWER_SPREAD:g} |", end="")
    print(" 2 candidates | 5 candidates | 20 candidates |\n|---|---|---|---|")
    for seeds in SEEDS:
        cells = "".join(f" {100 * power(n, seeds):.1f} |" for n in (2, 5, 20))
        print(f"| {seeds} seeds |{cells}", flush=True)


if __name__ == "__main__":
    main()
