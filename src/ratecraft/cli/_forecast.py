"""forecast: forecast the loss of schedules from the logs of other runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.schedule import parse

from ._console import has_color, out
from ._files import REPORT_SUFFIXES, check_output
from ._tables import print_forecast

if TYPE_CHECKING:
    from ratecraft.forecasting import Log


def forecast(
    *logs_and_schedules: str,
    total_steps: Annotated[int | None, Parameter(alias="-n")] = None,
    steps_per_epoch: float | None = None,
    warmup_steps: int | None = None,
    log_schedule: tuple[str, ...] = (),
    log_total_steps: tuple[int, ...] = (),
    loss: str | None = None,
    save: Path | None = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Forecast the loss of schedules that you have not run, from the logs of one or two runs.

    Without schedules, recommend one: a warm-up, a constant learning rate, and a cooldown.

    Example: `ratecraft forecast log.csv "warmup(500).then(cosine(1, 0))" --total-steps 20000`

    Args:
        logs_and_schedules: Log files (CSV, JSON, JSON lines, trainer_state.json, TensorBoard
            events, a saved comparison) and schedules in the notation. A schedule is a factor of
            the peak learning rate of the logs, or the learning rate itself.
        total_steps: Length of the forecast run in steps. Default: the length of the longest log.
        steps_per_epoch: Steps per epoch, needed if a schedule has a length in epochs.
        warmup_steps: Warm-up of the recommended schedule in steps. Default: that of the logs.
        log_schedule: Schedule of a logged run, as the learning rate itself; once for each log, in
            order. Needed if a log has no learning rates, and useful if it starts late.
        log_total_steps: Length in steps that the schedule of a log was made for, if the log ends
            earlier; once for each --log-schedule.
        loss: Name of the loss column. Default: the first usual name that the log has.
        save: Write the result as JSON.
        output: Also write a report (.html) or a figure (.png, .svg or .pdf).
    """
    from ratecraft.forecasting import forecast as forecast_losses
    from ratecraft.forecasting import recommend
    from ratecraft.report import plot_forecast, save_figure, terminal_forecast, write_report

    paths = [text for text in logs_and_schedules if "(" not in text or _exists(text)]
    schedules = {text: parse(text) for text in logs_and_schedules if text not in paths}
    if not paths:
        raise ScheduleError(
            'forecast needs the log of a run: ratecraft forecast log.csv "cosine(1, 0)"'
        )
    if total_steps is not None and total_steps < 1:
        raise SettingError(f"--total-steps {total_steps}: expected a number of steps >= 1")
    if warmup_steps is not None and schedules:
        raise SettingError("--warmup-steps is for a recommended schedule; leave out the schedules")
    check_output(save, ".json")
    check_output(output, *REPORT_SUFFIXES)
    logs = _read_logs(paths, log_schedule, log_total_steps, loss, steps_per_epoch)
    length = max(len(log.every_lr) for log in logs) if total_steps is None else total_steps
    if schedules:
        result = forecast_losses(logs, schedules, length, steps_per_epoch=steps_per_epoch)
    else:
        result = recommend(logs, length, warmup_steps=warmup_steps, steps_per_epoch=steps_per_epoch)
    out.print(terminal_forecast(result, color=has_color()), markup=False)
    print_forecast(result)
    if save is not None:
        out.print(f"result: {result.save(save)}", markup=False)
    if output is not None and output.suffix.lower() == ".html":
        title = f"Loss forecast for {length:,} steps"
        out.print(f"report: {write_report(output, forecast=result, title=title)}", markup=False)
    elif output is not None:
        out.print(f"figure: {save_figure(plot_forecast(result), output)}", markup=False)


def _read_logs(
    paths: list[str],
    schedules: tuple[str, ...],
    total_steps: tuple[int, ...],
    loss: str | None,
    steps_per_epoch: float | None,
) -> list[Log]:
    """Read every log, with its schedule and length if they are given.

    Raises:
        SettingError: the numbers of logs, schedules and lengths differ.
    """
    from ratecraft.forecasting import read_logs

    if schedules and len(schedules) != len(paths):
        raise SettingError(
            f"--log-schedule is given {_times(len(schedules))} for {len(paths)} logs; "
            "give it once for each log"
        )
    if total_steps and len(total_steps) != len(schedules):
        raise SettingError(
            f"--log-total-steps is given {_times(len(total_steps))} for {len(schedules)} "
            "--log-schedule; give it once for each"
        )
    parsed = [parse(text) for text in schedules] if schedules else [None] * len(paths)
    lengths = list(total_steps) if total_steps else [None] * len(paths)
    return [
        log
        for path, schedule, length in zip(paths, parsed, lengths, strict=True)
        for log in read_logs(
            path,
            schedule=schedule,
            total_steps=length,
            loss=loss,
            steps_per_epoch=steps_per_epoch,
        )
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # a schedule may be longer than a file name may be
        return False
