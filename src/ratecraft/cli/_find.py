"""find: the rate for a run, by short runs or by a range test."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from ratecraft.errors import RunFailed, SettingError
from ratecraft.schedule import Duration, constant, parse_length

from ._console import bar, check_output, out

if TYPE_CHECKING:
    from ratecraft.experiments import Task
    from ratecraft.results import FoundRate, RangeTest


def find(
    task: str,
    *,
    total: Annotated[str | None, Parameter(alias="-t")] = None,
    updates: int | None = None,
    optimizer: str | None = None,
    seed: int = 0,
    classic: bool = False,
    low: float | None = None,
    high: float | None = None,
    linear: bool = False,
    save: Path | None = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Find the learning rate for a run, by short runs, or with --classic by a range test.

    Example: `ratecraft find my_task.py:task --total "epochs(30)"`

    Args:
        task: digits, stdlib-text, or your own as file.py:function.
        total: Length of the run to come: updates, or a length such as "epochs(30)"; default
            "epochs(10)".
        updates: What the search may cost, default 200; with --classic the length of the test,
            default one epoch, or 100 updates if that is longer.
        optimizer: Optimizer in place of the task's: sgd, momentum, nesterov, adagrad, adadelta,
            rmsprop, adam, adamw, nadam, radam, adamax, lbfgs, muon, schedulefree-adamw, prodigy,
            or a class such as torch.optim.AdamW.
        seed: Seed of initial weights and data order.
        classic: Run the classical range test, and show what known rules make of it.
        low: First rate of the range test, default 1e-8.
        high: Last rate of the range test, default 10.
        linear: Raise the rate of the range test linearly, not geometrically.
        save: Write the record as JSON.
        output: Also write a figure: a .png, .svg or .pdf file.
    """
    from ratecraft.experiments import load_task
    from ratecraft.experiments._task import with_optimizer
    from ratecraft.report import plot_found_rate, plot_range_test, save_figure
    from ratecraft.results._range_test_rules import RULES

    check_output(save, ".json")
    check_output(output, ".png", ".svg", ".pdf")
    sweep: dict[str, Any] = {"low": low, "high": high, "spacing": "linear" if linear else None}
    sweep = {name: value for name, value in sweep.items() if value is not None}
    if sweep and not classic:
        raise SettingError("--low, --high and --linear belong to the range test; add --classic")
    if classic and total is not None:
        raise SettingError("--total: the range test knows nothing of the run; leave out --classic")
    if updates is not None:
        sweep["updates"] = updates
    loaded = load_task(task)
    if optimizer is not None:
        loaded = with_optimizer(loaded, optimizer)
    record: FoundRate | RangeTest
    if classic:
        record = _sweep(loaded, task, seed=seed, **sweep)
        rate, figure = record.suggestion, partial(plot_range_test, record, tuple(RULES))
        for rule in RULES:
            told, reason = record.suggest(rule)
            cell = "-" if told is None else f"{told:.3g}"
            out.print(f"  {rule:<11}{cell:>9}  {reason}", markup=False)
    else:
        record = find_rate(
            loaded, task, total=parse_length(total or "epochs(10)"), seed=seed, **sweep
        )
        rate, figure = record.rate, partial(plot_found_rate, record)
    if save is not None:
        out.print(f"record: {record.save(save)}", markup=False)
    if output is not None:
        out.print(f"figure: {save_figure(figure(), output)}", markup=False)
    if rate is None:
        raise RunFailed(record.reason)


def find_rate(
    task: Task,
    name: str,
    *,
    total: Duration | int,
    seed: int = 0,
    to: Console = out,
    **settings: Any,
) -> FoundRate:
    """Find the rate for a fresh model, with a bar, and print how."""
    from ratecraft._training._snapshot import seed_everything
    from ratecraft.experiments._train import curve_of, start
    from ratecraft.finder import find_lr
    from ratecraft.report import terminal_found_rate

    length = len(curve_of(constant(1), 1.0, total, task.epoch))
    seed_everything(seed)
    model, optimizer = start(task)
    with bar("short runs", "updates at most") as progress:
        record = find_lr(
            model,
            optimizer,
            task.train,
            task.loss,
            total=length,
            progress=progress,
            task=task.name or name,
            **settings,
        )
    record = replace(record, seed=seed)
    to.print(terminal_found_rate(record), markup=False)
    to.print(f"{record.task}\n{record.optimizer}: {record.cost}", markup=False)
    to.print(record.reason, markup=False)
    if record.rate is not None:
        to.print(
            f"rate: [bold]{record.rate:.3g}[/bold] (as good: {record.low:.3g} to {record.high:.3g})"
        )
    return record


def _sweep(task: Task, name: str, *, seed: int = 0, **settings: Any) -> RangeTest:
    """Run a range test on a fresh model, with a bar, and print its curve and its suggestion."""
    from ratecraft._training._snapshot import seed_everything
    from ratecraft.experiments._train import start
    from ratecraft.finder import range_test
    from ratecraft.report import terminal_plot

    seed_everything(seed)
    model, optimizer = start(task)
    with bar("range test", "updates") as progress:
        record = range_test(
            model,
            optimizer,
            task.train,
            task.loss,
            progress=progress,
            task=task.name or name,
            **settings,
        )
    record = replace(record, seed=seed)
    lines = {"smoothed loss": (record.rates, record.smoothed)}
    plot = terminal_plot(lines, log_x=True, x_label="rate", y_label="loss", mark=record.suggestion)
    out.print(plot, markup=False)
    out.print(f"{record.task}\ntested with {record.optimizer}: {record.cost}", markup=False)
    out.print(f"{record.stopped}; {record.reason}", markup=False)
    if record.suggestion is not None:
        out.print(f"suggested rate: [bold]{record.suggestion:.3g}[/bold]")
    return record
