"""Log: the losses and learning rates of a training run; logs from files and results."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ratecraft.errors import LogError
from ratecraft.results import Comparison, Run, load
from ratecraft.schedule import Curve, Schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_LOG_STEPS: Final = 10**8  # logs with more steps count tokens or samples
MIN_LOSSES: Final = 8  # of a fit of five parameters
LOGGED_LR_REL_TOL: Final = 1e-3  # rounding error of logged lrs, relative to the peak
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
ANY_STEP_COLUMN: Final = " or ".join(STEP_COLUMNS[:3])
Columns: TypeAlias = dict[str, list[tuple[float, float]]]
"""Pairs of a step and a value, by the lower-case title of the column."""


@dataclass(frozen=True, eq=False)
class Log:
    """Losses of a training run, and its learning rate at every step up to the last loss.

    Attributes:
        steps: number of steps done before each loss was measured, increasing.
        losses: losses.
        lrs: logged lrs, interpolated linearly; the first one also holds before it.
        schedule: resolved schedule of the whole run as lrs, instead of ``lrs``, or equal to them.
        name: name of the run.
        lr_steps: steps at which ``lrs`` were logged; ``steps`` if ``None``.
        every_lr: computed learning rate of every step up to the last loss, an array.

    Raises:
        LogError: the losses, steps or learning rates are not usable.

    >>> log = Log(range(100, 1100, 100), [5 - 0.1 * k for k in range(10)], [0.1] * 10)
    >>> log.peak_lr, len(log.every_lr)
    (0.1, 1000)
    """

    steps: Sequence[int]
    losses: Sequence[float]
    lrs: Sequence[float] | None = None
    schedule: Curve | None = None
    name: str = "run"
    lr_steps: Sequence[int] | None = None
    every_lr: NDArray[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        import numpy as np

        steps, losses = np.asarray(self.steps, float), np.asarray(self.losses, float)
        lr_steps = steps if self.lr_steps is None else np.asarray(self.lr_steps, float)
        if len(steps) != len(losses) or (self.lrs is not None and len(self.lrs) != len(lr_steps)):
            raise LogError(f"{self.name}: steps, losses and lrs must have the same length")
        _check_losses(self.name, steps, losses)
        end = int(steps[-1])
        if self.schedule is not None:
            every_lr = self._scheduled_lrs(self.schedule, lr_steps, end)
        elif self.lrs is not None:
            every_lr = np.interp(np.arange(end), lr_steps - 1, np.asarray(self.lrs, float))
        else:
            raise LogError(f"{self.name}: no lrs were logged; pass the schedule of the run")
        if not np.isfinite(every_lr).all() or (every_lr < 0).any() or not (every_lr > 0).any():
            raise LogError(
                f"{self.name}: lrs must be finite numbers of at least 0, and not all of them 0"
            )
        object.__setattr__(self, "every_lr", every_lr)

    @property
    def peak_lr(self) -> float:
        """Highest learning rate."""
        return float(self.every_lr.max())

    @property
    def warmup_steps(self) -> int:
        """Number of steps before the learning rate reaches its peak, within rounding error."""
        rel_tol = LOGGED_LR_REL_TOL if self.schedule is None else 1e-9
        return int((self.every_lr >= (1 - rel_tol) * self.peak_lr).argmax())

    @property
    def first_lr_step(self) -> int:
        """Step from which on the learning rates are known."""
        if self.schedule is not None:
            return 0
        return int((self.steps if self.lr_steps is None else self.lr_steps)[0])

    def _scheduled_lrs(self, curve: Curve, steps: NDArray[Any], end: int) -> NDArray[Any]:
        """Return the learning rates of the schedule, checked against the logged ones."""
        import numpy as np

        if not isinstance(curve, Curve):
            raise TypeError(
                f"{self.name}: schedule= must be a curve; pass schedule.resolve(total_steps=...)"
            )
        if curve.length < end:
            raise LogError(
                f"{self.name}: the schedule ends after {curve.length:.0f} steps, the log after "
                f"{end}; expected the schedule over the whole run"
            )
        every_lr: NDArray[Any] = curve.values(np.arange(end, dtype=float))
        if self.lrs is None:
            return every_lr
        logged = np.asarray(self.lrs, float)
        # Trainers log the lr of the last step, or that of the next one.
        scheduled = [curve.values(np.maximum(steps + k, 0.0)) for k in (-1, 0, 1)]
        gaps = np.abs(np.array(scheduled) - logged).min(axis=0)
        row = first_true(gaps > LOGGED_LR_REL_TOL * every_lr.max())
        if row is not None:
            raise LogError(
                f"{self.name}: at step {steps[row]:.0f} the log has an lr of {logged[row]:.4g}, "
                f"the schedule {scheduled[1][row]:.4g}; expected the schedule of this run, as "
                "learning rates, over the planned length (total_steps=, or --log-total-steps)"
            )
        return every_lr


def _check_losses(name: str, steps: NDArray[Any], losses: NDArray[Any]) -> None:
    import numpy as np

    if len(losses) < MIN_LOSSES:
        raise LogError(
            f"{name}: {len(losses)} losses; a fit needs at least {MIN_LOSSES}, better 50, "
            "spread over the run"
        )
    for column, values in (("step", steps), ("loss", losses)):
        if (row := first_true(~np.isfinite(values))) is not None:
            raise LogError(
                f"{name}: the {column} of row {row + 1} is {values[row]}; leave out rows "
                "without a finite number, and runs that diverged"
            )
    if (steps < 0).any() or (steps % 1 != 0).any():
        raise LogError(f"{name}: steps must be whole numbers of at least 0")
    if (row := first_true(np.diff(steps) <= 0)) is not None:
        before, step = steps[row : row + 2]
        problem = "occurs twice" if step == before else f"comes after {before:.0f}"
        raise LogError(
            f"{name}: step {step:.0f} of row {row + 2} {problem}; expected one row for "
            "each step, in order (does the file hold two runs, or a resumed one?)"
        )
    if steps[-1] > MAX_LOG_STEPS:
        raise LogError(
            f"{name}: {steps[-1]:.3g} steps; are these tokens or samples? Expected optimizer steps"
        )
    if (row := first_true(losses <= 0)) is not None:
        raise LogError(
            f"{name}: the loss of row {row + 1} is {losses[row]:g}; expected losses above 0"
        )


def first_true(mask: NDArray[Any]) -> int | None:
    return int(mask.argmax()) if mask.any() else None


def log_of_run(run: Run, name: str = "") -> Log:
    """Return the log of a `ratecraft.results.Run`.

    It has the validation losses, or the training losses if there are too few of these.

    Args:
        run: run of a `Comparison`, or from `ratecraft.experiments.train`.
        name: name of the log; the schedule and the seed if empty.

    Raises:
        LogError: the run diverged, or has too few losses.

    >>> from ratecraft.results import Run
    >>> log = log_of_run(Run("wsd(2)", 0.01, 0, 20, 5, losses=(1.0,) * 20, evaluations=()))
    >>> log.name, log.peak_lr, log.warmup_steps
    ('wsd(2), seed 0', 0.01, 2)
    """
    name = name or f"{run.schedule}, seed {run.seed}"
    if run.diverged is not None:
        raise LogError(f"{name}: diverged at step {run.diverged}")
    losses = {e.step: e.metrics["loss"] for e in run.evaluations if "loss" in e.metrics}
    if len(losses) < MIN_LOSSES:
        losses = dict(enumerate(run.losses, 1))
    return Log(tuple(losses), tuple(losses.values()), schedule=run.curve(), name=name)


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
    if not source.exists():
        raise LogError(f"{source}: no such file")
    if source.is_dir() or "tfevents" in source.name:
        columns = _tensorboard(source)
    else:
        rows = _rows(source)
        if isinstance(rows, Comparison):
            if schedule is None and loss is None:
                return _logs_of_comparison(rows, source)
            raise LogError(
                f"{source}: a saved comparison contains its schedules and losses; leave out "
                "schedule= and loss="
            )
        columns = _columns(rows, source)
    steps, losses = _losses(columns, source, loss)
    monitor_columns = [name for name in columns if name.startswith("lr-")]  # of Lightning
    lr_column = _first(columns, [*LR_COLUMNS, *monitor_columns])
    lrs = {} if lr_column is None else dict(sorted(dict(columns[lr_column]).items()))
    curve = None
    if schedule is not None:
        length = int(max(steps)) if total_steps is None else total_steps
        curve = schedule.resolve(total_steps=length, steps_per_epoch=steps_per_epoch)
    # Steps are whole numbers, as floats; Log checks them.
    lr_steps: Any = list(lrs) or None
    return [Log(steps, losses, list(lrs.values()) or None, curve, source.name, lr_steps)]


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


def _losses(columns: Columns, source: Path, loss: str | None) -> tuple[Any, Any]:
    names = LOSS_COLUMNS if loss is None else (loss.lower(),)
    # Many training losses identify the law better than a handful of validation losses.
    long_enough = [name for name in names if len(columns.get(name, ())) >= MIN_LOSSES]
    column = _first(columns, long_enough or names)
    if column is None:
        raise LogError(
            f"{source}: no column {' or '.join(names[:4])}; the columns are "
            f"{', '.join(columns) or 'none'}; pass the name of one as loss="
        )
    # Duplicates, such as a second evaluation after the last step, count once.
    steps, losses = zip(*dict.fromkeys(columns[column]), strict=True)
    return steps, losses


def _first(columns: Collection[str], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _rows(source: Path) -> Any:
    suffix = source.suffix.lower()
    try:
        # Spreadsheet programs write a byte order mark.
        text = source.read_text(encoding="utf-8-sig")
        if suffix in (".csv", ".tsv", ".txt"):
            delimiter = max(",;\t", key=text.partition("\n")[0].count)
            lines = io.StringIO(text, newline="")
            return list(csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True))
        if suffix in (".jsonl", ".ndjson", ".log"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        data = json.loads(text)
    except (OSError, ValueError, csv.Error) as error:
        raise LogError(
            f"{source}: {error}; expected CSV, JSON, JSON lines or TensorBoard events"
        ) from None
    if not isinstance(data, dict):
        return data
    if "ratecraft" in data:
        result = load(source)
        if not isinstance(result, Comparison):
            raise LogError(f"{source}: a saved {type(result).__name__}; expected a Comparison")
        return result
    if "log_history" in data:
        return data["log_history"]
    if all(isinstance(column, list) for column in data.values()):
        return [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=False)]
    return data


def _columns(rows: Any, source: Path) -> Columns:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LogError(f"{source}: expected a table: a list of rows that map columns to numbers")
    columns: Columns = {}
    titles: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        cells = _cells(row, titles, source)
        step_column = _first(cells, STEP_COLUMNS)
        required = [name for name in cells if name in LOSS_COLUMNS or name in LR_COLUMNS]
        if step_column is None:
            if not required:
                continue  # an empty row, or metadata
            raise LogError(
                f"{source}: row {number} has no column {ANY_STEP_COLUMN}; its columns are "
                f"{', '.join(cells)}"
            )
        for name in (step_column, *required):
            if not isinstance(cells[name], float):
                raise LogError(
                    f"{source}: {name} of row {number} is {cells[name]!r}; expected a number"
                )
        for name, value in cells.items():
            if isinstance(value, float) and name not in STEP_COLUMNS:
                columns.setdefault(name, []).append((cells[step_column], value))
    if _first(titles, STEP_COLUMNS) is None:
        raise LogError(
            f"{source}: no column {ANY_STEP_COLUMN}; the columns are {', '.join(titles) or 'none'}"
        )
    return {name: _without_nan(values) for name, values in columns.items()}


def _cells(row: Mapping[Any, Any], titles: dict[str, str], source: Path) -> dict[str, Any]:
    """Return the cells of a row that are not empty, numbers as floats; fill in ``titles``."""
    cells: dict[str, Any] = {}
    for title, value in row.items():
        # Weights & Biases writes "run name - train/loss", and columns of its minimum and maximum.
        if title is None or str(title).endswith(("__MIN", "__MAX")):
            continue
        name = str(title).rpartition(" - ")[2].strip().lower()
        if titles.setdefault(name, str(title)) != str(title):
            raise LogError(
                f"{source}: {titles[name]!r} and {title!r} are both {name}, so the file seems to "
                "hold several runs; write one file for each run"
            )
        if value is None or not str(value).strip():
            continue
        try:
            cells[name] = float(value)
        except (TypeError, ValueError):
            cells[name] = value
    return cells


def _without_nan(values: list[tuple[float, float]]) -> list[tuple[float, float]]:
    # Without NaN if most values are NaN, as pandas writes empty cells.
    numbers = [(step, value) for step, value in values if not math.isnan(value)]
    return numbers if 0 < len(numbers) < len(values) / 2 else values


def _tensorboard(source: Path) -> Columns:
    try:
        from tensorboard.backend.event_processing import event_accumulator
    except ImportError:
        raise LogError(
            f"{source}: event files are read with TensorBoard: pip install tensorboard"
        ) from None
    events: Any = event_accumulator.EventAccumulator(str(source), size_guidance={"scalars": 0})
    events.Reload()
    columns = {
        tag.strip().lower(): [(float(e.step), float(e.value)) for e in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    if not columns:
        runs = [folder for folder in source.glob("*/") if any(folder.glob("*tfevents*"))]
        hint = f"; its runs are {', '.join(str(run) for run in runs)}" if runs else ""
        raise LogError(f"{source}: no scalars in it{hint}")
    return columns
