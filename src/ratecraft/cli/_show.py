"""show: draw schedules in the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ratecraft.errors import ScheduleError
from ratecraft.schedule import parse, parse_length, steps
from ratecraft.schedule._duration import CLOCK_NAMES

from ._console import has_color, out
from ._options import Figures, StepsPerEpoch, TotalSteps, check_outputs

if TYPE_CHECKING:
    from ratecraft.schedule import Curve, Duration, Schedule


def show(
    *schedules: str,
    total_steps: TotalSteps = None,
    steps_per_epoch: StepsPerEpoch = None,
    log: bool = False,
    output: Figures = (),
) -> None:
    """Draw learning-rate schedules in the terminal.

    Nothing is trained.

    Example: `ratecraft show "3e-4 * warmup(500).then(cosine(1, 0.1))" --total-steps 10000`

    Args:
        schedules: Schedules in the notation, such as "cosine(1, 0)"; several share one plot.
        total_steps: Length of the run: a number of steps, or a duration such as "epochs(10)".
            Default: the length of the schedule.
        log: Use a logarithmic axis for the learning rate.
    """
    from ratecraft.report import plot_curves, save_figure, terminal_curve

    if not schedules:
        raise ScheduleError('show needs a schedule, for example: ratecraft show "cosine(1, 0)"')
    check_outputs(None, output, reports=False)
    length = None if total_steps is None else parse_length(total_steps)
    curves = {
        str(schedule): _resolve(schedule, length, steps_per_epoch)
        for schedule in map(parse, schedules)
    }
    out.print(terminal_curve(curves, log_y=log, color=has_color()))
    for name, curve in curves.items():
        out.print(f"{name}\n  {_summary(curve)}")
    for path in output:
        out.print(f"figure: {save_figure(plot_curves(curves, log=log), path)}")


def _resolve(schedule: Schedule, length: Duration | None, steps_per_epoch: float | None) -> Curve:
    """Resolve a schedule over a run of the given length, or over its own length."""
    if length is None:
        natural_length = schedule.resolve(steps_per_epoch=steps_per_epoch).natural_length
        if math.isinf(natural_length):
            raise ScheduleError(
                f"{schedule} has no end; write how much to draw: --total-steps 10000"
            )
        length = steps(natural_length)
    return schedule.resolve(total_steps=length, steps_per_epoch=steps_per_epoch)


def _summary(curve: Curve) -> str:
    """Return the first value, the last value and the length of a curve."""
    unit = CLOCK_NAMES[curve.horizon.clock]
    if unit == "step":
        length, last = f"{len(curve):,} steps", curve(len(curve) - 1)
    else:
        length, last = f"{curve.length:,.12g} {unit}s", curve.left(curve.length)
    return f"first {curve(0):.6g}, last {last:.6g}, {length}"
