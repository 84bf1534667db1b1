"""predict: the loss of schedules that were not run, from the logs of those that were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.markup import escape

from ratecraft.errors import ScheduleError, SettingError
from ratecraft.schedule import parse

from ._console import check_output, colored, out


def predict(
    *logs_and_schedules: str,
    total_steps: Annotated[int | None, Parameter(alias="-t")] = None,
    steps_per_epoch: float | None = None,
    plan: tuple[str, ...] = (),
    plan_total: tuple[int, ...] = (),
    loss: str | None = None,
    save: Path | None = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Foresee the loss of schedules that were not run, from the logs of one run or two.

    Without schedules it recommends one of the WSD family.

    Example: `ratecraft forecast log.csv "warmup(500).then(cosine(1, 0))" --total-steps 20000`

    Args:
        logs_and_schedules: Logs (CSV, JSON, JSON lines, trainer_state.json, TensorBoard's events,
            a saved comparison) and texts of schedules: factors of the logs' peak lr, or lrs.
        total_steps: Steps of the run to foresee. Default: as many as the longest log has.
        steps_per_epoch: Steps per epoch, if schedules speak of epochs.
        plan: The schedule of a log, as the lr itself; once for each log, in order. Needed where
            a log has no lrs, better where it begins late.
        plan_total: Steps that the plan was made for, where the log ends before; once for each
            plan.
        loss: The logs' column of losses, if it is none of the usual ones.
        save: Write the result as JSON.
        output: Write a report (.html) or a figure (.png, .svg, .pdf).
    """
    from rich.table import Table

    from ratecraft.forecasting import forecast, read_logs, recommend
    from ratecraft.report import plot_forecast, save_figure, terminal_forecast, write_report

    paths = [one for one in logs_and_schedules if "(" not in one or _is_there(one)]
    schedules = {one: parse(one) for one in logs_and_schedules if one not in paths}
    if not paths:
        raise ScheduleError(
            'predict needs the log of a run: ratecraft forecast log.csv "cosine(1, 0)"'
        )
    if plan and len(plan) != len(paths):
        raise SettingError(f"--plan is given {len(plan)} times for {len(paths)} logs")
    if plan_total and len(plan_total) != len(plan):
        raise SettingError(f"--plan-total is given {len(plan_total)} times for {len(plan)} plans")
    if total_steps is not None and total_steps < 1:
        raise SettingError(f"--total-steps {total_steps}: expected a number of steps, at least 1")
    check_output(save, ".json")
    check_output(output, ".html", ".png", ".svg", ".pdf")
    plans = [parse(text) for text in plan] if plan else [None] * len(paths)
    lengths = list(plan_total) if plan_total else [None] * len(paths)
    logs = [
        log
        for path, one, long in zip(paths, plans, lengths, strict=True)
        for log in read_logs(
            path, schedule=one, total_steps=long, loss=loss, steps_per_epoch=steps_per_epoch
        )
    ]
    length = max(len(log.every_lr) for log in logs) if total_steps is None else total_steps
    result = (
        forecast(logs, schedules, length, steps_per_epoch=steps_per_epoch)
        if schedules
        else recommend(logs, length, steps_per_epoch=steps_per_epoch)
    )
    out.print(terminal_forecast(result, color=colored()), markup=False)
    table = Table(title=f"Loss after {length:,} steps")
    table.add_column("schedule", overflow="fold")
    table.add_column("foreseen", justify="right", no_wrap=True)
    table.add_column("band", justify="right", no_wrap=True)
    for one in result.candidates:
        text = escape("\n  ".join([one.name, *one.notes]))
        table.add_row(text, f"{one.loss:.4f}", f"{one.low:.4f} to {one.high:.4f}")
    out.print(table)
    for note in result.notes:
        out.print(f"weak: {note}", markup=False)
    out.print(result.verdict(), markup=False)
    if save is not None:
        out.print(f"result: {result.save(save)}", markup=False)
    if output is not None and output.suffix.lower() == ".html":
        title = "What other schedules would have cost"
        out.print(f"report: {write_report(output, forecast=result, title=title)}", markup=False)
    elif output is not None:
        out.print(f"figure: {save_figure(plot_forecast(result), output)}", markup=False)


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # longer than any file's name
        return False
