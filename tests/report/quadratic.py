"""Small results with true numbers: gradient descent on quadratic losses, worked out exactly."""

import math
from dataclasses import replace

from ratecraft import Schedule, constant, cooldown, percent, warmup
from ratecraft.results import (
    Comparison,
    Evaluation,
    Forecast,
    ForecastEntry,
    LRFinderResult,
    LRRangeTestResult,
    Run,
    Setting,
    ShortRun,
)

CURVATURE = 2.0  # steps with an lr above 2 / CURVATURE diverge
SCHEDULES = {
    "constant": constant(1),
    "decayed <b>&": warmup(10).then(constant(1)).then(cooldown(percent(20))),
}


def descend(schedule: Schedule, lr: float, seed: int, total: int = 100) -> Run:
    """Train one number w on the loss w^2 from a start that the seed sets."""
    w, losses, evaluations, diverged = 1.0 + 0.1 * seed, [], [], None
    for k, step in enumerate((lr * schedule).resolve(total_steps=total)):
        loss = CURVATURE / 2 * w * w
        losses.append(loss if loss < 1e30 else math.nan)
        if math.isnan(losses[-1]):
            diverged = k
            break
        w -= step * CURVATURE * w
        if (k + 1) % 20 == 0:
            metrics = {"loss": CURVATURE / 2 * w * w + 0.01 * seed, "distance": abs(w)}
            evaluations.append(Evaluation(k + 1, metrics))
    text = repr(schedule)
    return Run(text, lr, seed, total, 20, tuple(losses), tuple(evaluations), diverged, 0.25)


def comparison(
    schedules: dict[str, Schedule] = SCHEDULES, *, lr: float = 0.02, seeds: int = 3
) -> Comparison:
    runs = tuple(descend(s, lr, seed) for s in schedules.values() for seed in range(seeds))
    texts = {name: repr(s) for name, s in schedules.items()}
    return Comparison("a quadratic", texts, runs, {"python": "3.11 <x>", "device": "cpu"})


def several(
    *, lrs: tuple[float, ...] = (0.02,), totals: tuple[int, ...] = (100,), seeds: int = 3
) -> Comparison:
    """Return a comparison over lrs and lengths, named as `compare` names its candidates."""
    texts, settings, runs = {}, {}, []
    for name, schedule in SCHEDULES.items():
        for total in totals:
            for lr in lrs:
                parts = [name, *[f"{total} steps"] * (len(totals) > 1)]
                parts += [f"lr {lr:g}"] * (len(lrs) > 1)
                texts[", ".join(parts)] = repr(schedule)
                settings[", ".join(parts)] = Setting(lr, "", total)
                runs += [descend(schedule, lr, seed, total) for seed in range(seeds)]
    return Comparison("a quadratic", texts, tuple(runs), {"device": "cpu"}, settings)


def followed(result: Comparison) -> Comparison:
    """Return the same with what newer results know of each evaluation."""

    def more(run: Run, one: Evaluation) -> Evaluation:
        train = {"loss": run.losses[one.step - 1], "distance": 0.125}
        lr = run.curve()(one.step - 1)
        return replace(one, train=train, lrs={"body": lr, "head <i>": 2 * lr})

    runs = tuple(
        replace(run, evaluations=tuple(more(run, one) for one in run.evaluations))
        for run in result.runs
    )
    return replace(result, runs=runs)


def lr_finder_result(lr: float | None = 0.1) -> LRFinderResult:
    gains = {0.01: 0.4, 0.1: 0.9, 0.3: 0.8, 1.0: -50.0, 10.0: -math.inf}
    runs = tuple(ShortRun(r, (1.0, 0.5), gain, 0.01) for r, gain in gains.items())
    runs += (ShortRun(0.1, (1.0, 0.6), 0.7, 0.01, lot=1),)
    band = (None, None) if lr is None else (0.05, 0.2)
    reason = "the best is <near> 0.1" if lr else "no answer: none gained & none lost"
    return LRFinderResult(lr, *band, reason, 1.0, runs, 20, 1000, 200, 112, 20, task="a quadratic")


def range_test(suggestion: float | None = 0.1) -> LRRangeTestResult:
    w, lrs, losses, smoothed, average = 1.0, [], [], [], 0.0
    for k in range(120):
        lr = 1e-4 * 10 ** (k / 24)
        lrs.append(lr)
        losses.append(min(w * w, 1e6) + 0.01)
        average = 0.9 * average + 0.1 * losses[-1]
        smoothed.append(average / (1 - 0.9 ** (k + 1)))
        w -= lr * CURVATURE * w
    lengths = tuple(lrs), tuple(losses), tuple(smoothed)
    reason = "the steepest descent" if suggestion else "the loss never fell & rose"
    return LRRangeTestResult(
        *lengths, "the loss was <4 times its lowest", suggestion, reason, "w", "SGD"
    )


def forecast() -> Forecast:
    """Return what was foreseen of three schedules."""
    steps = tuple(range(10, 101, 10))
    candidates = tuple(
        ForecastEntry(name, text, loss, loss - 0.1, loss + 0.1, steps,
                 tuple(loss + 1 - k / 100 for k in steps), notes)
        for name, text, loss, notes in (
            ("wsd <b>", "0.1 * warmup(10).then(constant(1)).then(cooldown(20))", 1.0, ()),
            ("cosine", "0.1 * cosine(1, 0)", 1.001, ("a doubt",)),
            ("flat", "constant(0.1)", 1.5, ()),
        )
    )  # fmt: skip
    return Forecast(
        candidates, (("wsd <b>", "cosine"),), 100, None, 0.1,
        {"run.csv": (steps, tuple(3 - k / 100 for k in steps))}, {"floor": 0.5}, 0.001,
        ("a weakness",),
    )  # fmt: skip
