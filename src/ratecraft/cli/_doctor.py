"""doctor: find mistakes in a training setup."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ratecraft.errors import SettingError

from ._check import report_findings


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
    report_findings({setup: findings})
