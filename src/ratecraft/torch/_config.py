"""ScheduleConfig: the arguments of a ScheduleLR as a value, to compare on resume and to save."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from ratecraft.errors import BindingError
from ratecraft.schedule import Curve, Duration, Schedule, constant, parse, parse_length
from ratecraft.schedule._duration import as_duration, as_number

T = TypeVar("T")

Schedules = Schedule | Mapping[str, Schedule]
"""One schedule for all param groups, or one for each group by name."""

UNIT_SIZES: Final = ("steps_per_epoch", "samples_per_step", "tokens_per_step")
RUN_LENGTH_ARGUMENTS: Final = ("total_steps", *UNIT_SIZES)
"""What on_change="continue" allows to differ: the length of the run and its units."""
DEFAULTS: Final = {"hyperparam_factors": {}, "midpoint": False, "clock": "optimizer"}
"""Entries that a saved config may lack; of all others the default is None."""


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """The schedules of all hyperparameters, and what they are resolved with.

    Attributes:
        sets_lr: whether the schedules of ``lr`` give learning rates, not factors (``lr=``, not
            ``factor=``); base counts as 1.
        schedules: by hyperparameter, ``lr`` first; those of the rest are factors.
        total_steps: length of the run.
        unit_sizes: steps per epoch, samples per step and tokens per step, where given.
        eta_min: lowest lr, for all groups or by group.
        midpoint: whether curves are read at k + 1/2 instead of k.
        clock: "optimizer", "step", "samples" or "tokens".
    """

    sets_lr: bool
    schedules: Mapping[str, Schedules]
    total_steps: Duration | None = None
    unit_sizes: Mapping[str, float] = field(default_factory=dict)
    eta_min: float | Mapping[str, float] | None = None
    midpoint: bool = False
    clock: str = "optimizer"

    @property
    def argument(self) -> Literal["lr", "factor"]:
        """The argument of ScheduleLR with the schedules of ``lr``."""
        return "lr" if self.sets_lr else "factor"

    @property
    def clock_unit(self) -> str:
        """The unit of the clock: "steps", "samples" or "tokens"."""
        return "steps" if self.clock in ("optimizer", "step") else self.clock

    def as_dict(self) -> dict[str, Any]:
        """Return the config as plain data: strings, numbers and dicts of them."""
        expressions = {
            name: _each_group(schedules, name, lambda schedule, _: repr(schedule))
            for name, schedules in self.schedules.items()
        }
        # All entries, also those with defaults: torch.distributed.checkpoint loads only the entries
        # of a saved state that the new scheduler's state has.
        return {
            self.argument: expressions.pop("lr"),
            "hyperparam_factors": expressions,
            "total_steps": None if self.total_steps is None else str(self.total_steps),
            **{unit: self.unit_sizes.get(unit) for unit in UNIT_SIZES},
            "eta_min": dict(self.eta_min) if isinstance(self.eta_min, Mapping) else self.eta_min,
            "midpoint": self.midpoint,
            "clock": self.clock,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], current: ScheduleConfig) -> ScheduleConfig:
        """Return the config that was saved as data; Python functions are those of ``current``."""
        try:
            data, sets_lr = {**DEFAULTS, **data}, "lr" in data
            expressions = {"lr": data["lr" if sets_lr else "factor"], **data["hyperparam_factors"]}
            schedules = {
                hyperparam: _schedules(expression, current.schedules.get(hyperparam))
                for hyperparam, expression in expressions.items()
            }
            total_steps, eta_min = data.get("total_steps"), data.get("eta_min")
            sizes = {unit: data[unit] for unit in UNIT_SIZES if data.get(unit) is not None}
            return cls(
                sets_lr,
                schedules,
                None if total_steps is None else parse_length(total_steps),
                {unit: as_number(size, f"{unit}=") for unit, size in sizes.items()},
                None if eta_min is None else _each_group(eta_min, "eta_min", as_number),
                bool(data["midpoint"]),
                data["clock"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BindingError(f"cannot read the saved config: {error}") from None

    def differences(self, other: ScheduleConfig) -> list[str]:
        """Return the names of the entries that differ; functions are compared by name."""
        mine, theirs = self.as_dict(), other.as_dict()
        names = list(dict.fromkeys((*mine, *theirs)))
        different = [name for name in names if mine.get(name) != theirs.get(name)]
        for name in (self.argument, "hyperparam_factors"):
            # All lambdas have the same name, so two of them may differ.
            if name not in different and "<lambda>" in str(mine.get(name)):
                different.append(name)
        return different

    def resolve(self, schedule: Schedule) -> Curve:
        return schedule.resolve(total_steps=self.total_steps, **self.unit_sizes)

    def run_length(self) -> float:
        """Return the position at which the run ends on its clock; infinite for an endless run."""
        return self.resolve(constant(1)).length


def _each_group(value: Any, name: str, convert: Callable[[Any, str], T]) -> T | dict[str, T]:
    """Convert a value, or each group's value in a dict; errors name the group."""
    if not isinstance(value, Mapping):
        return convert(value, name)
    return {
        str(group): convert(item, f"{name} of group {group!r}") for group, item in value.items()
    }


def _schedules(expressions: Any, current: Any) -> Any:
    """Return the saved schedules; of two with the same text ``current`` has the functions."""
    if isinstance(expressions, Mapping):
        known = current if isinstance(current, Mapping) else {}
        return {group: _schedules(text, known.get(group)) for group, text in expressions.items()}
    is_same = isinstance(current, Schedule) and repr(current) == expressions
    return current if is_same else parse(expressions)


def make_config(
    lr: Schedules | str | None,
    factor: Schedules | str | None,
    hyperparam_factors: Mapping[str, Schedules | str] | None,
    total_steps: int | Duration | str | None,
    sizes: tuple[float | None, ...],
    eta_min: float | Mapping[str, float] | None,
    midpoint: bool,
    clock: str,
) -> ScheduleConfig:
    """Check and convert the arguments of a `ScheduleLR`, as far as no optimizer is needed."""
    if isinstance(lr, int | float) and factor is not None:
        expression = factor if isinstance(factor, str) else repr(factor)
        raise TypeError(
            "lr= and factor= cannot be combined; to scale a schedule by a number write "
            f"lr={lr!r} * {expression}"
        )
    if (lr is None) == (factor is None):
        raise TypeError(
            "ScheduleLR takes exactly one of lr= (the schedule is the learning rate) and "
            "factor= (the schedule multiplies each group's lr)"
        )
    if hyperparam_factors and "lr" in hyperparam_factors:
        raise TypeError(
            "hyperparam_factors= takes hyperparameters other than lr; pass lr= or factor= for lr"
        )
    sets_lr = factor is None
    argument, schedule = ("lr=", lr) if sets_lr else ("factor=", factor)
    schedules = {"lr": _each_group(schedule, argument, _parsed)}
    for name, value in (hyperparam_factors or {}).items():
        schedules[name] = _each_group(value, f"hyperparam_factors[{name!r}]", _parsed)
    if eta_min is not None:
        if sets_lr:
            raise BindingError(
                "eta_min= goes with factor=, where the minimum is a different factor for each "
                "group; for a schedule that ends above 0 write cosine(1, 0.1) or .clip(low=...)"
            )
        eta_min = _each_group(eta_min, "eta_min=", as_number)
    if isinstance(total_steps, str):
        total_steps = parse_length(total_steps)
    length = None if total_steps is None else as_duration(total_steps, "total_steps=")
    if clock not in ("optimizer", "step"):
        raise BindingError(f"clock={clock!r}: expected 'optimizer' or 'step'")
    unit_sizes = {
        name: as_number(size, f"{name}=")
        for name, size in zip(UNIT_SIZES, sizes, strict=True)
        if size is not None
    }
    unit = constant(1).resolve(total_steps=length, **unit_sizes).horizon.clock
    if unit != "steps":
        clock = unit
        if midpoint:
            raise BindingError(
                f"midpoint=True shifts by half a step, and this run is measured in {unit}"
            )
    return ScheduleConfig(sets_lr, schedules, length, unit_sizes, eta_min, bool(midpoint), clock)


def _parsed(value: Any, argument: str) -> Schedule:
    if isinstance(value, str):
        return parse(value)
    if not isinstance(value, Schedule):
        advice = f"; write constant({value!r})" if isinstance(value, int | float) else ""
        raise TypeError(
            f'{argument} takes a schedule or a string such as "cosine(1, 0)", not {value!r}{advice}'
        )
    return value
