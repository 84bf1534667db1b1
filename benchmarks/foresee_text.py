"""StepOptions well one law, fitted to two runs, foresees others: a small GRU on Python's own source text.

    python benchmarks/foresee_text.py train   # trains all (minutes), writes foresee_text.json
    python benchmarks/foresee_text.py         # fits, foresees, and prints what happened beside it

Validation loss is measured every 20 steps. Two runs of one seed are fitted; all others are
foreseen. Then the schedule that the law recommends is trained beside the ones made by hand.
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

TOTAL, LR, EVERY, SEEDS = 1000, 0.003, 20, 3
KEPT = Path(__file__).with_suffix(".json")
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


class Stretches:
    """Batches that go on where they stopped; an epoch is so many, a pass over the data is more.

    The loop measures the validation loss after each epoch, which is too seldom here.
    """

    def __init__(self, batches: Any) -> None:
        self._batches, self._pass = batches, iter(())

    def __len__(self) -> int:
        return EVERY

    def __iter__(self) -> Iterator[Any]:
        for _ in range(EVERY):
            batch = next(self._pass, None)
            if batch is None:
                self._pass = iter(self._batches)
                batch = next(self._pass)
            yield batch


def often() -> Task:
    task = load_task("stdlib-text")
    return replace(task, train=Stretches(task.train))


def trained(schedules: Mapping[str, Schedule]) -> dict[str, list[list[tuple[int, float]]]]:
    """Return the validation losses of each schedule, by seed."""
    found = compare(
        f"{__file__}:often", schedules, lrs=LR, seeds=SEEDS, total_steps=TOTAL,
        progress=lambda done, planned, run: print(f"{done}/{planned} {run.final():.4f}"),
    )  # fmt: skip
    return {
        name: [[(e.step, round(e.metrics["loss"], 6)) for e in run.evaluations] for run in
               found.of(name)]
        for name in schedules
    }  # fmt: skip


def logs(kept: Mapping[str, Any], seed: int = 0) -> list[Log]:
    """Return the logs of the two runs to fit."""
    return [
        Log(
            *zip(*kept[name][seed], strict=True),
            schedule=(LR * plan).resolve(total_steps=TOTAL),
            name=name,
        )
        for name, plan in FITTED.items()
    ]


def ends(runs: Any) -> list[float]:
    return [run[-1][1] for run in runs]


def train() -> None:
    kept: dict[str, Any] = trained({**FITTED, **UNSEEN})
    KEPT.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    best = recommend(logs(kept), TOTAL).candidates[0]
    kept |= trained({best.name: parse(best.name)})
    KEPT.write_text(json.dumps(kept) + "\n", encoding="utf-8")


def table() -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    result = forecast(logs(kept), UNSEEN, TOTAL)
    print(f"fitted to {' and '.join(FITTED)}, seed 0; {SEEDS} seeds trained of each")
    print(f"{'schedule':<22} foreseen    band                trained   inside")
    told, seen = [], []
    for one in result.candidates:
        mean = statistics.fmean(ends(kept[one.name]))
        told.append(one.loss)
        seen.append(mean)
        print(f"{one.name:<22} {one.loss:.4f}   {one.low:.4f} to {one.high:.4f}   {mean:.4f}   "
              f"{'yes' if one.low <= mean <= one.high else 'no'}")  # fmt: skip
    errors = [abs(a - b) for a, b in zip(told, seen, strict=True)]
    ranks = spearmanr(told, seen).statistic
    print(f"mean error {statistics.fmean(errors):.4f}, rank correlation {ranks:.2f}")
    made = {name: statistics.fmean(ends(kept[name])) for name in (*FITTED, *UNSEEN)}
    best = min(made, key=made.__getitem__)
    (chosen,) = set(kept) - set(made)
    for name in (chosen, best):
        runs = ends(kept[name])
        print(f"{'recommended' if name == chosen else 'best by hand'}: {name}: "
              f"{statistics.fmean(runs):.4f} ± {statistics.stdev(runs):.4f}")  # fmt: skip


if __name__ == "__main__":
    train() if sys.argv[1:] == ["train"] else table()
