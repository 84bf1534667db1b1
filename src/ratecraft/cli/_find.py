"""find: the lr for a run, by short runs or by a range test."""

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
    from ratecraft.results import LRFinderResult, LRRangeTestResult


def find(
    task: str,
    *,
    total_steps: Annotated[str | None, Parameter(alias="-t")] = None,
    steps: int | None = None,
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

    Example: `ratecraft find my_task.py:task --total-steps "epochs(30)"`

    Args:
        task: digits, stdlib-text, or your own as file.py:function.
        total_steps: Length of the run to come: steps, or a length such as "epochs(30)"; default
            "epochs(10)".
        steps: What the search may cost, default 200; with --classic the length of the test,
            default one epoch, or 100 steps if that is longer.
        optimizer: Optimizer in place of the task's: sgd, momentum, nesterov, adagrad, adadelta,
            rmsprop, adam, adamw, nadam, radam, adamax, lbfgs, muon, schedulefree-adamw, prodigy,
            or a class such as torch.optim.AdamW.
        seed: Seed of initial weights and data order.
        classic: Run the classical range test, and show what known rules make of it.
        low: First lr of the range test, default 1e-8.
        high: Last lr of the range test, default 10.
        linear: Raise the lr of the range test linearly, not geometrically.
        save: Write the result as JSON.
        output: Also write a figure: a .png, .svg or .pdf file.
    """
    from ratecraft.experiments import load_task
    from ratecraft.experiments._task import with_optimizer
    from ratecraft.report import plot_lr_finder, plot_range_test, save_figure
    from ratecraft.results._range_test_rules import RULES

    check_output(save, ".json")
    check_output(output, ".png", ".svg", ".pdf")
    sweep: dict[str, Any] = {"low": low, "high": high, "spacing": "linear" if linear else None}
    sweep = {name: value for name, value in sweep.items() if value is not None}
    if sweep and not classic:
        raise SettingError("--low, --high and --linear belong to the range test; add --classic")
    if classic and total_steps is not None:
        raise SettingError(
            "--total-steps: the range test knows nothing of the run; leave out --classic"
        )
    if steps is not None:
        sweep["steps"] = steps
    loaded = load_task(task)
    if optimizer is not None:
        loaded = with_optimizer(loaded, optimizer)
    result: LRFinderResult | LRRangeTestResult
    if classic:
        result = _sweep(loaded, task, seed=seed, **sweep)
        lr, figure = result.suggestion, partial(plot_range_test, result, tuple(RULES))
        for rule in RULES:
            told, reason = result.suggest(rule)
            cell = "-" if told is None else f"{told:.3g}"
            out.print(f"  {rule:<11}{cell:>9}  {reason}", markup=False)
    else:
        result = find_and_print(
            loaded, task, total_steps=parse_length(total_steps or "epochs(10)"), seed=seed, **sweep
        )
        lr, figure = result.lr, partial(plot_lr_finder, result)
    if save is not None:
        out.print(f"result: {result.save(save)}", markup=False)
    if output is not None:
        out.print(f"figure: {save_figure(figure(), output)}", markup=False)
    if lr is None:
        raise RunFailed(result.reason)


def find_and_print(
    task: Task,
    name: str,
    *,
    total_steps: Duration | int,
    seed: int = 0,
    to: Console = out,
    **settings: Any,
) -> LRFinderResult:
    """Find the lr for a fresh model, with a bar, and print how."""
    from ratecraft._training._snapshot import seed_everything
    from ratecraft.experiments._train import curve_of, start
    from ratecraft.finder import find_lr
    from ratecraft.report import terminal_lr_finder

    length = len(curve_of(constant(1), 1.0, total_steps, task.steps_per_epoch))
    seed_everything(seed)
    model, optimizer = start(task)
    with bar("short runs", "steps at most") as progress:
        result = find_lr(
            model,
            optimizer,
            task.train,
            task.loss,
            total_steps=length,
            progress=progress,
            task=task.name or name,
            **settings,
        )
    result = replace(result, seed=seed)
    to.print(terminal_lr_finder(result), markup=False)
    to.print(f"{result.task}\n{result.optimizer}: {result.cost}", markup=False)
    to.print(result.reason, markup=False)
    if result.lr is not None:
        to.print(
            f"lr: [bold]{result.lr:.3g}[/bold] (as good: {result.low:.3g} to {result.high:.3g})"
        )
    return result


def _sweep(task: Task, name: str, *, seed: int = 0, **settings: Any) -> LRRangeTestResult:
    """Run a range test on a fresh model, with a bar, and print its curve and its suggestion."""
    from ratecraft._training._snapshot import seed_everything
    from ratecraft.experiments._train import start
    from ratecraft.finder import range_test
    from ratecraft.report import terminal_plot

    seed_everything(seed)
    model, optimizer = start(task)
    with bar("range test", "steps") as progress:
        result = range_test(
            model,
            optimizer,
            task.train,
            task.loss,
            progress=progress,
            task=task.name or name,
            **settings,
        )
    result = replace(result, seed=seed)
    lines = {"smoothed loss": (result.lrs, result.smoothed)}
    plot = terminal_plot(lines, log_x=True, x_label="lr", y_label="loss", mark=result.suggestion)
    out.print(plot, markup=False)
    out.print(f"{result.task}\ntested with {result.optimizer}: {result.cost}", markup=False)
    out.print(f"{result.stopped}; {result.reason}", markup=False)
    if result.suggestion is not None:
        out.print(f"suggested lr: [bold]{result.suggestion:.3g}[/bold]")
    return result
