"""forecast: forecast the loss of schedules from the logs of other runs."""

from __future__ import annotations

import os
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.schedule import parse

from ._console import out, print_plot
from ._options import Reports, Save, StepsPerEpoch, check_outputs, write_outputs

if TYPE_CHECKING:
    from ratecraft.forecasting import Log
    from ratecraft.results import Forecast


def forecast(
    *logs_and_schedules: str,
    total_steps: Annotated[int | None, Parameter(alias="-n")] = None,
    steps_per_epoch: StepsPerEpoch = None,
    warmup_steps: int | None = None,
    log_schedule: tuple[str, ...] = (),
    log_total_steps: tuple[int, ...] = (),
    loss: str | None = None,
    save: Save = None,
    output: Reports = (),
) -> None:
    """Forecast the loss of schedules that you have not run, from the logs of one or two runs.

    Without schedules, recommend one: a warmup, a constant learning rate, and a cooldown.

    Example: `ratecraft forecast log.csv "warmup(500).then(cosine(1, 0))" --total-steps 20000`

    Args:
        logs_and_schedules: Log files (CSV, JSON, JSON lines, trainer_state.json, TensorBoard
            events, text such as "step 100: loss 3.2, lr 0.001", a saved comparison) and schedules
            in the notation. A schedule is a factor of the peak learning rate of the logs, or the
            learning rate itself.
        total_steps: Length of the forecast run in steps. Default: the length of the longest log.
        warmup_steps: Warmup of the recommended schedule in steps. Default: that of the logs.
        log_schedule: Schedule of a logged run, as the learning rate itself; once for each log, in
            order. Needed if a log has no learning rates, and useful if it starts late.
        log_total_steps: Length in steps that the schedule of a log was made for, if the log ends
            earlier; once for each --log-schedule.
        loss: Name of the loss column. Default: the first usual name of a validation loss that the
            log has, or of a training loss.
    """
    from ratecraft.forecasting import forecast as forecast_losses
    from ratecraft.forecasting import recommend
    from ratecraft.report import terminal_chart

    # A schedule may be longer than a file name may be: Path.exists would raise an OSError.
    paths = [text for text in logs_and_schedules if "(" not in text or os.path.exists(text)]
    schedules = [parse(text) for text in logs_and_schedules if text not in paths]
    if not paths:
        raise ScheduleError(
            'forecast needs the log of a run: ratecraft forecast log.csv "cosine(1, 0)"'
        )
    if total_steps is not None and total_steps < 1:
        raise SettingError(f"--total-steps {total_steps}: expected a number of steps >= 1")
    if warmup_steps is not None and schedules:
        raise SettingError("--warmup-steps is for a recommended schedule; leave out the schedules")
    check_outputs(save, output)
    logs = _read_logs(
        paths, log_schedule, log_total_steps, loss=loss, steps_per_epoch=steps_per_epoch
    )
    length = max(len(log.every_lr) for log in logs) if total_steps is None else total_steps
    if schedules:
        result = forecast_losses(logs, schedules, length, steps_per_epoch=steps_per_epoch)
    else:
        result = recommend(logs, length, warmup_steps=warmup_steps, steps_per_epoch=steps_per_epoch)
    print_plot(terminal_chart, result.chart())
    _print_forecast(result)
    title = f"Loss forecast for {length:,} steps"
    write_outputs(result, save, output, forecast=result, title=title)


def _read_logs(
    paths: list[str], schedules: tuple[str, ...], total_steps: tuple[int, ...], **options: Any
) -> list[Log]:
    """Read every log, with its schedule and length if they are given, and print its columns."""
    from ratecraft.forecasting import read_logs

    for option, values, count, counted in (
        ("--log-schedule", schedules, len(paths), "logs"),
        ("--log-total-steps", total_steps, len(schedules), "--log-schedule"),
    ):
        if values and len(values) != count:
            times = "once" if len(values) == 1 else f"{len(values)} times"
            raise SettingError(
                f"{option} is given {times} for {count} {counted}; give it once for each"
            )
    logs = []
    for path, schedule, length in zip_longest(paths, map(parse, schedules), total_steps):
        logs_of_file = read_logs(path, schedule=schedule, total_steps=length, **options)
        out.print(f"{path}: {_columns(logs_of_file)}")
        logs += logs_of_file
    return logs


def _columns(logs: list[Log]) -> str:
    """Return from which columns of a file its logs were read."""
    columns = logs[0].columns
    runs = "" if len(logs) == 1 else f"{len(logs)} runs, "
    losses = f"{sum(len(log.losses) for log in logs):,} losses from {columns['loss']}"
    steps = f", steps from {columns['step']}" if "step" in columns else ""
    is_logged = logs[0].schedule is None
    return f"{runs}{losses}{steps}, lrs from {columns['lr'] if is_logged else 'the schedule'}"


def _print_forecast(result: Forecast) -> None:
    table = Table(title=f"Loss after {result.total_steps:,} steps")
    table.add_column("schedule", overflow="fold")
    table.add_column("forecast", justify="right", no_wrap=True)
    table.add_column("band", justify="right", no_wrap=True)
    for entry in result.entries:
        name = "\n  ".join([entry.name, *entry.notes])
        table.add_row(name, f"{entry.loss:.4f}", f"{entry.low:.4f} to {entry.high:.4f}")
    out.print(table)
    for note in result.notes:
        out.print(f"caution: {note}")
    out.print(result.verdict())
