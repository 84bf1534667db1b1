"""What a scheduler was told, as a value: compared on resume, saved as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from ratecraft.errors import BindingError
from ratecraft.schedule import Curve, Duration, Schedule, constant, parse, parse_length
from ratecraft.schedule._duration import as_duration, as_number

Schedules = Schedule | Mapping[str, Schedule]
"""One schedule for all param groups, or one for each named group."""

UNITS: Final = ("steps_per_epoch", "samples_per_step", "tokens_per_step")
HORIZON: Final = ("total_steps", *UNITS)
"""What "continue" may change: how long the run is, in which units."""


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """The schedules of every field and what they are resolved with.

    Attributes:
        mode: "lr" or "factor": what the schedules of ``lr`` mean.
        schedules: by field, ``lr`` first; of the other fields they are factors.
        total_steps: length of the run.
        units: steps per epoch, samples and tokens per step, as far as they are known.
        eta_min: lowest lr, for all groups or by group.
        midpoint: the curve is read half a step later.
        clock: "optimizer", "step", "samples" or "tokens".
    """

    mode: Literal["lr", "factor"]
    schedules: Mapping[str, Schedules]
    total_steps: Duration | None = None
    units: Mapping[str, float] = field(default_factory=dict)
    eta_min: float | Mapping[str, float] | None = None
    midpoint: bool = False
    clock: str = "optimizer"

    @property
    def counts(self) -> str:
        """What the clock counts: "steps", "samples" or "tokens"."""
        return "steps" if self.clock in ("optimizer", "step") else self.clock

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data: texts, numbers and dicts of them."""
        data: dict[str, Any] = {self.mode: _texts(self.schedules["lr"])}
        fields = {name: _texts(said) for name, said in self.schedules.items() if name != "lr"}
        if fields:
            data["hyperparam_factors"] = fields
        if self.total_steps is not None:
            data["total_steps"] = str(self.total_steps)
        data |= self.units
        if self.eta_min is not None:
            by_group = isinstance(self.eta_min, Mapping)
            data["eta_min"] = dict(self.eta_min) if by_group else self.eta_min
        if self.midpoint:
            data["midpoint"] = True
        if self.clock != "optimizer":
            data["clock"] = self.clock
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], like: ScheduleConfig) -> ScheduleConfig:
        """Return the plan that was saved as data.

        A Python function has no text to be read back: where ``like`` says the same text, its
        schedule is taken.

        Raises:
            BindingError: the data is no config, or holds a function that ``like`` does not have.
        """
        try:
            mode: Literal["lr", "factor"] = "lr" if "lr" in data else "factor"
            texts = {"lr": data[mode], **data.get("hyperparam_factors", {})}
            return cls(
                mode,
                {name: _schedules(said, like.schedules.get(name)) for name, said in texts.items()},
                parse_length(data["total_steps"]) if "total_steps" in data else None,
                {unit: data[unit] for unit in UNITS if unit in data},
                _eta_min(data.get("eta_min")),
                bool(data.get("midpoint", False)),
                data.get("clock", "optimizer"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BindingError(f"the saved plan cannot be read: {error}") from None

    def differences(self, other: ScheduleConfig) -> list[str]:
        """Return the names of what is said differently; functions are compared by their names."""
        mine, its = self.as_dict(), other.as_dict()
        names = list(dict.fromkeys((*mine, *its)))
        different = [name for name in names if mine.get(name) != its.get(name)]
        for name in (self.mode, "hyperparam_factors"):
            # One lambda cannot be told from another.
            if name not in different and "<lambda>" in str(mine.get(name)):
                different.append(name)
        return different

    def resolve(self, schedule: Schedule) -> Curve:
        """Return a schedule's curve over this run."""
        units: dict[str, Any] = {unit: self.units.get(unit) for unit in UNITS}
        return schedule.resolve(total_steps=self.total_steps, **units)

    def drive(
        self, name: str, groups: Sequence[str], base: Sequence[float], first: int | None = None
    ) -> GroupCurves:
        """Return how the schedules of a field move the named groups, whose bases are given.

        ``first``: how many of them there were at the beginning; the others were added late.

        Raises:
            BindingError: a group without a schedule, a schedule or a floor without a group.
            ScheduleError: a schedule does not resolve over this run.
        """
        if first is not None and first < len(groups):
            drive = self.drive(name, groups[:first], base[:first])
            for own in base[first:]:
                self.add_late_group(drive, name, own)
            return drive
        said = self.schedules[name]
        if isinstance(said, Schedule):
            curves, owners = [self.resolve(said)], [0] * len(groups)
        else:
            _match(said, groups, f"{self.mode if name == 'lr' else name}=")
            distinct = list(dict.fromkeys(said.values()))
            curves = [self.resolve(schedule) for schedule in distinct]
            owners = [distinct.index(said[group]) for group in groups]
        floors = None
        if self.eta_min is not None and name == "lr":
            given = self.eta_min
            if isinstance(given, Mapping):
                _match(given, groups, "eta_min=")
            floors = [given[g] if isinstance(given, Mapping) else given for g in groups]
            for group, floor, own in zip(groups, floors, base, strict=True):
                if not 0 <= floor <= own:
                    raise BindingError(
                        f"eta_min={floor:g} of group {group}: expected between 0 and its base "
                        f"lr, {own:g}"
                    )
        shares = None
        if floors is not None:
            shares = [floor / own if own else 0.0 for floor, own in zip(floors, base, strict=True)]
        return GroupCurves(curves, owners, shares)

    def add_late_group(self, drive: GroupCurves, name: str, own: float) -> None:
        """Let a group that was added later into a drive, with its own value as its base.

        A schedule for all takes it in; where schedules are said by group, it keeps its value.
        """
        if isinstance(self.schedules[name], Schedule):
            drive.owners.append(0)
        else:
            absolute = name == "lr" and self.mode == "lr"
            drive.curves.append(constant(own if absolute else 1).resolve())
            drive.owners.append(len(drive.curves) - 1)
        if drive.floors is not None:
            floor = 0.0 if isinstance(self.eta_min, Mapping) else self.eta_min or 0.0
            drive.floors.append(min(floor / own, 1.0) if own else 0.0)


def _eta_min(data: Any) -> float | dict[str, float] | None:
    if isinstance(data, Mapping):
        return {str(group): as_number(floor, "eta_min") for group, floor in data.items()}
    return None if data is None else as_number(data, "eta_min")


@dataclass(slots=True)
class GroupCurves:
    """The curves that move one field of some groups, and which curve moves which group.

    ``floors`` are shares of each group's base: f becomes floor + (1 - floor) f.
    """

    curves: list[Curve]
    owners: list[int]
    floors: list[float] | None

    def is_uniform(self) -> bool:
        """Return whether all groups have the same factor at all times."""
        return len(self.curves) == 1 and self.floors is None

    def factors(self, t: float) -> float | list[float]:
        """Return the factor of every group at a time; one number while all have the same."""
        if self.is_uniform():
            return self.curves[0](t)
        values = [curve(t) for curve in self.curves]
        if self.floors is None:
            return [values[i] for i in self.owners]
        return [
            floor + (1 - floor) * values[i]
            for i, floor in zip(self.owners, self.floors, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class TimeMap:
    """A clock that runs at another pace from a knot on: step k reads the curve at ``u(k)``.

    ``knots`` are pairs (k, u), from (0, 0) to (new total, old total), joined by straight lines.
    """

    config: ScheduleConfig
    knots: tuple[tuple[float, float], ...]

    def __call__(self, k: float) -> float:
        """Return where on the old clock step ``k`` is."""
        (k0, u0), (k1, u1) = self.knots[0], self.knots[1]
        for left, right in zip(self.knots, self.knots[1:], strict=False):
            (k0, u0), (k1, u1) = left, right
            if k < k1:
                break
        return u0 + (k - k0) * ((u1 - u0) / (k1 - k0))

    def remapped(self, at: float, total_steps: float) -> TimeMap:
        """Return this clock with what is left after ``at`` running up to a new total."""
        end = self.knots[-1][1]
        kept = tuple(knot for knot in self.knots[:-1] if knot[0] < at)
        return replace(self, knots=(*kept, (at, self(at)), (total_steps, end)))


def _texts(said: Schedules) -> Any:
    if isinstance(said, Schedule):
        return repr(said)
    return {group: repr(schedule) for group, schedule in said.items()}


def _schedules(text: Any, like: Schedules | None) -> Schedules:
    if isinstance(text, Mapping):
        known = like if isinstance(like, Mapping) else {}
        return {group: _schedule(said, known.get(group)) for group, said in text.items()}
    return _schedule(text, like)


def _schedule(text: str, like: Any) -> Schedule:
    if isinstance(like, Schedule) and repr(like) == text:
        return like
    return parse(text)


def _match(said: Mapping[str, Any], groups: Sequence[str], what: str) -> None:
    unknown = [name for name in said if name not in groups]
    missing = [name for name in groups if name not in said]
    if unknown or missing:
        problem = f"no group is called {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
        raise BindingError(
            f"{what} is said by group, and {problem}; the groups are {', '.join(groups)}; a group "
            "that keeps its lr takes constant(1) as its factor"
        )


def make_config(
    lr: Schedules | str | None,
    factor: Schedules | str | None,
    hyperparam_factors: Mapping[str, Schedules | str] | None,
    total_steps: int | Duration | None,
    units: Mapping[str, float | None],
    eta_min: float | Mapping[str, float] | None,
    midpoint: bool,
    clock: str,
) -> ScheduleConfig:
    """Check what was said, as far as that can be done without the optimizer."""
    if isinstance(lr, int | float) and factor is not None:
        raise TypeError(f"lr= is the schedule itself; write lr={lr!r} * {factor!r}")
    chosen = lr if factor is None else factor
    if chosen is None or (lr is not None and factor is not None):
        raise TypeError(
            "ScheduleLR takes exactly one of lr= (the schedule is the learning rate) and "
            "factor= (the schedule multiplies each group's lr)"
        )
    if hyperparam_factors and "lr" in hyperparam_factors:
        raise TypeError("hyperparam_factors= is for the others; lr is set by lr= or factor=")
    given = {"lr": chosen, **(hyperparam_factors or {})}
    schedules = {name: _parsed(value) for name, value in given.items()}
    mode: Literal["lr", "factor"] = "lr" if factor is None else "factor"
    if eta_min is not None:
        if mode == "lr":
            raise BindingError(
                "eta_min= goes with factor=, where it is a different factor for each group; an lr "
                "that ends above 0 is written cosine(1, 0.1), or .clip(low=...)"
            )
        eta_min = (
            {str(name): as_number(value, f"eta_min of {name}") for name, value in eta_min.items()}
            if isinstance(eta_min, Mapping)
            else as_number(eta_min, "eta_min=")
        )
    length = None if total_steps is None else as_duration(total_steps, "total_steps=")
    if clock not in ("optimizer", "step"):
        raise BindingError(f"clock={clock!r} is neither 'optimizer' nor 'step'")
    if length is not None:
        counted = [
            unit
            for unit in ("tokens", "samples")
            if length == Duration(**{unit: getattr(length, unit)})
        ]
        if counted and length != Duration():
            clock = counted[0]
    if midpoint and clock in ("tokens", "samples"):
        raise BindingError(f"midpoint=True is half a step, which is no number of {clock}")
    known = {name: as_number(size, f"{name}=") for name, size in units.items() if size is not None}
    return ScheduleConfig(mode, schedules, length, known, eta_min, bool(midpoint), clock)


def _parsed(value: Any) -> Schedules:
    """Return a schedule, or one for each group by its name; a text is read, a number refused."""
    if isinstance(value, Mapping):
        return {str(group): _parsed_one(schedule) for group, schedule in value.items()}
    return _parsed_one(value)


def _parsed_one(value: Any) -> Schedule:
    if isinstance(value, str):
        return parse(value)
    if not isinstance(value, Schedule):
        raise TypeError(f"expected a schedule or its text, not {value!r}; write constant(value)")
    return value
