"""train: train a task once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ratecraft.errors import RunFailed
from ratecraft.schedule import parse_length

from ._console import out, progress_bar
from ._files import check_result_files, write_comparison
from ._live import format_duration
from ._tables import epoch_header, epoch_row

if TYPE_CHECKING:
    from ratecraft.results import Evaluation


def train(
    task: str,
    schedule: str,
    *,
    lr: float = 1.0,
    total_steps: Annotated[str, Parameter(alias="-n")] = "epochs(10)",
    optimizer: str | None = None,
    seed: int = 0,
    save: Path | None = None,
    output: Annotated[tuple[Path, ...], Parameter(alias="-o")] = (),
) -> None:
    """Train once with a schedule, and print losses, metrics and learning rates after each epoch.

    Example: `ratecraft train digits "warmup(45).then(cosine(1, 0))" --lr 0.01`

    Args:
        task: What to train: digits, stdlib-text, or a function of yours as file.py:function.
        schedule: A schedule in the notation, or "plateau(constant(1), factor=0.5, patience=2)".
        lr: Learning rate that the schedule multiplies.
        total_steps: Length of the run: a number of steps, or a duration such as "epochs(10)".
        optimizer: Optimizer to use instead of the task's; `ratecraft find --help` lists the names.
        seed: Seed of the initial weights and the data order.
        save: Write the result as JSON, which `ratecraft forecast` reads.
        output: Also write a report (.html) or a figure (.png, .svg or .pdf); can be repeated.
    """
    from ratecraft.experiments import load_task
    from ratecraft.experiments import train as train_task
    from ratecraft.experiments._compare import environment
    from ratecraft.experiments._plateau import parse_candidate
    from ratecraft.experiments._task import with_optimizer
    from ratecraft.results import Comparison

    check_result_files(save, output)
    candidate, length = parse_candidate(schedule), parse_length(total_steps)
    loaded = load_task(task)
    if optimizer is not None:
        loaded = with_optimizer(loaded, optimizer)
    with progress_bar("training", "steps") as progress:
        evaluations: list[Evaluation] = []

        def print_evaluation(evaluation: Evaluation) -> None:
            if not evaluations:
                out.print(epoch_header(evaluation), markup=False)
            evaluations.append(evaluation)
            out.print(epoch_row(evaluation, loaded.steps_per_epoch), markup=False)

        run = train_task(
            loaded,
            candidate,
            lr=lr,
            seed=seed,
            total_steps=length,
            progress=progress,
            watch=print_evaluation,
        )
    run = replace(run, optimizer=optimizer or "")
    result = Comparison(loaded.name or task, {schedule: run.schedule}, (run,), environment())
    if run.diverged is None:
        out.print(f"{len(run.losses):,} steps in {format_duration(run.seconds)}", markup=False)
    write_comparison(result, save, output, title=f"{schedule} on {task}")
    if run.diverged is not None:
        raise RunFailed(f"the loss became nan or inf at step {run.diverged}; use a lower --lr")
