"""check: lint schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratecraft.errors import RunFailed, ScheduleError
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
    report_findings(
        {
            str(schedule): check_schedule(schedule, length, steps_per_epoch=steps_per_epoch)
            for schedule in map(parse, schedules)
        }
    )


def report_findings(findings: Mapping[str, Sequence[Finding]]) -> None:
    """Print the findings on each schedule or setup; raise RunFailed if one is an error."""
    for subject, entries in findings.items():
        out.print("\n".join(map(str, entries)) or f"{subject}: nothing to report")
    count = sum(finding.level == "error" for entries in findings.values() for finding in entries)
    if count:
        raise RunFailed(f"{count} of the findings {'is an error' if count == 1 else 'are errors'}")
