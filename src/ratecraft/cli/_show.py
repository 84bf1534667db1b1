"""show, check, doctor: what a schedule or a set-up is, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ratecraft.errors import RunFailed, ScheduleError, SettingError
from ratecraft.schedule import Duration, Finding, parse, parse_length, steps
from ratecraft.schedule import check as check_schedule
from ratecraft.schedule._duration import CLOCK_NAMES

from ._console import colored, out


def show(
    *schedules: str,
    total_steps: Annotated[str | None, Parameter(alias="-t")] = None,
    steps_per_epoch: float | None = None,
    log: bool = False,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> None:
    """Draw schedules in the terminal, without training anything.

    Example: `ratecraft show "3e-4 * warmup(500).then(cosine(1, 0.1))" --total-steps 10000`

    Args:
        schedules: Texts of schedules; several are overlaid.
        total_steps: Length of the run: steps, or a length such as "epochs(10)". Default: where the
            schedule itself ends.
        steps_per_epoch: Steps per epoch, if anything is said in epochs.
        log: Draw the lr on a logarithmic axis.
        output: Also write a figure: a .png, .svg or .pdf file.
    """
    from ratecraft.report import plot_curves, save_figure, terminal_curve

    if not schedules:
        raise ScheduleError('show needs a schedule, for example: ratecraft show "cosine(1, 0)"')
    length: Duration | float | None = None if total_steps is None else parse_length(total_steps)
    curves = {}
    for text in schedules:
        schedule = parse(text)
        curve = schedule.resolve(total_steps=length, steps_per_epoch=steps_per_epoch)
        if length is None:
            if curve.natural_length == float("inf"):
                raise ScheduleError(
                    f"{schedule!r} has no end; say how far to draw: --total-steps 10000"
                )
            curve = schedule.resolve(
                total_steps=steps(curve.natural_length), steps_per_epoch=steps_per_epoch
            )
        curves[repr(schedule)] = curve
    out.print(terminal_curve(curves, log_y=log, color=colored()), markup=False)
    for name, curve in curves.items():
        unit = CLOCK_NAMES[curve.horizon.clock]
        span, last = f"{curve.length:,.12g} {unit}s", curve.left(curve.length)
        if unit == "step":
            span, last = f"{len(curve):,} steps", curve(len(curve) - 1)
        out.print(f"{name}\n  first {curve(0):.6g}, last {last:.6g}, {span}", markup=False)
    if output is not None:
        out.print(f"figure: {save_figure(plot_curves(curves, log=log), output)}", markup=False)


def check(
    *schedules: str,
    total_steps: Annotated[str | None, Parameter(alias="-t")] = None,
    steps_per_epoch: float | None = None,
) -> None:
    """Say what schedules will do over a run that nobody may have meant.

    Exits with 1 if there is an error among the findings.

    Example: `ratecraft check "warmup(500).then(cosine(1, 0, over=1000))" --total-steps 2000`

    Args:
        schedules: Texts of schedules.
        total_steps: Length of the run: steps, or a length such as "epochs(10)".
        steps_per_epoch: Steps per epoch, if anything is said in epochs.
    """
    if not schedules:
        raise ScheduleError('check needs a schedule, for example: ratecraft check "cosine(1, 0)"')
    length = None if total_steps is None else parse_length(total_steps)
    found = []
    for text in schedules:
        findings = check_schedule(parse(text), length, steps_per_epoch=steps_per_epoch)
        _print_findings(findings, text)
        found += findings
    _fail_on_errors(found)


def doctor(setup: str, *, total_steps: Annotated[int | None, Parameter(alias="-t")] = None) -> None:
    """Say what is wrong with a training set-up before it runs.

    Exits with 1 if there is an error among the findings.

    Example: `ratecraft doctor train.py:build --total-steps 10000`

    Args:
        setup: A function as file.py:function that builds all and returns it: models,
            optimizers, schedulers, a Hugging Face Trainer; one, or several in any order.
        total_steps: Steps that the run is going to make.
    """
    from ratecraft.diagnostics import doctor as examine
    from ratecraft.experiments._source import called, load_function

    things = called(load_function(setup), setup)
    things = things if isinstance(things, tuple | list) else (things,)
    try:
        findings = examine(*things, total_steps=total_steps)
    except TypeError as error:
        raise SettingError(f"{setup}: {error}") from None
    _print_findings(findings, setup)
    _fail_on_errors(findings)


def _print_findings(findings: Sequence[Finding], what: str) -> None:
    for finding in findings:
        out.print(str(finding), markup=False)
    if not findings:
        out.print(f"{what}: nothing to report", markup=False)


def _fail_on_errors(findings: Sequence[Finding]) -> None:
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        are = "is an error" if errors == 1 else "are errors"
        raise RunFailed(f"{errors} of the findings {are}")
