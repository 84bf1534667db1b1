"""train: train a task once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ratecraft._progress import format_duration
from ratecraft.errors import RunFailed
from ratecraft.schedule import parse_length

from ._console import out
from ._options import Reports, Save, Seed, check_outputs, load_task, write_outputs

if TYPE_CHECKING:
    from ratecraft.results import Evaluation


def train(
    task: str,
    schedule: str,
    *,
    lr: float = 1.0,
    total_steps: Annotated[str, Parameter(alias="-n")] = "epochs(10)",
    optimizer: str | None = None,
    seed: Seed = 0,
    save: Annotated[
        Save, Parameter(help="Write the result as JSON, which `ratecraft forecast` reads.")
    ] = None,
    output: Reports = (),
) -> None:
    """Train once with a schedule, and print losses, metrics and learning rates after each epoch.

    Example: `ratecraft train digits "warmup(45).then(cosine(1, 0))" --lr 0.01`

    Args:
        task: What to train: digits, stdlib-text, or a function of yours as file.py:function.
        schedule: A schedule in the notation, or "plateau(constant(1), factor=0.5, patience=2)".
        lr: Learning rate that the schedule multiplies.
        total_steps: Length of the run: a number of steps, or a duration such as "epochs(10)".
        optimizer: Optimizer to use instead of the task's; `ratecraft find --help` lists the names.
    """
    from ratecraft.experiments import train as train_task
    from ratecraft.experiments._environment import environment
    from ratecraft.experiments._plateau import parse_candidate
    from ratecraft.results import Comparison

    check_outputs(save, output)
    candidate, length = parse_candidate(schedule), parse_length(total_steps)
    loaded = load_task(task, optimizer)

    titles: list[str] = []

    def print_evaluation(evaluation: Evaluation) -> None:
        cells = _epoch_cells(evaluation, loaded.steps_per_epoch)
        if titles != list(cells):
            titles[:] = cells
            out.print(_align(titles))
        out.print(_align(cells.values()))

    run = train_task(
        loaded, candidate, lr=lr, seed=seed, total_steps=length, watch=print_evaluation
    )
    run = replace(run, optimizer=optimizer or "")
    name = str(candidate)
    result = Comparison(loaded.name, {name: run.schedule}, (run,), environment())
    if run.diverged is None:
        out.print(f"{run.trained_steps:,} steps in {format_duration(run.seconds)}")
    write_outputs(result, save, output, comparison=result, title=f"{name} on {task}")
    if run.diverged is not None:
        raise RunFailed(f"the loss became nan or inf at step {run.diverged}; use a lower --lr")


def _epoch_cells(evaluation: Evaluation, steps_per_epoch: int) -> dict[str, str]:
    """Return the cells of a row of the table by the titles of their columns."""
    cells = {"epoch": f"{evaluation.step / steps_per_epoch:.3g}", "step": str(evaluation.step)}
    for name, validation in evaluation.metrics.items():
        if name in evaluation.train:  # a trainer measures on the validation data only
            cells[f"train {name}"] = f"{evaluation.train[name]:.4g}"
        cells[f"val {name}"] = f"{validation:.4g}"
    for group, lr in evaluation.lrs.items():
        cells["lr" if len(evaluation.lrs) == 1 else f"lr {group}"] = f"{lr:.4g}"
    return cells


def _align(cells: Iterable[str]) -> str:
    return "  ".join(f"{cell:>{10 if i > 1 else 6}}" for i, cell in enumerate(cells))
