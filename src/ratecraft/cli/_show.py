"""show: draw schedules in the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ratecraft.errors import ScheduleError
from ratecraft.schedule import parse, parse_length, steps
from ratecraft.schedule._duration import CLOCK_NAMES

from ._console import err, out, print_json, print_plot
from ._options import Figures, StepsPerEpoch, TotalSteps, check_outputs

if TYPE_CHECKING:
    from ratecraft.schedule import Curve, Duration, Schedule

MAX_JSON_POINTS: Final = 1000  # of each schedule


def show(
    *schedules: str,
    total_steps: TotalSteps = None,
    steps_per_epoch: StepsPerEpoch = None,
    log: bool = False,
    output: Figures = (),
    json: bool = False,
) -> None:
    """Draw learning-rate schedules in the terminal.

    Nothing is trained.

    Example: `ratecraft show "3e-4 * warmup(500).then(cosine(1, 0.1))" --total-steps 10000`

    Args:
        schedules: Schedules in the notation, such as "cosine(1, 0)"; several share one plot.
        total_steps: Length of the run: a number of steps, or a duration such as "epochs(10)".
            Default: the length of the schedule.
        log: Use a logarithmic axis for the learning rate.
        json: Print one line of JSON, with the learning rates of each schedule at up to 1000 steps.
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
    if json:
        print_json([_values(name, curve) for name, curve in curves.items()])
    else:
        print_plot(terminal_curve, curves, log_y=log)
        for name, curve in curves.items():
            out.print(f"{name}\n  {_summary(curve)}")
    for path in output:
        figure = save_figure(plot_curves(curves, log=log), path)
        (err if json else out).print(f"figure: {figure}")


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


def _values(name: str, curve: Curve) -> dict[str, Any]:
    """Return the learning rates of a curve, at every step or evenly spaced; the last is there."""
    unit = CLOCK_NAMES[curve.horizon.clock]
    if unit == "step":
        length: float = len(curve)
        gaps = min(len(curve), MAX_JSON_POINTS) - 1
        positions: list[float] = [i * (len(curve) - 1) // max(gaps, 1) for i in range(gaps + 1)]
        lrs = [curve(k) for k in positions]
    else:
        length, gaps = curve.length, MAX_JSON_POINTS - 1
        positions = [i * length / gaps for i in range(gaps + 1)]
        lrs = [*map(curve, positions[:-1]), curve.left(length)]
    return {"schedule": name, "unit": unit, "length": length, "positions": positions, "lrs": lrs}


def _summary(curve: Curve) -> str:
    """Return the first value, the last value and the length of a curve."""
    unit = CLOCK_NAMES[curve.horizon.clock]
    if unit == "step":
        length, last = f"{len(curve):,} steps", curve(len(curve) - 1)
    else:
        length, last = f"{curve.length:,.12g} {unit}s", curve.left(curve.length)
    return f"first {curve(0):.6g}, last {last:.6g}, {length}"
