"""find: find the learning rate for a run, by short runs or by a range test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ratecraft.errors import RunFailed, SettingError
from ratecraft.schedule import Duration, constant, parse_length

from ._console import err, out, print_json, print_plot
from ._options import (
    Figures,
    Save,
    Seed,
    TotalSteps,
    check_outputs,
    given,
    load_task,
    write_outputs,
)

if TYPE_CHECKING:
    from ratecraft.experiments._task import AnyTask
    from ratecraft.results import LRFinderResult, LRRangeTestResult


def find(
    task: str,
    *,
    total_steps: TotalSteps = None,
    budget_steps: int | None = None,
    optimizer: str | None = None,
    seed: Seed = 0,
    range_test: bool = False,
    steps: int | None = None,
    low: float | None = None,
    high: float | None = None,
    linear: bool = False,
    save: Save = None,
    output: Figures = (),
    json: bool = False,
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
        range_test: Raise the learning rate with every step, and suggest one from the losses.
        steps: Length of the range test in steps. Default: one epoch, but at least 100.
        low: First learning rate of the range test. Default: 1e-8.
        high: Last learning rate of the range test. Default: 10.
        linear: Raise the learning rate of the range test linearly instead of geometrically.
        json: Print the result as one line of JSON, and the text to standard error.
    """
    check_outputs(save, output, reports=False)
    sweep = given(steps=steps, low=low, high=high, spacing="linear" if linear else None)
    if sweep and not range_test:
        raise SettingError(
            "--steps, --low, --high and --linear need --range-test; without it write --budget-steps"
        )
    if range_test and (budget_steps is not None or total_steps is not None):
        raise SettingError("--total-steps and --budget-steps cannot be used with --range-test")
    console = err if json else out
    result: LRFinderResult | LRRangeTestResult
    # What the task prints is no JSON.
    with redirect_stdout(sys.stderr if json else sys.stdout):
        loaded = load_task(task, optimizer)
        if range_test:
            result = _range_test_and_print(loaded, seed, console, **sweep)
            lr = result.suggestion
        else:
            settings = given(budget_steps=budget_steps)
            length = parse_length(total_steps or "epochs(10)")
            result = find_and_print(loaded, length, seed=seed, console=console, **settings)
            lr = result.lr
    if json:
        print_json(asdict(result))
    write_outputs(result, save, output, console=console)
    if lr is None:
        raise RunFailed(result.reason)


def find_and_print(
    task: AnyTask, length: Duration | int, *, seed: int = 0, console: Console = out, **options: Any
) -> LRFinderResult:
    """Find the learning rate for a fresh model, and print it; ``options`` are those of find_lr."""
    from ratecraft.experiments._plateau import curve_of
    from ratecraft.finder import find_lr
    from ratecraft.report import terminal_chart
    from ratecraft.results._lr_search import runs_table

    total_steps = len(curve_of(constant(1), 1.0, length, task.steps_per_epoch))
    result: LRFinderResult = _run(find_lr, task, seed, total_steps=total_steps, **options)
    print_plot(terminal_chart, result.chart(), console=console)
    console.print(f"{result.task}\n{result.optimizer}: {result.cost}\n{runs_table(result)}")
    console.print(result.reason)
    if result.lr is not None:
        interval = f"{result.lr_low:.3g} to {result.lr_high:.3g}"
        console.print(f"lr: [bold]{result.lr:.3g}[/bold] (almost as good: {interval})", markup=True)
    return result


def _range_test_and_print(
    task: AnyTask, seed: int, console: Console, **options: Any
) -> LRRangeTestResult:
    """Run a range test on a fresh model; print its curve and the suggested learning rate."""
    from ratecraft.finder import range_test
    from ratecraft.report import terminal_chart

    result: LRRangeTestResult = _run(range_test, task, seed, **options)
    print_plot(terminal_chart, result.chart(), console=console)
    console.print(f"{result.task}\ntested with {result.optimizer}: {result.cost}")
    console.print(f"{result.stop_reason}; {result.reason}")
    if result.suggestion is not None:
        console.print(f"suggested lr: [bold]{result.suggestion:.3g}[/bold]", markup=True)
    return result


def _run(function: Callable[..., Any], task: AnyTask, seed: int, **options: Any) -> Any:
    """Call find_lr or range_test with a fresh model, or in a fresh trainer."""
    from ratecraft import integrations
    from ratecraft._training._snapshot import seed_everything
    from ratecraft._training._steps import move_batch
    from ratecraft.experiments import TrainerTask
    from ratecraft.experiments._train import create_model_and_optimizer

    seed_everything(seed)
    options["task"] = task.name
    if isinstance(task, TrainerTask):
        search = getattr(integrations, f"{function.__name__}_for")
        return replace(task._visit(partial(search, **options)), seed=seed)
    model, optimizer = create_model_and_optimizer(task)

    def loss(model: Any, batch: Any) -> Any:
        return task.loss(model, move_batch(batch, task.device))

    scaler = task.scaler and task.scaler()
    options |= {"accumulate": task.accumulate, "clip": task.clip, "scaler": scaler}
    return replace(function(model, optimizer, task.train, loss, **options), seed=seed)
