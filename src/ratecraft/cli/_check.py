"""check and doctor: find mistakes in schedules and in training setups."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from cyclopts import Parameter

from ratecraft.errors import RunFailed, ScheduleError, SettingError
from ratecraft.schedule import Finding, parse, parse_length
from ratecraft.schedule import check as check_schedule

from ._console import out
from ._options import StepsPerEpoch, TotalSteps


def check(
    *schedules: str, total_steps: TotalSteps = None, steps_per_epoch: StepsPerEpoch = None
) -> None:
    """Lint schedules: jumps, unreachable parts, steps at learning rate 0, length mismatches.

    Exits with code 1 if a finding is an error.

    Example: `ratecraft check "warmup(500).then(cosine(1, 0, over=1000))" --total-steps 2000`

    Args:
        schedules: Schedules in the notation, such as "cosine(1, 0)".
        total_steps: Length of the run: a number of steps, or a duration such as "epochs(10)".
    """
    if not schedules:
        raise ScheduleError('check needs a schedule, for example: ratecraft check "cosine(1, 0)"')
    length = None if total_steps is None else parse_length(total_steps)
    _report_findings(
        {
            str(schedule): check_schedule(schedule, length, steps_per_epoch=steps_per_epoch)
            for schedule in map(parse, schedules)
        }
    )


def doctor(setup: str, *, total_steps: Annotated[int | None, Parameter(alias="-n")] = None) -> None:
    """Find mistakes in how models, optimizers and schedulers are set up, before training.

    Exits with code 1 if a finding is an error.

    Example: `ratecraft doctor train.py:build --total-steps 10000`

    Args:
        setup: A function, as file.py:function, that returns the objects to check: models,
            optimizers, schedulers, a Hugging Face Trainer; one of them, or several in any order.
        total_steps: Number of optimizer steps of the run.
    """
    from ratecraft.diagnostics import doctor as diagnose
    from ratecraft.experiments._source import call_function, load_function

    objects = call_function(load_function(setup), setup)
    objects = objects if isinstance(objects, tuple | list) else (objects,)
    try:
        findings = diagnose(*objects, total_steps=total_steps)
    except TypeError as error:
        raise SettingError(f"{setup}: {error}") from None
    _report_findings({setup: findings})


def _report_findings(findings: Mapping[str, Sequence[Finding]]) -> None:
    """Print the findings on each schedule or setup; raise RunFailed if one is an error."""
    for subject, entries in findings.items():
        out.print("\n".join(map(str, entries)) or f"{subject}: nothing to report")
    count = sum(finding.level == "error" for entries in findings.values() for finding in entries)
    if count:
        raise RunFailed(f"{count} of the findings {'is an error' if count == 1 else 'are errors'}")
