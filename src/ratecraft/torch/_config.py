"""ScheduleConfig: the arguments of a ScheduleLR as a value, to compare on resume and to save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from ratecraft.errors import BindingError
from ratecraft.schedule import Curve, Duration, Schedule, constant, parse, parse_length
from ratecraft.schedule._duration import as_duration, as_number

Schedules = Schedule | Mapping[str, Schedule]
"""One schedule for all param groups, or one for each group by name."""

UNIT_SIZES: Final = ("steps_per_epoch", "samples_per_step", "tokens_per_step")
RUN_LENGTH_ARGUMENTS: Final = ("total_steps", *UNIT_SIZES)
"""What on_change="continue" allows to differ: the length of the run and its units."""


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
        data: dict[str, Any] = {self.argument: _expressions(self.schedules["lr"])}
        others = {
            name: _expressions(value) for name, value in self.schedules.items() if name != "lr"
        }
        if others:
            data["hyperparam_factors"] = others
        if self.total_steps is not None:
            data["total_steps"] = str(self.total_steps)
        data |= self.unit_sizes
        if self.eta_min is not None:
            eta_min = self.eta_min
            data["eta_min"] = dict(eta_min) if isinstance(eta_min, Mapping) else eta_min
        if self.midpoint:
            data["midpoint"] = True
        if self.clock != "optimizer":
            data["clock"] = self.clock
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], current: ScheduleConfig) -> ScheduleConfig:
        """Return the config that was saved as data.

        Schedules with Python functions cannot be parsed; where ``current`` has a schedule with the
        same expression, it is used.

        Raises:
            BindingError: the data is not a config, or names a function that ``current`` lacks.
        """
        try:
            sets_lr = "lr" in data
            expressions = {
                "lr": data["lr" if sets_lr else "factor"],
                **data.get("hyperparam_factors", {}),
            }
            return cls(
                sets_lr,
                {
                    hyperparam: _schedules(expression, current.schedules.get(hyperparam))
                    for hyperparam, expression in expressions.items()
                },
                parse_length(data["total_steps"]) if "total_steps" in data else None,
                {unit: data[unit] for unit in UNIT_SIZES if unit in data},
                _eta_min(data.get("eta_min")),
                bool(data.get("midpoint", False)),
                data.get("clock", "optimizer"),
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
        """Return a schedule's curve over this run."""
        unit_sizes: dict[str, Any] = {name: self.unit_sizes.get(name) for name in UNIT_SIZES}
        return schedule.resolve(total_steps=self.total_steps, **unit_sizes)

    def group_curves(
        self,
        hyperparam: str,
        group_names: Sequence[str],
        base: Sequence[float],
        initial_group_count: int | None = None,
    ) -> GroupCurves:
        """Return the curves of one hyperparameter in the named groups.

        Args:
            hyperparam: the hyperparameter.
            group_names: the names of the param groups.
            base: each group's base value.
            initial_group_count: number of groups at the start; the rest were added later.

        Raises:
            BindingError: a group without a schedule, or a schedule or eta_min without a group.
            ScheduleError: a schedule does not resolve over this run.
        """
        count = initial_group_count
        if count is not None and count < len(group_names):
            curves = self.group_curves(hyperparam, group_names[:count], base[:count])
            for value in base[count:]:
                self.add_group(curves, hyperparam, value)
            return curves
        schedules = self.schedules[hyperparam]
        if isinstance(schedules, Schedule):
            resolved, curve_index = [self.resolve(schedules)], [0] * len(group_names)
        else:
            argument = self.argument if hyperparam == "lr" else hyperparam
            _check_group_names(schedules, group_names, f"{argument}=")
            distinct = list(dict.fromkeys(schedules.values()))
            resolved = [self.resolve(schedule) for schedule in distinct]
            curve_index = [distinct.index(schedules[group]) for group in group_names]
        eta_mins = None
        if self.eta_min is not None and hyperparam == "lr":
            given = self.eta_min
            if isinstance(given, Mapping):
                _check_group_names(given, group_names, "eta_min=")
            eta_mins = [given[g] if isinstance(given, Mapping) else given for g in group_names]
            for group, eta_min, value in zip(group_names, eta_mins, base, strict=True):
                if not 0 <= eta_min <= value:
                    raise BindingError(
                        f"eta_min={eta_min:g} of group {group}: expected between 0 and its base "
                        f"lr, {value:g}"
                    )
        min_factors = None
        if eta_mins is not None:
            min_factors = [
                eta_min / value if value else 0.0
                for eta_min, value in zip(eta_mins, base, strict=True)
            ]
        return GroupCurves(resolved, curve_index, min_factors)

    def add_group(self, curves: GroupCurves, hyperparam: str, base: float) -> None:
        """Add a group that was added to the optimizer later, with its base value.

        A schedule for all groups is for it, too; schedules by group leave its value unchanged.
        """
        if isinstance(self.schedules[hyperparam], Schedule):
            curves.curve_index.append(0)
        else:
            sets_lr = hyperparam == "lr" and self.sets_lr
            curves.curves.append(constant(base if sets_lr else 1).resolve())
            curves.curve_index.append(len(curves.curves) - 1)
        if curves.min_factors is not None:
            eta_min = 0.0 if isinstance(self.eta_min, Mapping) else self.eta_min or 0.0
            curves.min_factors.append(min(eta_min / base, 1.0) if base else 0.0)


def _eta_min(data: Any) -> float | dict[str, float] | None:
    if isinstance(data, Mapping):
        return {str(group): as_number(value, "eta_min") for group, value in data.items()}
    return None if data is None else as_number(data, "eta_min")


@dataclass(slots=True)
class GroupCurves:
    """The curves of one hyperparameter in an optimizer's param groups.

    Attributes:
        curves: the distinct curves.
        curve_index: for each group, the index of its curve.
        min_factors: eta_min / base of each group: f becomes m + (1 - m) f; None without eta_min.
    """

    curves: list[Curve]
    curve_index: list[int]
    min_factors: list[float] | None

    def is_uniform(self) -> bool:
        """Return whether all groups have the same factor at every t."""
        return len(self.curves) == 1 and self.min_factors is None

    def factors(self, t: float) -> float | list[float]:
        """Return each group's factor at ``t``; one number if it is the same for all."""
        if self.is_uniform():
            return self.curves[0](t)
        values = [curve(t) for curve in self.curves]
        if self.min_factors is None:
            return [values[i] for i in self.curve_index]
        return [
            low + (1 - low) * values[i]
            for i, low in zip(self.curve_index, self.min_factors, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class TimeMap:
    """A piecewise linear map from positions k of this run to t = u(k) on the saved curve.

    ``knots`` are pairs (k, u) from (0, 0) to (new length, old length).
    """

    config: ScheduleConfig
    knots: tuple[tuple[float, float], ...]

    def __call__(self, k: float) -> float:
        """Return t on the saved curve at position ``k``."""
        (k0, u0), (k1, u1) = self.knots[0], self.knots[1]
        for left, right in zip(self.knots, self.knots[1:], strict=False):
            (k0, u0), (k1, u1) = left, right
            if k < k1:
                break
        return u0 + (k - k0) * ((u1 - u0) / (k1 - k0))

    def remapped(self, at: float, total_steps: float) -> TimeMap:
        """Return a map that is the same up to position ``at`` and ends at ``total_steps``."""
        end = self.knots[-1][1]
        earlier = tuple(knot for knot in self.knots[:-1] if knot[0] < at)
        return replace(self, knots=(*earlier, (at, self(at)), (total_steps, end)))


def _expressions(schedules: Schedules) -> Any:
    if isinstance(schedules, Schedule):
        return repr(schedules)
    return {group: repr(schedule) for group, schedule in schedules.items()}


def _schedules(expressions: Any, current: Schedules | None) -> Schedules:
    if isinstance(expressions, Mapping):
        known = current if isinstance(current, Mapping) else {}
        return {group: _schedule(value, known.get(group)) for group, value in expressions.items()}
    return _schedule(expressions, current)


def _schedule(expression: str, current: Any) -> Schedule:
    if isinstance(current, Schedule) and repr(current) == expression:
        return current
    return parse(expression)


def _check_group_names(
    by_group: Mapping[str, Any], group_names: Sequence[str], argument: str
) -> None:
    unknown = [name for name in by_group if name not in group_names]
    missing = [name for name in group_names if name not in by_group]
    if unknown or missing:
        problem = (
            f"an entry for {unknown[0]!r}, which is not a param group"
            if unknown
            else f"no entry for group {missing[0]!r}"
        )
        advice = ""
        if argument in ("lr=", "factor="):
            advice = ". For a group that keeps its lr pass factor= with constant(1)"
        raise BindingError(
            f"{argument} is a dict and has {problem}; the groups are {', '.join(group_names)}"
            f"{advice}"
        )


def make_config(
    lr: Schedules | str | None,
    factor: Schedules | str | None,
    hyperparam_factors: Mapping[str, Schedules | str] | None,
    total_steps: int | Duration | None,
    unit_sizes: Mapping[str, float | None],
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
    chosen = lr if factor is None else factor
    if chosen is None or (lr is not None and factor is not None):
        raise TypeError(
            "ScheduleLR takes exactly one of lr= (the schedule is the learning rate) and "
            "factor= (the schedule multiplies each group's lr)"
        )
    if hyperparam_factors and "lr" in hyperparam_factors:
        raise TypeError(
            "hyperparam_factors= takes hyperparameters other than lr; pass lr= or factor= for lr"
        )
    sets_lr = factor is None
    schedules = {"lr": _parsed(chosen, "lr=" if sets_lr else "factor=")}
    for name, value in (hyperparam_factors or {}).items():
        schedules[name] = _parsed(value, f"hyperparam_factors[{name!r}]")
    if eta_min is not None:
        if sets_lr:
            raise BindingError(
                "eta_min= goes with factor=, where the minimum is a different factor for each "
                "group; for a schedule that ends above 0 write cosine(1, 0.1) or .clip(low=...)"
            )
        eta_min = (
            {str(name): as_number(value, f"eta_min of {name}") for name, value in eta_min.items()}
            if isinstance(eta_min, Mapping)
            else as_number(eta_min, "eta_min=")
        )
    length = None if total_steps is None else as_duration(total_steps, "total_steps=")
    if clock not in ("optimizer", "step"):
        raise BindingError(f"clock={clock!r}: expected 'optimizer' or 'step'")
    if length is not None:
        counted = [
            unit
            for unit in ("tokens", "samples")
            if length == Duration(**{unit: getattr(length, unit)})
        ]
        if counted and length != Duration():
            clock = counted[0]
    if midpoint and clock in ("tokens", "samples"):
        raise BindingError(
            f"midpoint=True shifts by half a step, and this run is measured in {clock}"
        )
    known = {
        name: as_number(size, f"{name}=") for name, size in unit_sizes.items() if size is not None
    }
    return ScheduleConfig(sets_lr, schedules, length, known, eta_min, bool(midpoint), clock)


def _parsed(value: Any, argument: str) -> Schedules:
    """Return a schedule, or one for each group by name; strings are parsed."""
    if isinstance(value, Mapping):
        return {
            str(group): _parsed_schedule(item, f"{argument} of group {group!r}")
            for group, item in value.items()
        }
    return _parsed_schedule(value, argument)


def _parsed_schedule(value: Any, argument: str) -> Schedule:
    if isinstance(value, str):
        return parse(value)
    if not isinstance(value, Schedule):
        advice = f"; write constant({value!r})" if isinstance(value, int | float) else ""
        raise TypeError(
            f'{argument} takes a schedule or a string such as "cosine(1, 0)", not {value!r}{advice}'
        )
    return value
