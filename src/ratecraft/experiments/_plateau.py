"""Plateau: a schedule whose factor falls when validation no longer improves, as a value."""

from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from ratecraft.errors import ScheduleError
from ratecraft.schedule import Schedule, constant, parse

HINT: Final = 'expected plateau(constant(1), factor=0.1, patience=10, metric="loss")'


@dataclass(frozen=True, slots=True)
class Plateau:
    """A schedule, times a factor that falls when a validation metric no longer improves.

    What `ratecraft.torch.PlateauLR` does, written down: the metric is looked at after each epoch.
    A schedule alone cannot say this, since it knows nothing of what is trained.

    Attributes:
        schedule: what the factor multiplies.
        factor: what the factor is multiplied by at each fall.
        patience: how many epochs in a row may be no better.
        threshold: by what share of the best value the metric must be better to count.
        cooldown: how many epochs are passed over after a fall.
        metric: the validation metric.
        mode: "min" if it is to fall, "max" if it is to rise; by default "loss" is to fall and any
            other one to rise.

    >>> parse_candidate("plateau(factor=0.5)")
    plateau(constant(1), factor=0.5)
    """

    schedule: Schedule = dataclasses.field(default_factory=lambda: constant(1))
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    metric: str = "loss"
    mode: str = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Schedule):
            raise ScheduleError(f"plateau({self.schedule!r}): {HINT}")
        for name in ("factor", "patience", "threshold", "cooldown"):
            value = getattr(self, name)
            whole = name in ("patience", "cooldown")
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ScheduleError(f"plateau({name}={value!r}): {HINT}")
        if not 0 < self.factor < 1 or min(self.patience, self.threshold, self.cooldown) < 0:
            raise ScheduleError(
                f"{self!r}: the factor lies between 0 and 1, and nothing else is negative"
            )
        if not isinstance(self.metric, str):
            raise ScheduleError(f"plateau(metric={self.metric!r}): {HINT}")
        if self.mode not in ("auto", "min", "max"):
            raise ScheduleError(f"plateau(mode={self.mode!r}): expected 'min' or 'max'")

    @property
    def falls(self) -> bool:
        """Whether a lower value of the metric is better."""
        return self.mode == "min" or (self.mode == "auto" and self.metric == "loss")

    def __repr__(self) -> str:
        """Return the text that `parse_candidate` reads back."""
        parts = [repr(self.schedule)]
        for one in dataclasses.fields(self)[1:]:
            value = getattr(self, one.name)
            if value != one.default:
                parts.append(f"{one.name}={value!r}")
        return f"plateau({', '.join(parts)})"


Candidate = Schedule | Plateau
"""What can be trained: a schedule, or one with a factor that follows a metric."""


def parse_candidate(text: str) -> Candidate:
    """Return the schedule that a text says, or the `Plateau`.

    Raises:
        ScheduleError: it says neither.
    """
    if not text.strip().startswith("plateau("):
        return parse(text)
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ScheduleError(f"{text!r} cannot be read; {HINT}") from None
    if (
        not isinstance(call, ast.Call)
        or not isinstance(call.func, ast.Name)
        or len(call.args) > 1
        or any(one.arg is None for one in call.keywords)
    ):
        raise ScheduleError(f"{text!r} is no plateau; {HINT}")
    known = {one.name for one in dataclasses.fields(Plateau)}
    said: dict[str, Any] = {}
    if call.args:
        said["schedule"] = parse(ast.get_source_segment(text.strip(), call.args[0]) or "")
    for one in call.keywords:
        if one.arg not in known or one.arg in said:
            raise ScheduleError(f"{text!r}: plateau takes no {one.arg!r} here; {HINT}")
        if one.arg == "schedule":
            said["schedule"] = parse(ast.get_source_segment(text.strip(), one.value) or "")
            continue
        try:
            said[str(one.arg)] = ast.literal_eval(one.value)
        except (ValueError, TypeError):
            raise ScheduleError(f"{text!r}: {one.arg} must be a plain value; {HINT}") from None
    return Plateau(**said)
