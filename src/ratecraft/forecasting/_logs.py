"""Logs of runs as tables of step, lr and loss, from the files that people have."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ratecraft.errors import LogError
from ratecraft.results import Comparison, Run, load
from ratecraft.schedule import Curve, Schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray


LONGEST: Final = 10**8  # steps; more are tokens
FEWEST: Final = 8  # losses, below which five parameters are not worth the fit
TOLERANCE: Final = 1e-3  # of the peak: logs round

STEP: Final = (
    "step", "global_step", "trainer/global_step", "train/global_step", "_step", "step",
    "iteration", "iter",
)  # fmt: skip
LOSS: Final = (
    "eval_loss", "val_loss", "eval/loss", "val/loss", "valid_loss", "validation_loss", "loss",
    "train_loss", "train/loss", "training_loss", "train_loss_step", "lm loss",
)  # fmt: skip
LR: Final = (
    "lr", "learning_rate", "train/learning_rate", "train/lr", "lr", "optimizer/lr",
    "learning rate",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Log:
    """A run's losses, and the lr of every step up to the last of them.

    Args:
        steps: after how many steps each loss was measured, rising.
        losses: the losses.
        lrs: the lrs that were logged; linear between. Before the first one it is taken to
            hold.
        schedule: or the whole plan, resolved and as the lr itself; with ``lrs`` both must
            say the same.
        name: what to call the run.
        lr_steps: after how many steps each lr was logged; default those of the losses.

    Raises:
        LogError: a table that cannot be used, with the reason.

    >>> log = Log(range(100, 1100, 100), [5 - 0.1 * k for k in range(10)], [0.1] * 10)
    >>> log.peak, len(log.every_lr)
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
        self._check(steps, losses)
        end = int(steps[-1])
        times = np.arange(end, dtype=float)
        rated = steps if self.lr_steps is None else np.asarray(self.lr_steps, float)
        if self.schedule is not None:
            every = self._planned(self.schedule, rated, end)
        elif self.lrs is not None:
            every = np.interp(times, rated - 1, np.asarray(self.lrs, float))
        else:
            raise LogError(f"{self.name}: no lrs were logged; say the schedule of the run")
        if not np.isfinite(every).all() or (every < 0).any() or not (every > 0).any():
            raise LogError(f"{self.name}: lrs must be finite, not below 0, and some above it")
        object.__setattr__(self, "every_lr", every)

    @property
    def peak(self) -> float:
        """The highest lr."""
        return float(self.every_lr.max())

    @property
    def warmup(self) -> int:
        """StepOptions many steps it took to get to the peak, by a log within a thousandth of it."""
        near = TOLERANCE if self.schedule is None else 1e-9
        return int((self.every_lr >= (1 - near) * self.peak).argmax())

    @property
    def begins(self) -> int:
        """The step from which on the lrs are known."""
        if self.schedule is not None:
            return 0
        return int((self.steps if self.lr_steps is None else self.lr_steps)[0])

    def _check(self, steps: NDArray[Any], losses: NDArray[Any]) -> None:
        import numpy as np

        name = self.name
        rated = self.steps if self.lr_steps is None else self.lr_steps
        if len(steps) != len(losses) or (self.lrs is not None and len(self.lrs) != len(rated)):
            raise LogError(f"{name}: steps, losses and lrs must be of one length")
        if self.schedule is not None and not isinstance(self.schedule, Curve):
            raise TypeError(f"{name}: give schedule.resolve(total), a curve, as schedule=")
        if len(losses) < FEWEST:
            raise LogError(
                f"{name}: {len(losses)} losses; a law needs at least {FEWEST}, better 50, spread "
                "over the run"
            )
        for what, values in (("step", steps), ("loss", losses)):
            if not np.isfinite(values).all():
                at = int((~np.isfinite(values)).argmax())
                raise LogError(
                    f"{name}: the {what} of row {at + 1} is {values[at]}; leave out what is no "
                    "number, and a run that diverged"
                )
        if (steps < 0).any() or (steps % 1 != 0).any():
            raise LogError(f"{name}: steps must be whole numbers from 0 up")
        if (np.diff(steps) <= 0).any():
            at = int((np.diff(steps) <= 0).argmax()) + 1
            how = "is there twice" if steps[at] == steps[at - 1] else (
                f"comes after {steps[at - 1]:.0f}"
            )  # fmt: skip
            raise LogError(
                f"{name}: step {steps[at]:.0f} of row {at + 1} {how}; give one row for each "
                "step, in order (two runs in one file? a run that was resumed? cut it)"
            )
        if steps[-1] > LONGEST:
            raise LogError(
                f"{name}: {steps[-1]:.3g} steps; are these tokens or samples? The law counts steps"
            )
        if (losses <= 0).any():
            at = int((losses <= 0).argmax())
            raise LogError(
                f"{name}: the loss of row {at + 1} is {losses[at]:g}; the law is of losses above 0"
            )

    def _planned(self, curve: Curve, steps: NDArray[Any], end: int) -> NDArray[Any]:
        import numpy as np

        if curve.length < end:
            raise LogError(
                f"{self.name}: the plan ends after {curve.length:.0f} steps, the log goes on to "
                f"{end}; expected the plan over its whole length"
            )
        every: NDArray[Any] = curve.values(np.arange(end, dtype=float))
        if self.lrs is None:
            return every
        logged = np.asarray(self.lrs, float)
        # A log has the lr of the step just made, or already the next one's.
        near = [curve.values(np.maximum(steps + k, 0.0)) for k in (-1, 0, 1)]
        gaps = np.abs(np.array(near) - logged).min(axis=0)
        if (gaps > TOLERANCE * every.max()).any():
            at = int((gaps > TOLERANCE * every.max()).argmax())
            raise LogError(
                f"{self.name}: at step {steps[at]:.0f} the log has an lr of {logged[at]:.4g}, "
                f"the schedule {near[1][at]:.4g}; expected the schedule that this run was trained "
                "with, as the lr itself, over its planned length (total_steps=, or --plan-total)"
            )
        return every


def log_of_run(run: Run, name: str = "") -> Log:
    """Return the log of one of our own runs: validation losses; training losses if these are few.

    Args:
        run: the run, of a `Comparison` or from `ratecraft.experiments.train`.
        name: what to call the log; default the schedule and the seed.

    Raises:
        LogError: a run that diverged, or is too short.

    >>> from ratecraft import wsd
    >>> from ratecraft.experiments import load_task, train
    >>> log = log_of_run(train(load_task("digits"), wsd(2), lr=0.01, total_steps=20))
    >>> log.peak, log.warmup, len(log.losses)
    (0.01, 2, 20)
    """
    name = name or f"{run.schedule}, seed {run.seed}"
    if run.diverged is not None:
        raise LogError(f"{name}: diverged at step {run.diverged}")
    seen = [(e.step, e.metrics["loss"]) for e in run.evaluations if "loss" in e.metrics]
    if len(seen) < FEWEST:
        seen = [(k + 1, loss) for k, loss in enumerate(run.losses)]
    steps, losses = zip(*seen, strict=True) if seen else ((), ())
    return Log(steps, losses, schedule=run.curve(), name=name)


def read_logs(
    path: str | os.PathLike[str],
    *,
    schedule: Schedule | None = None,
    total_steps: int | None = None,
    loss: str | None = None,
    steps_per_epoch: float | None = None,
) -> list[Log]:
    """Read the log of a run, or of several, from a file of a kind that people have.

    CSV, JSON and JSON lines with a row for each measurement, ``trainer_state.json`` of the
    Hugging Face Trainer, exports of W&B, TensorBoard's event files or their folder, and saved
    `Comparison`s. Columns are found by their usual names; a validation loss goes before a
    training loss.

    Args:
        path: the file.
        schedule: the plan of the run, as the lr itself, where the log lacks lrs or begins
            late.
        total_steps: planned steps; default the last step of the log.
        loss: the name of the column, if another one is meant.
        steps_per_epoch: steps per epoch, if the plan speaks of epochs.

    Raises:
        LogError: a file that cannot be read, or a table that cannot be used.

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> rows = [{"step": k, "loss": 2 + 9 / k, "lr": 0.1} for k in range(50, 1001, 50)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "run.json"
    ...     _ = file.write_text(json.dumps(rows))
    ...     (log,) = read_logs(file)
    >>> log.name, log.peak, len(log.every_lr)
    ('run.json', 0.1, 1000)
    """
    source = Path(path)
    if not source.exists():
        raise LogError(f"{source}: no such file")
    columns: Mapping[str, list[tuple[float, float]]]
    if source.is_dir() or "tfevents" in source.name:
        columns = _tensorboard(source)
    else:
        rows = _rows(source)
        if isinstance(rows, Comparison):
            return _of_comparison(rows, source, schedule, loss)
        columns = _columns(rows, source)
    return [_log(columns, source, schedule, total_steps, loss, steps_per_epoch)]


def _of_comparison(
    result: Comparison, source: Path, schedule: Schedule | None, loss: str | None
) -> list[Log]:
    if schedule is not None or loss is not None:
        raise LogError(
            f"{source}: a saved comparison knows its schedules and its loss; leave out schedule= "
            "and loss="
        )
    logs = [
        log_of_run(run, f"{name}, seed {run.seed}")
        for name in result.schedules
        for run in result.runs_for(name)
        if run.diverged is None
    ]
    if not logs:
        raise LogError(f"{source}: every run of this comparison diverged")
    return logs


def _log(
    columns: Mapping[str, list[tuple[float, float]]],
    source: Path,
    schedule: Schedule | None,
    total_steps: int | None,
    loss: str | None,
    steps_per_epoch: float | None,
) -> Log:
    there = ", ".join(columns) or "none"
    wanted = LOSS if loss is None else (loss.lower(),)
    # A validation loss that was measured a few times says less than many training losses.
    enough = [name for name in wanted if len(columns.get(name, ())) >= FEWEST]
    chosen = enough[0] if enough else _first(columns, wanted)
    if chosen is None:
        raise LogError(
            f"{source}: no column {' or '.join(wanted[:4])}; there is {there}; name it with loss="
        )
    # The same value twice, as of an evaluation after the last one, is one.
    steps, losses = zip(*dict.fromkeys(columns[chosen]), strict=True)
    rated = _first(columns, LR) or next((one for one in columns if one.startswith("lr-")), None)
    lrs: Sequence[float] | None = None
    at: Sequence[float] | None = None
    if rated is not None:
        at, lrs = zip(*sorted(dict(columns[rated]).items()), strict=True)
    curve = None
    if schedule is not None:
        length = int(max(steps)) if total_steps is None else total_steps
        curve = schedule.resolve(total_steps=length, steps_per_epoch=steps_per_epoch)
    return Log(steps, losses, lrs, curve, source.name, at)  # type: ignore[arg-type]  # floats


def _first(columns: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _rows(source: Path) -> Any:
    """Return a file's rows as dicts, or one of our own results."""
    kind = source.suffix.lower()
    try:
        # Spreadsheets put a mark before the first letter.
        text = source.read_text(encoding="utf-8-sig")
        if kind in (".csv", ".tsv", ".txt"):
            first = text.partition("\n")[0]
            comma = max(",;\t", key=first.count)
            lines = io.StringIO(text, newline="")
            return list(csv.DictReader(lines, delimiter=comma, skipinitialspace=True))
        if kind in (".jsonl", ".ndjson", ".log"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        data = json.loads(text)
    except (OSError, ValueError, csv.Error) as error:
        raise LogError(f"{source}: {error}; expected CSV, JSON, JSON lines or events") from None
    if isinstance(data, dict) and "ratecraft" in data:
        result = load(source)
        if not isinstance(result, Comparison):
            raise LogError(f"{source}: a saved {type(result).__name__}; expected a Comparison")
        return result
    if isinstance(data, dict) and "log_history" in data:
        return data["log_history"]
    if isinstance(data, dict) and all(isinstance(one, list) for one in data.values()):
        return [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=False)]
    return data


def _columns(rows: Any, source: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the numbers of each column, with the step of their row."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LogError(f"{source}: expected a table, rows of names and numbers")
    columns: dict[str, list[tuple[float, float]]] = {}
    written: dict[str, str] = {}
    stepped = False
    for number, row in enumerate(rows, 1):
        told: dict[str, Any] = {}
        for title, value in row.items():
            # W&B writes "name of the run - train/loss" beside its lowest and highest values.
            if title is None or str(title).endswith(("__MIN", "__MAX")):
                continue
            name = str(title).rpartition(" - ")[2].strip().lower()
            if written.setdefault(name, str(title)) != str(title):
                raise LogError(
                    f"{source}: {written[name]!r} and {title!r} are both {name}; that looks like "
                    "several runs: give a file for each"
                )
            if value is not None and str(value).strip():
                told[name] = value
        step = _first(told, STEP)
        said = [name for name in told if name in LOSS or name in LR]
        if step is None:
            if not said:
                continue  # an empty row, or what is no measurement
            raise LogError(
                f"{source}: row {number} has no column {' or '.join(STEP[:3])}; there is "
                f"{', '.join(told)}"
            )
        stepped = True
        at = _number(told[step])
        if at is None:
            raise LogError(f"{source}: {step} of row {number} is {told[step]!r}, no number")
        for name, value in told.items():
            found = _number(value)
            if found is None and name in said:
                raise LogError(f"{source}: {name} of row {number} is {value!r}, no number")
            if found is not None and name not in STEP:
                columns.setdefault(name, []).append((at, found))
    if not stepped:
        there = ", ".join(written) or "none"
        raise LogError(f"{source}: no column {' or '.join(STEP[:3])}; there is {there}")
    return {name: _measured(values) for name, values in columns.items()}


def _measured(values: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return a column without NaN, if most of it is that: pandas' word for an empty cell."""
    kept = [(at, value) for at, value in values if not math.isnan(value)]
    return kept if 0 < len(kept) < len(values) / 2 else values


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _tensorboard(source: Path) -> dict[str, list[tuple[float, float]]]:
    try:
        from tensorboard.backend.event_processing import event_accumulator
    except ImportError:
        raise LogError(
            f"{source}: event files are read with TensorBoard: pip install 'ratecraft[tensorboard]'"
        ) from None
    events: Any = event_accumulator.EventAccumulator(str(source), size_guidance={"scalars": 0})
    events.Reload()
    found = {
        tag.strip().lower(): [(float(one.step), float(one.value)) for one in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    if not found:
        inner = [one for one in source.glob("*/") if any(one.glob("*tfevents*"))]
        more = f"; its runs are {', '.join(str(one) for one in inner)}" if inner else ""
        raise LogError(f"{source}: no scalars in it{more}")
    return found
