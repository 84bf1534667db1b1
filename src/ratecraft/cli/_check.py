"""check: lint schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from ratecraft.errors import RunFailed, ScheduleError
from ratecraft.schedule import Finding, parse, parse_length
from ratecraft.schedule import check as check_schedule

from ._console import out
from ._notation import list_words


@list_words
def check(
    *schedules: str,
    total_steps: Annotated[str | None, Parameter(alias="-n")] = None,
    steps_per_epoch: float | None = None,
) -> None:
    """Lint schedules: jumps, unreachable parts, steps at learning rate 0, length mismatches.

    Exits with code 1 if a finding is an error.

    Example: `ratecraft check "warmup(500).then(cosine(1, 0, over=1000))" --total-steps 2000`

    Args:
        schedules: Schedules in the notation, such as "cosine(1, 0)".
        total_steps: Length of the run: a number of steps, or a duration such as "epochs(10)".
        steps_per_epoch: Steps per epoch, needed if a length is in epochs.
    """
    if not schedules:
        raise ScheduleError('check needs a schedule, for example: ratecraft check "cosine(1, 0)"')
    length = None if total_steps is None else parse_length(total_steps)
    findings: list[Finding] = []
    for text in schedules:
        new = check_schedule(parse(text), length, steps_per_epoch=steps_per_epoch)
        print_findings(new, text)
        findings += new
    fail_on_errors(findings)


def print_findings(findings: Sequence[Finding], subject: str) -> None:
    """Print the findings on a schedule or a setup, one below the other."""
    for finding in findings:
        out.print(str(finding), markup=False)
    if not findings:
        out.print(f"{subject}: nothing to report", markup=False)


def fail_on_errors(findings: Sequence[Finding]) -> None:
    """Raise RunFailed if a finding is an error."""
    count = sum(finding.level == "error" for finding in findings)
    if count:
        raise RunFailed(f"{count} of the findings {'is an error' if count == 1 else 'are errors'}")
