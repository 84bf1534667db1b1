"""show: draw schedules in the terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ratecraft.errors import ScheduleError
from ratecraft.schedule import parse, parse_length, steps
from ratecraft.schedule._duration import CLOCK_NAMES

from ._console import has_color, out
from ._notation import list_words

if TYPE_CHECKING:
    from ratecraft.schedule import Curve, Duration, Schedule


@list_words
def show(
    *schedules: str,
    total_steps: Annotated[str | None, Parameter(alias="-n")] = None,
    steps_per_epoch: float | None = None,
    log: bool = False,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Draw learning-rate schedules in the terminal.

    Nothing is trained.

    Example: `ratecraft show "3e-4 * warmup(500).then(cosine(1, 0.1))" --total-steps 10000`

    Args:
        schedules: Schedules in the notation, such as "cosine(1, 0)"; several share one plot.
        total_steps: Length of the run: a number of steps, or a duration such as "epochs(10)".
            Default: the length of the schedule.
        steps_per_epoch: Steps per epoch, needed if a length is in epochs.
        log: Use a logarithmic axis for the learning rate.
        output: Also write a figure (.png, .svg or .pdf).
    """
    from ratecraft.report import plot_curves, save_figure, terminal_curve

    if not schedules:
        raise ScheduleError('show needs a schedule, for example: ratecraft show "cosine(1, 0)"')
    length = None if total_steps is None else parse_length(total_steps)
    curves = {
        repr(schedule): _resolve(schedule, length, steps_per_epoch)
        for schedule in map(parse, schedules)
    }
    out.print(terminal_curve(curves, log_y=log, color=has_color()), markup=False)
    for name, curve in curves.items():
        out.print(f"{name}\n  {_summary(curve)}", markup=False)
    if output is not None:
        out.print(f"figure: {save_figure(plot_curves(curves, log=log), output)}", markup=False)


def _resolve(schedule: Schedule, length: Duration | None, steps_per_epoch: float | None) -> Curve:
    """Resolve a schedule over a run of the given length, or over its own length."""
    curve = schedule.resolve(total_steps=length, steps_per_epoch=steps_per_epoch)
    if length is not None:
        return curve
    if math.isinf(curve.natural_length):
        raise ScheduleError(f"{schedule!r} has no end; write how much to draw: --total-steps 10000")
    return schedule.resolve(
        total_steps=steps(curve.natural_length), steps_per_epoch=steps_per_epoch
    )


def _summary(curve: Curve) -> str:
    """Return the first value, the last value and the length of a curve."""
    unit = CLOCK_NAMES[curve.horizon.clock]
    if unit == "step":
        length, last = f"{len(curve):,} steps", curve(len(curve) - 1)
    else:
        length, last = f"{curve.length:,.12g} {unit}s", curve.left(curve.length)
    return f"first {curve(0):.6g}, last {last:.6g}, {length}"
