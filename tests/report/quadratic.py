"""Small records with true numbers: gradient descent on quadratic losses, worked out exactly."""

import math
from dataclasses import replace

from ratecraft import Schedule, constant, cooldown, percent, warmup
from ratecraft.results import (
    Comparison,
    Evaluation,
    Forecast,
    Foreseen,
    FoundRate,
    RangeTest,
    Run,
    Setting,
    ShortRun,
)

CURVATURE = 2.0  # steps with a rate above 2 / CURVATURE diverge
SCHEDULES = {
    "constant": constant(1),
    "decayed <b>&": warmup(10).then(constant(1)).then(cooldown(percent(20))),
}


def descend(schedule: Schedule, rate: float, seed: int, total: int = 100) -> Run:
    """Train one number w on the loss w^2 from a start that the seed sets."""
    w, losses, evaluations, diverged = 1.0 + 0.1 * seed, [], [], None
    for k, step in enumerate((rate * schedule).resolve(total)):
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
    return Run(text, rate, seed, total, 20, tuple(losses), tuple(evaluations), diverged, 0.25)


def comparison(
    schedules: dict[str, Schedule] = SCHEDULES, *, rate: float = 0.02, seeds: int = 3
) -> Comparison:
    runs = tuple(descend(s, rate, seed) for s in schedules.values() for seed in range(seeds))
    texts = {name: repr(s) for name, s in schedules.items()}
    return Comparison("a quadratic", texts, runs, {"python": "3.11 <x>", "device": "cpu"})


def several(
    *, rates: tuple[float, ...] = (0.02,), totals: tuple[int, ...] = (100,), seeds: int = 3
) -> Comparison:
    """Return a comparison over rates and lengths, named as `compare` names its candidates."""
    texts, settings, runs = {}, {}, []
    for name, schedule in SCHEDULES.items():
        for total in totals:
            for rate in rates:
                parts = [name, *[f"{total} updates"] * (len(totals) > 1)]
                parts += [f"rate {rate:g}"] * (len(rates) > 1)
                texts[", ".join(parts)] = repr(schedule)
                settings[", ".join(parts)] = Setting(rate, "", total)
                runs += [descend(schedule, rate, seed, total) for seed in range(seeds)]
    return Comparison("a quadratic", texts, tuple(runs), {"device": "cpu"}, settings)


def followed(record: Comparison) -> Comparison:
    """Return the same with what newer records know of each evaluation."""

    def more(run: Run, one: Evaluation) -> Evaluation:
        train = {"loss": run.losses[one.update - 1], "distance": 0.125}
        rate = run.curve()(one.update - 1)
        return replace(one, train=train, rates={"body": rate, "head <i>": 2 * rate})

    runs = tuple(
        replace(run, evaluations=tuple(more(run, one) for one in run.evaluations))
        for run in record.runs
    )
    return replace(record, runs=runs)


def found_rate(rate: float | None = 0.1) -> FoundRate:
    gains = {0.01: 0.4, 0.1: 0.9, 0.3: 0.8, 1.0: -50.0, 10.0: -math.inf}
    runs = tuple(ShortRun(r, (1.0, 0.5), gain, 0.01) for r, gain in gains.items())
    runs += (ShortRun(0.1, (1.0, 0.6), 0.7, 0.01, lot=1),)
    band = (None, None) if rate is None else (0.05, 0.2)
    reason = "the best is <near> 0.1" if rate else "no answer: none gained & none lost"
    return FoundRate(rate, *band, reason, 1.0, runs, 20, 1000, 200, 112, 20, task="a quadratic")


def range_test(suggestion: float | None = 0.1) -> RangeTest:
    w, rates, losses, smoothed, average = 1.0, [], [], [], 0.0
    for k in range(120):
        rate = 1e-4 * 10 ** (k / 24)
        rates.append(rate)
        losses.append(min(w * w, 1e6) + 0.01)
        average = 0.9 * average + 0.1 * losses[-1]
        smoothed.append(average / (1 - 0.9 ** (k + 1)))
        w -= rate * CURVATURE * w
    lengths = tuple(rates), tuple(losses), tuple(smoothed)
    reason = "the steepest descent" if suggestion else "the loss never fell & rose"
    return RangeTest(*lengths, "the loss was <4 times its lowest", suggestion, reason, "w", "SGD")


def forecast() -> Forecast:
    """Return what was foreseen of three schedules."""
    updates = tuple(range(10, 101, 10))
    candidates = tuple(
        Foreseen(name, text, loss, loss - 0.1, loss + 0.1, updates,
                 tuple(loss + 1 - k / 100 for k in updates), notes)
        for name, text, loss, notes in (
            ("wsd <b>", "0.1 * warmup(10).then(constant(1)).then(cooldown(20))", 1.0, ()),
            ("cosine", "0.1 * cosine(1, 0)", 1.001, ("a doubt",)),
            ("flat", "constant(0.1)", 1.5, ()),
        )
    )  # fmt: skip
    return Forecast(
        candidates, (("wsd <b>", "cosine"),), 100, None, 0.1,
        {"run.csv": (updates, tuple(3 - k / 100 for k in updates))}, {"floor": 0.5}, 0.001,
        ("a weakness",),
    )  # fmt: skip
