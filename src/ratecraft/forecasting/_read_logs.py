"""Logs from files: which columns are the steps, the losses and the learning rates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ratecraft.errors import LogError
from ratecraft.results import Comparison
from ratecraft.schedule import Schedule

from ._log import MIN_LOSSES, Log, check_losses, log_of_run
from ._log_columns import (
    EVALUATION_LOSS_COLUMNS,
    LOSS_COLUMNS,
    LR_COLUMNS,
    MONITOR_PREFIX,
    TRAINING_LOSS_COLUMNS,
    Column,
    column_key,
    first_title,
    listed,
)
from ._log_files import LogFile, read_file


def read_logs(
    path: str | os.PathLike[str],
    *,
    schedule: Schedule | None = None,
    total_steps: int | None = None,
    loss: str | None = None,
    steps_per_epoch: float | None = None,
) -> list[Log]:
    """Read the logs in a file.

    Formats: CSV, JSON and JSON lines with one row per measurement, ``trainer_state.json`` of the
    Hugging Face Trainer, exports of Weights & Biases, TensorBoard event files or their folder,
    lines of text with a step, such as ``step 250: train loss 3.12, val loss 3.20``, and saved
    `Comparison`s. Columns are recognized by common names; `Log.columns` has those that were read.
    A validation loss is preferred to a training loss.

    Args:
        path: path of the file.
        schedule: schedule of the run as learning rates, if the log has none or they start late.
        total_steps: planned number of steps of the run; the last step of the log if ``None``.
        loss: name of the loss column, if it has no common name or is not the preferred one;
            "train_loss" for the training losses of a saved comparison.
        steps_per_epoch: needed for a schedule with lengths in epochs.

    Raises:
        LogError: the file is not readable, or its columns are not usable.

    >>> import json, tempfile
    >>> rows = [{"step": k, "loss": 2 + 9 / k, "lr": 0.1} for k in range(50, 1001, 50)]
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     json.dump(rows, file)
    ...     file.flush()
    ...     (log,) = read_logs(file.name)
    >>> log.peak_lr, len(log.every_lr), log.columns
    (0.1, 1000, {'step': 'step', 'loss': 'loss', 'lr': 'lr'})
    """
    source = Path(path)
    known = {*LOSS_COLUMNS, *LR_COLUMNS, *([column_key(loss)] if loss else ())}
    file = read_file(
        source, lambda title: column_key(title) in known or title.startswith(MONITOR_PREFIX)
    )
    if isinstance(file, Comparison):
        if schedule is None and loss in (None, "train_loss"):
            return _logs_of_comparison(file, source, loss)
        raise LogError(
            f"{source}: a saved comparison contains its schedules and losses; leave out schedule= "
            'and loss=, or pass loss="train_loss" for its training losses'
        )
    title = _loss_title(file, source, loss)
    steps: Any  # whole numbers, as floats; Log checks them
    steps, losses = _distinct_rows(file.columns[title])
    columns = {"step": file.columns[title].step_title, "loss": title}
    lr_title = first_title(file.columns, LR_COLUMNS) or next(
        (title for title in file.columns if title.startswith(MONITOR_PREFIX)), None
    )
    lr_steps: Any = None
    lrs: Any = None
    if lr_title is not None:
        columns["lr"] = lr_title
        lr_steps, lrs = _distinct_rows(file.columns[lr_title])
    curve = None
    if schedule is not None:
        import numpy as np

        check_losses(source.name, np.asarray(steps), np.asarray(losses))
        length = int(steps[-1]) if total_steps is None else total_steps
        curve = schedule.resolve(total_steps=length, steps_per_epoch=steps_per_epoch)
    return [Log(steps, losses, lrs, curve, source.name, lr_steps, columns)]


def read_columns(path: str | os.PathLike[str]) -> dict[str, tuple[list[float], list[float]]]:
    """Return the steps and values of all columns with numbers in a log file, by lower-case title.

    The formats are those of `read_logs`, without saved comparisons. Rows are in the order of the
    file, and steps may occur more than once.

    Raises:
        LogError: the file is not readable, or has no steps.
    """
    source = Path(path)
    file = read_file(source, None)
    if isinstance(file, Comparison):
        raise LogError(f"{source}: a saved comparison; expected the log of one run")
    return {title: (column.steps, column.values) for title, column in file.columns.items()}


def _logs_of_comparison(result: Comparison, source: Path, loss: str | None) -> list[Log]:
    logs = [
        log_of_run(run, f"{name}, seed {run.seed}", loss=loss)
        for name in result.schedules
        for run in result.runs_for(name)
        if run.diverged is None
    ]
    if not logs:
        raise LogError(f"{source}: every run of this comparison diverged")
    return logs


def _loss_title(file: LogFile, source: Path, loss: str | None) -> str:
    """Return the title of the losses: those of an evaluation if there are any."""
    if loss is not None:
        names: tuple[str, ...] = (column_key(loss),)
        title = loss.lower() if loss.lower() in file.columns else first_title(file.columns, names)
    else:
        names = LOSS_COLUMNS
        columns = {x: y for x, y in file.columns.items() if len(y.steps) >= MIN_LOSSES}
        title = first_title(columns, EVALUATION_LOSS_COLUMNS)
        if title is None:
            title = first_title(file.columns, EVALUATION_LOSS_COLUMNS)
            training = first_title(columns, TRAINING_LOSS_COLUMNS)
            if title is not None and training is not None:
                raise LogError(
                    f"{source}: {title} has {len(file.columns[title].steps)} losses, and a fit "
                    f"needs at least {MIN_LOSSES}, better 50; evaluate more often, or pass "
                    f'loss="{training}" (--loss "{training}") for a forecast of that loss'
                )
            title = title or training or first_title(file.columns, TRAINING_LOSS_COLUMNS)
    if title is None:
        raise LogError(
            f"{source}: no column {' or '.join(names[:4])} with numbers; the columns are "
            f"{listed(file.titles)}; pass the name of one as loss= or --loss"
        )
    return title


def _distinct_rows(column: Column) -> tuple[list[float], list[float]]:
    """Return the rows of a column in the order of their steps, if they can be put in order.

    The order of the rows says nothing if each step occurs once. If one step has two values, the
    file holds two runs or a resumed one: its rows stay as they are, for `Log` to refuse.
    """
    steps, values = column.steps, column.values
    if len(set(steps)) < len(steps):
        # Duplicates, such as a second evaluation after the last step, count once.
        pairs = list(dict.fromkeys(zip(steps, values, strict=True)))
        steps, values = [step for step, _ in pairs], [value for _, value in pairs]
    if len(set(steps)) == len(steps) and sorted(steps) != steps:
        rows = sorted(zip(steps, values, strict=True))
        steps, values = [step for step, _ in rows], [value for _, value in rows]
    return steps, values
