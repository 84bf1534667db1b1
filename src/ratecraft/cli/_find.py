"""find: find the learning rate for a run, by short runs or by a range test."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from ratecraft.errors import RunFailed, SettingError
from ratecraft.schedule import Duration, constant, parse_length

from ._console import out, progress_bar
from ._files import FIGURE_SUFFIXES, check_output

if TYPE_CHECKING:
    from ratecraft.experiments import Task
    from ratecraft.results import LRFinderResult, LRRangeTestResult


def find(
    task: str,
    *,
    total_steps: Annotated[str | None, Parameter(alias="-n")] = None,
    budget_steps: int | None = None,
    optimizer: str | None = None,
    seed: int = 0,
    range_test: bool = False,
    steps: int | None = None,
    low: float | None = None,
    high: float | None = None,
    linear: bool = False,
    save: Path | None = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Find the learning rate for a training run, by short runs.

    With `--range-test`, run a learning rate range test instead.

    Example: `ratecraft find my_task.py:task --total-steps "epochs(30)"`

    Args:
        task: What to train: digits, stdlib-text, or a function of yours as file.py:function.
        total_steps: Length of the run that the learning rate is for: a number of steps, or a
            duration such as "epochs(30)". Default: "epochs(10)".
        budget_steps: Most steps that the short runs may take together. Default: 200.
        optimizer: Optimizer to use instead of the task's: sgd, momentum, nesterov, adagrad,
            adadelta, rmsprop, adam, adamw, nadam, radam, adamax, lbfgs, muon, schedulefree-adamw,
            prodigy, or a class such as torch.optim.AdamW.
        seed: Seed of the initial weights and the data order.
        range_test: Raise the learning rate with every step, and print what each known rule
            suggests.
        steps: Length of the range test in steps. Default: one epoch, but at least 100.
        low: First learning rate of the range test. Default: 1e-8.
        high: Last learning rate of the range test. Default: 10.
        linear: Raise the learning rate of the range test linearly instead of geometrically.
        save: Write the result as JSON.
        output: Also write a figure (.png, .svg or .pdf).
    """
    from ratecraft.experiments import load_task
    from ratecraft.experiments._task import with_optimizer
    from ratecraft.report import plot_lr_finder, plot_range_test, save_figure
    from ratecraft.results import RANGE_TEST_RULES

    check_output(save, ".json")
    check_output(output, *FIGURE_SUFFIXES)
    spacing = "linear" if linear else None
    sweep_options = _given(steps=steps, low=low, high=high, spacing=spacing)
    search_options = _given(budget_steps=budget_steps)
    if sweep_options and not range_test:
        raise SettingError(
            "--steps, --low, --high and --linear need --range-test; without it write --budget-steps"
        )
    if range_test and (search_options or total_steps is not None):
        raise SettingError("--total-steps and --budget-steps cannot be used with --range-test")
    loaded = load_task(task)
    if optimizer is not None:
        loaded = with_optimizer(loaded, optimizer)
    result: LRFinderResult | LRRangeTestResult
    if range_test:
        result = _run_range_test(loaded, task, seed=seed, **sweep_options)
        lr, plot = result.suggestion, partial(plot_range_test, result, tuple(RANGE_TEST_RULES))
    else:
        length = parse_length(total_steps or "epochs(10)")
        result = find_and_print(loaded, task, total_steps=length, seed=seed, **search_options)
        lr, plot = result.lr, partial(plot_lr_finder, result)
    if save is not None:
        out.print(f"result: {result.save(save)}", markup=False)
    if output is not None:
        out.print(f"figure: {save_figure(plot(), output)}", markup=False)
    if lr is None:
        raise RunFailed(result.reason)


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def find_and_print(
    task: Task,
    name: str,
    *,
    total_steps: Duration | int,
    seed: int = 0,
    console: Console = out,
    **options: Any,
) -> LRFinderResult:
    """Find the learning rate for a fresh model, with a progress bar, and print the result.

    Args:
        task: the task.
        name: its name, if the task has none of its own.
        total_steps: length of the run that the learning rate is for.
        seed: seed of the initial weights and the data order.
        console: where to print.
        options: other options of `find_lr`.
    """
    from ratecraft._training._snapshot import seed_everything
    from ratecraft.experiments._train import create_model_and_optimizer, curve_of
    from ratecraft.finder import find_lr
    from ratecraft.report import terminal_lr_finder

    length = len(curve_of(constant(1), 1.0, total_steps, task.steps_per_epoch))
    seed_everything(seed)
    model, optimizer = create_model_and_optimizer(task)
    with progress_bar("short runs", "steps at most") as progress:
        result = find_lr(
            model,
            optimizer,
            task.train,
            task.loss,
            total_steps=length,
            progress=progress,
            task=task.name or name,
            **options,
        )
    result = replace(result, seed=seed)
    console.print(terminal_lr_finder(result), markup=False)
    console.print(f"{result.task}\n{result.optimizer}: {result.cost}", markup=False)
    console.print(result.reason, markup=False)
    if result.lr is not None:
        interval = f"{result.lr_low:.3g} to {result.lr_high:.3g}"
        console.print(f"lr: [bold]{result.lr:.3g}[/bold] (as good: {interval})")
    return result


def _run_range_test(task: Task, name: str, *, seed: int = 0, **options: Any) -> LRRangeTestResult:
    """Run a range test on a fresh model; print its curve and what each rule suggests."""
    from ratecraft._training._snapshot import seed_everything
    from ratecraft.experiments._train import create_model_and_optimizer
    from ratecraft.finder import range_test
    from ratecraft.report import terminal_plot
    from ratecraft.results import RANGE_TEST_RULES

    seed_everything(seed)
    model, optimizer = create_model_and_optimizer(task)
    with progress_bar("range test", "steps") as progress:
        result = range_test(
            model,
            optimizer,
            task.train,
            task.loss,
            progress=progress,
            task=task.name or name,
            **options,
        )
    result = replace(result, seed=seed)
    lines = {"smoothed loss": (result.lrs, result.smoothed)}
    plot = terminal_plot(lines, log_x=True, x_label="lr", y_label="loss", mark=result.suggestion)
    out.print(plot, markup=False)
    out.print(f"{result.task}\ntested with {result.optimizer}: {result.cost}", markup=False)
    out.print(f"{result.stop_reason}; {result.reason}", markup=False)
    if result.suggestion is not None:
        out.print(f"suggested lr: [bold]{result.suggestion:.3g}[/bold]")
    for rule in RANGE_TEST_RULES:
        lr, reason = result.suggest(rule)
        cell = "-" if lr is None else f"{lr:.3g}"
        out.print(f"  {rule:<11}{cell:>9}  {reason}", markup=False)
    return result
