"""Plateau: a schedule times a factor that is reduced on a plateau, as a value."""

from __future__ import annotations

import ast
import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from ratecraft.errors import ScheduleError
from ratecraft.schedule import Schedule, constant, parse

PLATEAU_HINT: Final = 'expected plateau(constant(1), factor=0.1, patience=10, metric="loss")'


@dataclass(frozen=True, slots=True)
class Plateau:
    """A schedule times a factor that is reduced when a validation metric stops improving.

    It describes a `ratecraft.torch.PlateauLR` that receives the metric after each epoch. A
    `Schedule` cannot express this, since it depends on nothing but the step.

    Attributes:
        schedule: schedule that the factor multiplies.
        factor: what the current factor is multiplied by at each reduction.
        patience: how many epochs in a row may fail to improve.
        threshold: minimum improvement that counts, relative to the best value.
        cooldown: number of epochs that are ignored after a reduction.
        metric: name of the validation metric.
        mode: "min" if a lower metric is better, "max" if a higher one is; "auto" is "min" for
            "loss" and "max" for any other metric.

    Raises:
        ScheduleError: a value has the wrong type or is out of range.

    >>> from ratecraft import warmup, constant
    >>> from ratecraft.experiments import Plateau
    >>> Plateau(warmup(100).then(constant(1)), factor=0.5)
    plateau(warmup(100).then(constant(1)), factor=0.5)
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
            raise ScheduleError(f"plateau({self.schedule!r}): {PLATEAU_HINT}")
        for name in ("factor", "patience", "threshold", "cooldown"):
            value = getattr(self, name)
            types = int if name in ("patience", "cooldown") else int | float
            if isinstance(value, bool) or not isinstance(value, types):
                raise ScheduleError(f"plateau({name}={value!r}): {PLATEAU_HINT}")
        if not 0 < self.factor < 1 or min(self.patience, self.threshold, self.cooldown) < 0:
            raise ScheduleError(f"{self!r}: expected factor between 0 and 1, and no negative value")
        if not isinstance(self.metric, str):
            raise ScheduleError(f"plateau(metric={self.metric!r}): {PLATEAU_HINT}")
        if self.mode not in ("auto", "min", "max"):
            raise ScheduleError(f"plateau(mode={self.mode!r}): expected 'min' or 'max'")

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value of the metric is better."""
        return self.mode == "min" or (self.mode == "auto" and self.metric == "loss")

    def __repr__(self) -> str:
        """Return the text that `parse_candidate` reads."""
        parts = [repr(self.schedule)]
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(f"{field.name}={value!r}")
        return f"plateau({', '.join(parts)})"


Candidate = Schedule | Plateau
"""What can be trained: a schedule, or a schedule times a factor that follows a metric."""


def parse_candidate(text: str) -> Candidate:
    """Return the `Schedule` or the `Plateau` that a text describes.

    Raises:
        ScheduleError: the text describes neither.

    >>> from ratecraft.experiments._plateau import parse_candidate
    >>> parse_candidate("plateau(factor=0.5)")
    plateau(constant(1), factor=0.5)
    """
    if not text.strip().startswith("plateau("):
        return parse(text)
    source = text.strip()
    try:
        call = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ScheduleError(f"{text!r} cannot be parsed; {PLATEAU_HINT}") from None
    if (
        not isinstance(call, ast.Call)
        or not isinstance(call.func, ast.Name)
        or len(call.args) > 1
        or any(keyword.arg is None for keyword in call.keywords)
    ):
        raise ScheduleError(f"{text!r} is not a plateau; {PLATEAU_HINT}")
    names = {field.name for field in dataclasses.fields(Plateau)}
    arguments: dict[str, Any] = {}
    if call.args:
        arguments["schedule"] = parse(ast.get_source_segment(source, call.args[0]) or "")
    for keyword in call.keywords:
        if keyword.arg not in names or keyword.arg in arguments:
            raise ScheduleError(
                f"{text!r}: unexpected argument {keyword.arg!r} of plateau; {PLATEAU_HINT}"
            )
        if keyword.arg == "schedule":
            arguments["schedule"] = parse(ast.get_source_segment(source, keyword.value) or "")
            continue
        try:
            arguments[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError):
            raise ScheduleError(
                f"{text!r}: {keyword.arg} must be a plain value; {PLATEAU_HINT}"
            ) from None
    return Plateau(**arguments)
