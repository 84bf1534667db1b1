"""Logs from files: CSV, JSON, TensorBoard events, saved comparisons."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from ratecraft._files import parse_json, shortened
from ratecraft.errors import LogError
from ratecraft.results import Comparison, load
from ratecraft.schedule import Schedule

from ._log import MIN_LOSSES, Log, check_losses, log_of_run

STEP_COLUMNS: Final = (
    "step", "global_step", "trainer/global_step", "train/global_step", "_step", "update",
    "iteration", "iter",
)  # fmt: skip
LOSS_COLUMNS: Final = (
    "eval_loss", "val_loss", "eval/loss", "val/loss", "valid_loss", "validation_loss", "loss",
    "train_loss", "train/loss", "training_loss", "train_loss_step", "lm loss",
)  # fmt: skip
LR_COLUMNS: Final = (
    "lr", "learning_rate", "train/learning_rate", "train/lr", "rate", "optimizer/lr",
    "learning rate",
)  # fmt: skip
MONITOR_PREFIX: Final = "lr-"  # of the columns of Lightning's LearningRateMonitor
ANY_STEP_COLUMN: Final = " or ".join(STEP_COLUMNS[:3])
MAX_LISTED_TITLES: Final = 30
Columns: TypeAlias = dict[str, tuple[Sequence[float], Sequence[float]]]
"""Steps and values of each column, by its lower-case title."""


class Table(NamedTuple):
    """The columns of a file.

    Attributes:
        titles: title of each column.
        cells: function that returns the cells of the column with an index, one for each row.
    """

    titles: Sequence[str]
    cells: Callable[[int], Sequence[Any]]


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
    and saved `Comparison`s. Columns are recognized by common names; a validation loss is
    preferred to a training loss.

    Args:
        path: path of the file.
        schedule: schedule of the run as learning rates, if the log has none or they start late.
        total_steps: planned number of steps of the run; the last step of the log if ``None``.
        loss: name of the loss column, if it has no common name.
        steps_per_epoch: needed for a schedule with lengths in epochs.

    Raises:
        LogError: the file is not readable, or its columns are not usable.

    >>> import json, tempfile
    >>> rows = [{"step": k, "loss": 2 + 9 / k, "lr": 0.1} for k in range(50, 1001, 50)]
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     json.dump(rows, file)
    ...     file.flush()
    ...     (log,) = read_logs(file.name)
    >>> log.peak_lr, len(log.every_lr)
    (0.1, 1000)
    """
    source = Path(path)
    if not os.path.exists(source):
        raise LogError(f"{source}: no such file")
    if source.is_dir() or "tfevents" in source.name:
        columns = _tensorboard(source)
        titles: Sequence[str] = list(columns)
    else:
        table = _read_table(source)
        if isinstance(table, Comparison):
            if schedule is None and loss is None:
                return _logs_of_comparison(table, source)
            raise LogError(
                f"{source}: a saved comparison contains its schedules and losses; leave out "
                "schedule= and loss="
            )
        columns, titles = _columns(table, source, loss), table.titles
    steps, losses = _losses(columns, titles, source, loss)
    monitor_columns = [name for name in columns if name.startswith(MONITOR_PREFIX)]
    lr_column = _first(columns, [*LR_COLUMNS, *monitor_columns])
    lrs = {} if lr_column is None else dict(zip(*columns[lr_column], strict=True))
    curve = None
    if schedule is not None:
        import numpy as np

        check_losses(source.name, np.asarray(steps), np.asarray(losses))
        length = int(steps[-1]) if total_steps is None else total_steps
        curve = schedule.resolve(total_steps=length, steps_per_epoch=steps_per_epoch)
    # Steps are whole numbers, as floats; Log checks them.
    lr_steps: Any = sorted(lrs) or None
    logged_lrs = [lrs[step] for step in lr_steps] if lr_steps else None
    return [Log(steps, losses, logged_lrs, curve, source.name, lr_steps)]


def _logs_of_comparison(result: Comparison, source: Path) -> list[Log]:
    logs = [
        log_of_run(run, f"{name}, seed {run.seed}")
        for name in result.schedules
        for run in result.runs_for(name)
        if run.diverged is None
    ]
    if not logs:
        raise LogError(f"{source}: every run of this comparison diverged")
    return logs


def _losses(
    columns: Columns, titles: Sequence[str], source: Path, loss: str | None
) -> tuple[Any, Any]:
    names = LOSS_COLUMNS if loss is None else (loss.lower(),)
    # Many training losses identify the law better than a handful of validation losses.
    long_enough = [name for name in names if len(columns.get(name, ((),))[0]) >= MIN_LOSSES]
    column = _first(columns, long_enough or names)
    if column is None:
        raise LogError(
            f"{source}: no column {' or '.join(names[:4])} with numbers; the columns are "
            f"{_listed(titles)}; pass the name of one as loss="
        )
    steps, losses = columns[column]
    if len(set(steps)) < len(steps):
        # Duplicates, such as a second evaluation after the last step, count once.
        steps, losses = zip(*dict.fromkeys(zip(steps, losses, strict=True)), strict=True)
    return steps, losses


def _first(columns: Collection[str], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _listed(titles: Sequence[str]) -> str:
    omitted = len(titles) - MAX_LISTED_TITLES
    more = f" and {omitted} more" if omitted > 0 else ""
    return (", ".join(titles[:MAX_LISTED_TITLES]) or "none") + more


def _read_table(source: Path) -> Table | Comparison:
    suffix = source.suffix.lower()
    try:
        # Spreadsheet programs write a byte order mark.
        text = source.read_text(encoding="utf-8-sig")
        if suffix in (".csv", ".tsv", ".txt"):
            return _csv_table(text, source)
        if suffix in (".jsonl", ".ndjson", ".log"):
            lines = text.split("\n")  # str.splitlines also splits inside of strings
            return _json_table([parse_json(line) for line in lines if line.strip()], source)
        data = parse_json(text)
    except LogError:  # is a ValueError
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise LogError(
            f"{source}: {error}; expected CSV, JSON, JSON lines or TensorBoard events"
        ) from None
    if not isinstance(data, dict):
        return _json_table(data, source)
    if "ratecraft" in data:
        result = load(source)
        if not isinstance(result, Comparison):
            raise LogError(f"{source}: a saved {type(result).__name__}; expected a Comparison")
        return result
    if "log_history" in data:
        return _json_table(data["log_history"], source)
    return _table_of_columns(data, source)


def _csv_table(text: str, source: Path) -> Table:
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    lines = io.StringIO(text, newline="")
    records = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    # Tuples, since a million lists would cost the garbage collector a second.
    titles, *rows = [tuple(row) for row in records if row] or [()]
    width = len(titles)
    for i, row in enumerate(rows):
        if len(row) != width:
            if any(cell.strip() for cell in row[width:]):
                raise LogError(
                    f"{source}: row {i + 1} has {len(row)} cells, the first line {width} titles; "
                    "if commas mark decimals, write points"
                )
            rows[i] = row + ("",) * (width - len(row))
    return Table(titles, lambda i: [row[i] for row in rows])


def _json_table(rows: Any, source: Path) -> Table:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LogError(f"{source}: expected a table: a list of rows that map columns to numbers")
    titles = list(dict.fromkeys(title for row in rows for title in row))
    return Table(titles, lambda i: [row.get(titles[i]) for row in rows])


def _table_of_columns(data: Mapping[str, Any], source: Path) -> Table:
    columns = list(data.values())
    if not all(isinstance(column, list) for column in columns):
        raise LogError(f"{source}: expected a table: a list of rows that map columns to numbers")
    if len(set(map(len, columns))) > 1:
        lengths = ", ".join(f"{title} has {len(column)} values" for title, column in data.items())
        raise LogError(f"{source}: columns of one length expected; {lengths[:200]}")
    return Table(list(data), columns.__getitem__)


def _columns(table: Table, source: Path, loss: str | None) -> Columns:
    """Return the losses and learning rates of a table, with their steps."""
    indices = _column_indices(table.titles, source, loss)
    cells = {name: _numbers(table.cells(i)) for name, i in indices.items()}
    step_columns = [cells.pop(name) for name in STEP_COLUMNS if name in cells]
    steps = step_columns[0] if step_columns else [None] * max(map(len, cells.values()), default=0)
    for column in step_columns[1:]:  # the first one that a row has counts
        if None in steps:
            steps = [x if step is None else step for step, x in zip(steps, column, strict=True)]
    columns: Columns = {}
    for name, values in cells.items():
        pairs: tuple[Sequence[Any], Sequence[Any]] = steps, values
        if set(map(type, values)) | set(map(type, steps)) != {float}:
            pairs = _checked_pairs(steps, values, name, table, source)
        if pairs[0]:
            columns[name] = _without_nan(*pairs)
    if not step_columns:
        raise LogError(
            f"{source}: no column {ANY_STEP_COLUMN}; the columns are {_listed(table.titles)}"
        )
    return columns


def _column_indices(titles: Sequence[str], source: Path, loss: str | None) -> dict[str, int]:
    """Return the indices of the columns of steps, losses and learning rates, by lower-case name."""
    known = {*STEP_COLUMNS, *LOSS_COLUMNS, *LR_COLUMNS, (loss or "").lower()} - {""}
    indices: dict[str, int] = {}
    for i, title in enumerate(titles):
        # Weights & Biases writes "run name - train/loss", and columns of its minimum and maximum.
        name = title.rpartition(" - ")[2].strip().lower()
        is_first_monitor = name.startswith(MONITOR_PREFIX) and not any(
            other.startswith(MONITOR_PREFIX) for other in indices
        )
        if title.endswith(("__MIN", "__MAX")) or not (name in known or is_first_monitor):
            continue
        if name in indices:
            raise LogError(
                f"{source}: {titles[indices[name]]!r} and {title!r} are both {name}, so the file "
                "seems to hold several runs; write one file for each run"
            )
        indices[name] = i
    return indices


def _numbers(cells: Sequence[Any]) -> Sequence[Any]:
    """Return the cells of a column: numbers as floats, and None in place of empty ones."""
    types = set(map(type, cells))
    if types <= {int, float} or types == {str}:
        with suppress(ValueError, OverflowError):
            return list(map(float, cells))
    return list(map(_number, cells))


def _number(cell: Any) -> Any:
    if isinstance(cell, str) and not cell.strip():
        return None
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return cell
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return cell


def _checked_pairs(
    steps: Sequence[Any], values: Sequence[Any], name: str, table: Table, source: Path
) -> tuple[list[float], list[float]]:
    """Return the rows of a column that are not empty; the others of them must have a number."""
    rows = [i for i, value in enumerate(values) if value is not None]
    for i in rows:
        if steps[i] is None:
            raise LogError(
                f"{source}: row {i + 1} has no column {ANY_STEP_COLUMN}; the columns are "
                f"{_listed(table.titles)}"
            )
        for column, cell in (("step", steps[i]), (name, values[i])):
            if type(cell) is not float:
                raise LogError(
                    f"{source}: {column} of row {i + 1} is {shortened(cell)}; expected a number"
                )
    return [steps[i] for i in rows], [values[i] for i in rows]


def _without_nan(
    steps: Sequence[float], values: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """Return the rows of a column, without those with NaN if these are most of them."""
    if not any(map(math.isnan, values)):
        return steps, values
    # pandas writes empty cells as NaN.
    rows = [i for i, value in enumerate(values) if not math.isnan(value)]
    if 0 < len(rows) < len(values) / 2:
        return [steps[i] for i in rows], [values[i] for i in rows]
    return steps, values


def _tensorboard(source: Path) -> Columns:
    try:
        from tensorboard.backend.event_processing import event_accumulator
    except ImportError:
        raise LogError(
            f"{source}: event files are read with TensorBoard: pip install tensorboard"
        ) from None
    events: Any = event_accumulator.EventAccumulator(str(source), size_guidance={"scalars": 0})
    try:
        events.Reload()
        scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    except Exception as error:  # TensorBoard raises errors of many types
        raise LogError(f"{source}: damaged TensorBoard events: {str(error)[:200]}") from None
    columns: Columns = {
        tag.strip().lower(): ([float(e.step) for e in rows], [float(e.value) for e in rows])
        for tag, rows in scalars.items()
    }
    if not columns:
        runs = [folder for folder in source.glob("*/") if any(folder.glob("*tfevents*"))]
        hint = f"; its runs are {', '.join(str(run) for run in runs)}" if runs else ""
        raise LogError(f"{source}: no scalars in it{hint}")
    return columns
