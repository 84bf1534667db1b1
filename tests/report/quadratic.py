"""Small exact results for report tests: gradient descent on quadratic losses."""

import math
from dataclasses import replace

from ratecraft import (
    Schedule,
    constant,
    cooldown,
    cosine,
    exponential,
    linear,
    percent,
    polynomial,
    warmup,
    wsd,
)
from ratecraft.results import (
    Comparison,
    Evaluation,
    Forecast,
    ForecastEntry,
    LRFinderResult,
    LRRangeTestResult,
    Run,
    RunConfig,
    ShortRun,
)

CURVATURE = 2.0  # gradient descent diverges above a learning rate of 2 / CURVATURE
SCHEDULES = {
    "constant": constant(1),
    "decayed <b>&": warmup(10).then(constant(1)).then(cooldown(percent(20))),
}
EIGHT_SCHEDULES = {
    "constant": constant(1),
    "half": 0.5 * constant(1),
    "cosine": cosine(1, 0),
    "linear": linear(1, 0),
    "warmup + cosine": warmup(10).then(cosine(1, 0)),
    "wsd": wsd(10),
    "polynomial": polynomial(1, 0, power=2),
    "exponential": exponential(1, 0.01),
}
MOMENTUM = {"sgd": 0.0, "slow": 0.3, "medium": 0.6, "fast": 0.9}


def train(
    schedule: Schedule, lr: float, seed: int, total_steps: int = 100, optimizer: str = ""
) -> Run:
    """Minimize w^2 from a starting point that depends on the seed."""
    velocity, w, losses, evaluations, diverged = 0.0, 1.0 + 0.1 * seed, [], [], None
    for k, step_lr in enumerate((lr * schedule).resolve(total_steps=total_steps)):
        loss = CURVATURE / 2 * w * w
        losses.append(loss if loss < 1e30 else math.nan)
        if math.isnan(losses[-1]):
            diverged = k
            break
        velocity = MOMENTUM.get(optimizer, 0.0) * velocity + CURVATURE * w
        w -= step_lr * velocity
        if (k + 1) % 20 == 0:
            metrics = {"loss": CURVATURE / 2 * w * w + 0.01 * seed, "distance": abs(w)}
            evaluations.append(Evaluation(k + 1, metrics))
    text = repr(schedule)
    measured = tuple(losses), tuple(evaluations), diverged, 0.25
    return Run(text, lr, seed, total_steps, 20, *measured, optimizer)


def make_comparison(
    schedules: dict[str, Schedule] = SCHEDULES, *, lr: float = 0.02, seeds: int = 3
) -> Comparison:
    runs = tuple(train(s, lr, seed) for s in schedules.values() for seed in range(seeds))
    texts = {name: repr(s) for name, s in schedules.items()}
    return Comparison("a quadratic", texts, runs, {"python": "3.11 <x>", "device": "cpu"})


def make_grid_comparison(
    *, lrs: tuple[float, ...] = (0.02,), lengths: tuple[int, ...] = (100,), seeds: int = 3
) -> Comparison:
    """Return a comparison over learning rates and lengths, with the names that `compare` gives."""
    texts, configs, runs = {}, {}, []
    for name, schedule in SCHEDULES.items():
        for total_steps in lengths:
            for lr in lrs:
                parts = [name, *[f"{total_steps} steps"] * (len(lengths) > 1)]
                parts += [f"lr {lr:g}"] * (len(lrs) > 1)
                texts[", ".join(parts)] = repr(schedule)
                configs[", ".join(parts)] = RunConfig(lr, "", total_steps)
                runs += [train(schedule, lr, seed, total_steps) for seed in range(seeds)]
    return Comparison("a quadratic", texts, tuple(runs), {"device": "cpu"}, configs)


def make_large_comparison() -> Comparison:
    """Return a comparison of 128 candidates: schedules, optimizers and learning rates."""
    texts, configs, runs = {}, {}, []
    for name, schedule in EIGHT_SCHEDULES.items():
        for optimizer in MOMENTUM:
            for lr in (0.001, 0.01, 0.1, 1.5):
                candidate = f"{name}, {optimizer}, lr {lr:g}"
                texts[candidate] = repr(schedule)
                configs[candidate] = RunConfig(lr, optimizer, 100)
                runs += [train(schedule, lr, seed, 100, optimizer) for seed in range(3)]
    return Comparison("a quadratic", texts, tuple(runs), {"device": "cpu"}, configs)


def add_training_metrics(result: Comparison) -> Comparison:
    """Return the comparison with training metrics and learning rates in every evaluation."""

    def extend(run: Run, evaluation: Evaluation) -> Evaluation:
        metrics = {"loss": run.losses[evaluation.step - 1], "distance": 0.125}
        lr = run.curve()(evaluation.step - 1)
        return replace(evaluation, train=metrics, lrs={"body": lr, "head <i>": 2 * lr})

    runs = tuple(
        replace(run, evaluations=tuple(extend(run, evaluation) for evaluation in run.evaluations))
        for run in result.runs
    )
    return replace(result, runs=runs)


def make_lr_finder_result(lr: float | None = 0.1) -> LRFinderResult:
    gains = {0.01: 0.4, 0.1: 0.9, 0.3: 0.8, 1.0: -50.0, 10.0: -math.inf}
    runs = tuple(ShortRun(r, (1.0, 0.5), gain, 0.01) for r, gain in gains.items())
    runs += (ShortRun(0.1, (1.0, 0.6), 0.7, 0.01, batch_set=1),)
    interval = (None, None) if lr is None else (0.05, 0.2)
    reason = "the best is <near> 0.1" if lr else "no learning rate found: none gained & none lost"
    return LRFinderResult(
        lr, *interval, reason, 1.0, runs, 20, 1000, 200, 112, 20, task="a quadratic"
    )


def make_range_test_result(suggestion: float | None = 0.1) -> LRRangeTestResult:
    w, lrs, losses, smoothed, average = 1.0, [], [], [], 0.0
    for k in range(120):
        lr = 1e-4 * 10 ** (k / 24)
        lrs.append(lr)
        losses.append(min(w * w, 1e6) + 0.01)
        average = 0.9 * average + 0.1 * losses[-1]
        smoothed.append(average / (1 - 0.9 ** (k + 1)))
        w -= lr * CURVATURE * w
    curve = tuple(lrs), tuple(losses), tuple(smoothed)
    reason = "the steepest descent" if suggestion else "no suggestion: the loss never fell & rose"
    return LRRangeTestResult(
        *curve, "the loss was <4 times its lowest", suggestion, reason, "w", "SGD"
    )


def make_forecast() -> Forecast:
    """Return a forecast of three schedules, the first two tied."""
    steps = tuple(range(10, 101, 10))
    entries = tuple(
        ForecastEntry(
            name,
            text,
            loss,
            loss - 0.1,
            loss + 0.1,
            steps,
            tuple(loss + 1 - k / 100 for k in steps),
            notes,
        )
        for name, text, loss, notes in (
            ("wsd <b>", "0.1 * warmup(10).then(constant(1)).then(cooldown(20))", 1.0, ()),
            ("cosine", "0.1 * cosine(1, 0)", 1.001, ("a caveat",)),
            ("flat", "constant(0.1)", 1.5, ()),
        )
    )
    logs = {"run.csv": (steps, tuple(3 - k / 100 for k in steps))}
    return Forecast(
        entries,
        tied=(("wsd <b>", "cosine"),),
        total_steps=100,
        steps_per_epoch=None,
        peak_lr=0.1,
        logs=logs,
        law={"floor": 0.5},
        error=0.001,
        notes=("a general caveat",),
    )
