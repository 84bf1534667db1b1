"""Accuracy of forecasts for a small GRU on Python source text.

    python benchmarks/forecast_text.py train   # train all runs (minutes), write forecast_text.json
    python benchmarks/forecast_text.py         # fit, and print predicted and measured losses

The validation loss is measured every 20 steps. The law is fitted to two runs of one seed and
predicts the final losses of all other schedules. The schedule that it recommends is trained as
well, and compared with the best one of the list.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from ratecraft import (
    Schedule,
    constant,
    cooldown,
    cosine,
    linear,
    parse,
    percent,
    staircase,
    warmup,
)
from ratecraft.experiments import Task, compare, load_task
from ratecraft.forecasting import Log, forecast, recommend

TOTAL_STEPS, LR, STEPS_PER_EVALUATION, SEEDS = 1000, 0.003, 20, 3
RESULTS = Path(__file__).with_suffix(".json")
START = warmup(50)


def wsd(share: float, shape: str = "linear") -> Schedule:
    return START.then(constant(1)).then(cooldown(percent(share), shape=shape))


FITTED: Mapping[str, Schedule] = {"constant": START.then(constant(1)), "wsd 10 %": wsd(10)}
UNSEEN: Mapping[str, Schedule] = {
    "wsd 20 %": wsd(20),
    "wsd 20 %, 1-sqrt": wsd(20, "1-sqrt"),
    "wsd 40 %": wsd(40),
    "linear": START.then(linear(1, 0)),
    "cosine": START.then(cosine(1, 0)),
    "cosine to a tenth": START.then(cosine(1, 0.1)),
    "steps at 50 and 75 %": START.then(staircase([1, 0.1, 0.01], at=[percent(50), percent(75)])),
}


class ShortEpochs:
    """Batches in epochs of STEPS_PER_EVALUATION; a pass over the data takes several epochs.

    `compare` measures the validation loss after each epoch, and a pass over the data is too long.
    """

    def __init__(self, batches: Any) -> None:
        self._batches, self._pass = batches, iter(())

    def __len__(self) -> int:
        return STEPS_PER_EVALUATION

    def __iter__(self) -> Iterator[Any]:
        for _ in range(STEPS_PER_EVALUATION):
            batch = next(self._pass, None)
            if batch is None:
                self._pass = iter(self._batches)
                batch = next(self._pass)
            yield batch


def task_with_short_epochs() -> Task:
    task = load_task("stdlib-text")
    return replace(task, train=ShortEpochs(task.train))


def trained(schedules: Mapping[str, Schedule]) -> dict[str, list[list[tuple[int, float]]]]:
    """Return the validation losses of each schedule, by seed."""
    result = compare(
        f"{__file__}:task_with_short_epochs",
        schedules,
        lrs=LR,
        seeds=SEEDS,
        total_steps=TOTAL_STEPS,
        progress=lambda done, planned, run: print(f"{done}/{planned} {run.final():.4f}"),
    )
    return {
        name: [[(e.step, round(e.metrics["loss"], 6)) for e in run.evaluations] for run in
               result.runs_for(name)]
        for name in schedules
    }  # fmt: skip


def logs(curves: Mapping[str, Any], seed: int = 0) -> list[Log]:
    """Return the logs of the two fitted runs."""
    return [
        Log(
            *zip(*curves[name][seed], strict=True),
            schedule=(LR * schedule).resolve(total_steps=TOTAL_STEPS),
            name=name,
        )
        for name, schedule in FITTED.items()
    ]


def final_losses(runs: Any) -> list[float]:
    return [run[-1][1] for run in runs]


def train() -> None:
    curves: dict[str, Any] = trained({**FITTED, **UNSEEN})
    RESULTS.write_text(json.dumps(curves) + "\n", encoding="utf-8")
    best = recommend(logs(curves), TOTAL_STEPS).entries[0]
    curves |= trained({best.name: parse(best.name)})
    RESULTS.write_text(json.dumps(curves) + "\n", encoding="utf-8")


def table() -> None:
    curves = json.loads(RESULTS.read_text(encoding="utf-8"))
    result = forecast(logs(curves), UNSEEN, TOTAL_STEPS)
    print(f"fitted to {' and '.join(FITTED)}, seed 0; {SEEDS} seeds per schedule")
    print(f"{'schedule':<22} {'predicted':<11} {'interval':<19} {'trained':<9} inside")
    predicted, measured = [], []
    for entry in result.entries:
        mean = statistics.fmean(final_losses(curves[entry.name]))
        predicted.append(entry.loss)
        measured.append(mean)
        interval = f"{entry.low:.4f} to {entry.high:.4f}"
        inside = "yes" if entry.low <= mean <= entry.high else "no"
        print(f"{entry.name:<22} {entry.loss:<11.4f} {interval:<19} {mean:<9.4f} {inside}")
    errors = [abs(a - b) for a, b in zip(predicted, measured, strict=True)]
    ranks = spearmanr(predicted, measured).statistic
    print(f"mean error {statistics.fmean(errors):.4f}, rank correlation {ranks:.2f}")
    means = {name: statistics.fmean(final_losses(curves[name])) for name in (*FITTED, *UNSEEN)}
    best = min(means, key=means.__getitem__)
    (chosen,) = set(curves) - set(means)
    for name in (chosen, best):
        losses = final_losses(curves[name])
        print(f"{'recommended' if name == chosen else 'best of the list'}: {name}: "
              f"{statistics.fmean(losses):.4f} ± {statistics.stdev(losses):.4f}")  # fmt: skip


if __name__ == "__main__":
    train() if sys.argv[1:] == ["train"] else table()
