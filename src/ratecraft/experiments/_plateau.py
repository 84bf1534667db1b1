"""Plateau: a schedule times a factor that is reduced on a plateau, as a value."""

import ast
import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from ratecraft.errors import ScheduleError
from ratecraft.schedule import Curve, Duration, Schedule, constant, epochs, parse

FIELD_TYPES: Final[dict[str, Any]] = {
    "schedule": Schedule,
    **dict.fromkeys(("factor", "threshold"), int | float),
    **dict.fromkeys(("patience", "cooldown"), int),
    **dict.fromkeys(("metric", "mode"), str),
}
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
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, FIELD_TYPES[field.name]):
                raise ScheduleError(f"plateau({field.name}={value!r}): {PLATEAU_HINT}")
        if not 0 < self.factor < 1 or min(self.patience, self.threshold, self.cooldown) < 0:
            raise ScheduleError(f"{self!r}: expected factor between 0 and 1, and no negative value")
        if self.mode not in ("auto", "min", "max"):
            raise ScheduleError(f"plateau(mode={self.mode!r}): expected 'min' or 'max'")

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value of the metric is better."""
        return self.mode == "min" or (self.mode == "auto" and self.metric == "loss")

    def __repr__(self) -> str:
        return self._text(repr(self.schedule))

    def __str__(self) -> str:
        return self._text(str(self.schedule))

    def _text(self, schedule: str) -> str:
        parts = [schedule]
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(f"{field.name}={value!r}")
        return f"plateau({', '.join(parts)})"


Candidate = Schedule | Plateau  # what can be trained


def parse_candidate(text: str) -> Candidate:
    """Return the `Schedule` or the `Plateau` that a text describes."""
    source = text.strip()
    if not source.startswith("plateau("):
        return parse(text)
    try:
        call: Any = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ScheduleError(f"{text!r} cannot be parsed; {PLATEAU_HINT}") from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args[1:]:
        raise ScheduleError(f"{text!r} is not a plateau; {PLATEAU_HINT}")
    arguments: dict[str, Any] = {}
    for keyword in [*(ast.keyword("schedule", value) for value in call.args), *call.keywords]:
        name, value = keyword.arg or "**", keyword.value
        if name not in FIELD_TYPES or name in arguments:
            raise ScheduleError(f"{text!r}: unexpected argument {name!r}; {PLATEAU_HINT}")
        if name == "schedule":
            arguments[name] = parse(ast.get_source_segment(source, value) or "")
            continue
        try:
            arguments[name] = ast.literal_eval(value)
        except (ValueError, TypeError):
            raise ScheduleError(f"{text!r}: {name} must be a plain value; {PLATEAU_HINT}") from None
    return Plateau(**arguments)


def plain_schedule(candidate: Candidate) -> Schedule:
    """Return a candidate without the factor that follows a metric."""
    return candidate.schedule if isinstance(candidate, Plateau) else candidate


def curve_of(
    schedule: Candidate, lr: float, total_steps: int | Duration | None, steps_per_epoch: int
) -> Curve:
    """Return the learning rates of a run that the schedule must fit, a `Plateau` unreduced."""
    curve = (lr * plain_schedule(schedule)).resolve(
        total_steps=epochs(10) if total_steps is None else total_steps,
        steps_per_epoch=steps_per_epoch,
    )
    if curve.horizon.clock != "steps":
        raise ScheduleError(
            f"total_steps={total_steps}: a Task's run is counted in steps, not in "
            f"{curve.horizon.clock}; write a number of steps, or epochs(n)"
        )
    return curve
