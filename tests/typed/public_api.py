"""The public API as users write it, for mypy --strict and pyright; it is not run."""

from pathlib import Path

import torch
from torch import nn

import ratecraft
from ratecraft import Curve, Duration, Finding, Schedule, cosine, epochs, parse, percent, warmup
from ratecraft.diagnostics import Probe, doctor
from ratecraft.experiments import (
    Plateau,
    Progress,
    Task,
    TrainerTask,
    compare,
    load_task,
    merge,
    train,
)
from ratecraft.finder import find_lr, preserve_state, range_test
from ratecraft.forecasting import bound, cooldown_gains, extend, forecast, read_logs, transfer
from ratecraft.report import plot_comparison, save_figure, terminal_curve, write_report
from ratecraft.results import (
    Comparison,
    Forecast,
    LRFinderResult,
    LRRangeTestResult,
    Run,
    Summary,
    load,
)
from ratecraft.torch import PlateauLR, ScheduleLR, param_groups
from ratecraft.torch.drop_in import CosineAnnealingLR


def define_schedules() -> list[float]:
    schedule: Schedule = 3e-4 * warmup(percent(5)).then(cosine(1, 0.1))
    curve: Curve = schedule.resolve(total_steps=1000, steps_per_epoch=100)
    length: Duration = epochs(3) + 10
    findings: list[Finding] = list(ratecraft.check(schedule, length, steps_per_epoch=100))
    same: bool = parse(repr(schedule)) == schedule and not findings
    values: list[float] = curve.values().tolist()
    return [curve(0), float(len(curve)), float(same), *values]


def drive_optimizer(model: nn.Module, batches: list[torch.Tensor]) -> None:
    groups = param_groups(model, lr=1e-3, rules={"head": 1e-2}, no_decay=True, weight_decay=0.1)
    optimizer = torch.optim.AdamW(groups)
    scheduler = ScheduleLR(optimizer, factor=warmup(10), total_steps=100)
    plateau = PlateauLR(scheduler, factor=0.5, patience=2)
    CosineAnnealingLR(torch.optim.SGD(model.parameters(), lr=0.1), T_max=10)
    with Probe(optimizer, model) as probe:
        for batch in batches:
            loss = model(batch).mean()
            loss.backward()
            optimizer.step()
            plateau.step(float(loss))
    print(len(probe.rows()), doctor(model, optimizer, scheduler, total_steps=100))


def find_learning_rate(model: nn.Module, batches: list[torch.Tensor]) -> float | None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = model(batch).mean()
        return value

    result: LRFinderResult = find_lr(model, optimizer, batches, loss, total_steps=1000)
    swept: LRRangeTestResult = range_test(model, optimizer, batches, loss)
    with preserve_state(model, optimizer, batches):
        pass
    result.apply(optimizer)
    return result.lr or swept.suggestion


def forecast_losses(log: Path) -> Forecast:
    line = cosine(1, 0).resolve(total_steps=400)
    print(bound(line).best, transfer(1e-3, line, warmup(40).resolve(total_steps=400)))
    longer = extend(ratecraft.wsd(0), 4000, 8000)
    print(longer.factor, cooldown_gains(ratecraft.wsd(0), 400, (0.1,)))
    result: Forecast = forecast(read_logs(log), {"cosine": cosine(1, 0)}, 1000)
    return result


def compare_in_trainers() -> list[Run]:
    def lightning_task() -> TrainerTask:
        return Task.from_lightning(object, lambda: ([], []), steps_per_epoch=10)

    run: Run = train(Task.from_trainer(object, name="a trainer"), cosine(1, 0), lr=0.01)
    return [run, *compare(lightning_task, cosine(1, 0), lrs=0.01, workers=0).runs]


def compare_schedules() -> str:
    def callback(progress: Progress) -> None:
        print(progress.event, progress.done, progress.planned, progress.left)

    task: Task = load_task("digits")
    run: Run = train(task, cosine(1, 0), lr=0.01, total_steps=epochs(1))
    result: Comparison = compare(
        "digits",
        {"cosine": cosine(1, 0), "plateau": Plateau(patience=2)},
        lrs=[0.001, 0.01],
        optimizers=["adamw", "momentum"],
        seeds=2,
        total_steps=[epochs(1), 90],
        store="runs.db",
        branches=True,
        progress=callback,
    )
    rows: tuple[Summary, ...] = result.summaries()
    merge("all.db", "runs.db")
    return f"{run.final()} {rows[0].gap} {result.verdict()}"


def draw(path: Path) -> Path:
    result = load(path)
    if isinstance(result, Comparison):
        save_figure(plot_comparison(result), "figure.svg")
        return write_report("report.html", comparison=result, title="Schedules")
    print(terminal_curve({"cosine": cosine(1, 0).resolve(total_steps=100)}))
    return path
