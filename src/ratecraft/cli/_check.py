"""check and doctor: find mistakes in schedules and in training setups."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from ratecraft.errors import RunFailed, ScheduleError, SettingError
from ratecraft.schedule import Finding, parse, parse_length
from ratecraft.schedule import check as check_schedule

from ._console import out, print_json
from ._options import StepsPerEpoch, TotalSteps, use_script_arguments


def check(
    *schedules: str,
    total_steps: TotalSteps = None,
    steps_per_epoch: StepsPerEpoch = None,
    json: bool = False,
) -> None:
    """Lint schedules: jumps, unreachable parts, steps at learning rate 0, length mismatches.

    Exits with code 1 if a finding is an error.

    Example: `ratecraft check "warmup(500).then(cosine(1, 0, over=1000))" --total-steps 2000`

    Args:
        schedules: Schedules in the notation, such as "cosine(1, 0)".
        total_steps: Length of the run: a number of steps, or a duration such as "epochs(10)".
        json: Print one line of JSON, with the findings on each schedule.
    """
    if not schedules:
        raise ScheduleError('check needs a schedule, for example: ratecraft check "cosine(1, 0)"')
    length = None if total_steps is None else parse_length(total_steps)
    findings = {
        str(schedule): check_schedule(schedule, length, steps_per_epoch=steps_per_epoch)
        for schedule in map(parse, schedules)
    }
    if json:
        print_json([_as_dict("schedule", *item) for item in findings.items()])
    else:
        for item in findings.items():
            _print_findings(*item)
    _fail_on_errors([finding for entries in findings.values() for finding in entries])


def doctor(
    setup: str,
    *,
    total_steps: Annotated[int | None, Parameter(alias="-n")] = None,
    json: bool = False,
) -> None:
    """Find mistakes in how models, optimizers and schedulers are set up, before training.

    Exits with code 1 if a finding is an error.

    Example: `ratecraft doctor train.py:build --total-steps 10000`

    Args:
        setup: A function, as file.py:function, that returns the objects to check: models,
            optimizers, schedulers, a Hugging Face Trainer; one of them, or several in any order.
        total_steps: Number of optimizer steps of the run.
        json: Print one line of JSON, with the findings.
    """
    from ratecraft.diagnostics import doctor as diagnose
    from ratecraft.experiments._source import call_function, load_function

    use_script_arguments(setup)
    with redirect_stdout(sys.stderr if json else sys.stdout):
        objects = call_function(load_function(setup), setup)
    objects = objects if isinstance(objects, tuple | list) else (objects,)
    try:
        findings = diagnose(*objects, total_steps=total_steps)
    except TypeError as error:
        raise SettingError(f"{setup}: {error}") from None
    if json:
        print_json(_as_dict("setup", setup, findings))
    else:
        _print_findings(setup, findings)
    _fail_on_errors(findings)


def _as_dict(key: str, subject: str, findings: Sequence[Finding]) -> dict[str, object]:
    return {key: subject, "findings": [asdict(finding) for finding in findings]}


def _print_findings(subject: str, findings: Sequence[Finding]) -> None:
    out.print("\n".join(map(str, findings)) or f"{subject}: nothing to report")


def _fail_on_errors(findings: Sequence[Finding]) -> None:
    """Raise RunFailed if a finding is an error."""
    count = sum(finding.level == "error" for finding in findings)
    if count:
        raise RunFailed(f"{count} of the findings {'is an error' if count == 1 else 'are errors'}")
