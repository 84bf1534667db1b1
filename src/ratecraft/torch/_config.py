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

UNITS: Final = ("epoch", "samples", "tokens")
HORIZON: Final = ("total", *UNITS)
"""What "continue" may change: how long the run is, in which units."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The schedules of every field and what they are resolved with.

    Attributes:
        mode: "rate" or "factor": what the schedules of ``lr`` mean.
        schedules: by field, ``lr`` first; of the other fields they are factors.
        total: length of the run.
        units: updates per epoch, samples and tokens per update, as far as they are known.
        floor: lowest rate, for all groups or by group.
        sample: "start" or "mid": where between two updates the curve is read.
        clock: "optimizer", "step", "samples" or "tokens".
    """

    mode: Literal["rate", "factor"]
    schedules: Mapping[str, Schedules]
    total: Duration | None = None
    units: Mapping[str, float] = field(default_factory=dict)
    floor: float | Mapping[str, float] | None = None
    sample: Literal["start", "mid"] = "start"
    clock: str = "optimizer"

    @property
    def counts(self) -> str:
        """What the clock counts: "updates", "samples" or "tokens"."""
        return "updates" if self.clock in ("optimizer", "step") else self.clock

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data: texts, numbers and dicts of them."""
        data: dict[str, Any] = {self.mode: _texts(self.schedules["lr"])}
        fields = {name: _texts(said) for name, said in self.schedules.items() if name != "lr"}
        if fields:
            data["fields"] = fields
        if self.total is not None:
            data["total"] = str(self.total)
        data |= self.units
        if self.floor is not None:
            data["floor"] = dict(self.floor) if isinstance(self.floor, Mapping) else self.floor
        if self.sample != "start":
            data["sample"] = self.sample
        if self.clock != "optimizer":
            data["clock"] = self.clock
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], like: Plan) -> Plan:
        """Return the plan that was saved as data.

        A Python function has no text to be read back: where ``like`` says the same text, its
        schedule is taken.

        Raises:
            BindingError: the data is no plan, or holds a function that ``like`` does not have.
        """
        try:
            mode: Literal["rate", "factor"] = "rate" if "rate" in data else "factor"
            texts = {"lr": data[mode], **data.get("fields", {})}
            return cls(
                mode,
                {name: _schedules(said, like.schedules.get(name)) for name, said in texts.items()},
                parse_length(data["total"]) if "total" in data else None,
                {unit: data[unit] for unit in UNITS if unit in data},
                _floor(data.get("floor")),
                data.get("sample", "start"),
                data.get("clock", "optimizer"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BindingError(f"the saved plan cannot be read: {error}") from None

    def differences(self, other: Plan) -> list[str]:
        """Return the names of what is said differently; functions are compared by their names."""
        mine, its = self.as_dict(), other.as_dict()
        names = list(dict.fromkeys((*mine, *its)))
        different = [name for name in names if mine.get(name) != its.get(name)]
        for name in (self.mode, "fields"):
            # One lambda cannot be told from another.
            if name not in different and "<lambda>" in str(mine.get(name)):
                different.append(name)
        return different

    def resolve(self, schedule: Schedule) -> Curve:
        """Return a schedule's curve over this run."""
        units: dict[str, Any] = {unit: self.units.get(unit) for unit in UNITS}
        return schedule.resolve(self.total, **units)

    def drive(
        self, name: str, groups: Sequence[str], base: Sequence[float], first: int | None = None
    ) -> Drive:
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
        if self.floor is not None and name == "lr":
            given = self.floor
            if isinstance(given, Mapping):
                _match(given, groups, "floor=")
            floors = [given[g] if isinstance(given, Mapping) else given for g in groups]
            for group, floor, own in zip(groups, floors, base, strict=True):
                if not 0 <= floor <= own:
                    raise BindingError(
                        f"floor={floor:g} of group {group}: expected between 0 and its base "
                        f"rate, {own:g}"
                    )
        shares = None
        if floors is not None:
            shares = [floor / own if own else 0.0 for floor, own in zip(floors, base, strict=True)]
        return Drive(curves, owners, shares)

    def add_late_group(self, drive: Drive, name: str, own: float) -> None:
        """Let a group that was added later into a drive, with its own value as its base.

        A schedule for all takes it in; where schedules are said by group, it keeps its value.
        """
        if isinstance(self.schedules[name], Schedule):
            drive.owners.append(0)
        else:
            absolute = name == "lr" and self.mode == "rate"
            drive.curves.append(constant(own if absolute else 1).resolve())
            drive.owners.append(len(drive.curves) - 1)
        if drive.floors is not None:
            floor = 0.0 if isinstance(self.floor, Mapping) else self.floor or 0.0
            drive.floors.append(min(floor / own, 1.0) if own else 0.0)


def _floor(data: Any) -> float | dict[str, float] | None:
    if isinstance(data, Mapping):
        return {str(group): as_number(floor, "floor") for group, floor in data.items()}
    return None if data is None else as_number(data, "floor")


@dataclass(slots=True)
class Drive:
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
class Bend:
    """A clock that runs at another pace from a knot on: update k reads the curve at ``u(k)``.

    ``knots`` are pairs (k, u), from (0, 0) to (new total, old total), joined by straight lines.
    """

    plan: Plan
    knots: tuple[tuple[float, float], ...]

    def __call__(self, k: float) -> float:
        """Return where on the old clock update ``k`` is."""
        (k0, u0), (k1, u1) = self.knots[0], self.knots[1]
        for left, right in zip(self.knots, self.knots[1:], strict=False):
            (k0, u0), (k1, u1) = left, right
            if k < k1:
                break
        return u0 + (k - k0) * ((u1 - u0) / (k1 - k0))

    def bent_again(self, at: float, total: float) -> Bend:
        """Return this clock with what is left after ``at`` running up to a new total."""
        end = self.knots[-1][1]
        kept = tuple(knot for knot in self.knots[:-1] if knot[0] < at)
        return replace(self, knots=(*kept, (at, self(at)), (total, end)))


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
            "that keeps its rate takes constant(1) as its factor"
        )


def plan_of(
    rate: Schedules | None,
    factor: Schedules | None,
    fields: Mapping[str, Schedules] | None,
    total: int | Duration | None,
    units: Mapping[str, float | None],
    floor: float | Mapping[str, float] | None,
    sample: str,
    clock: str,
) -> Plan:
    """Check what was said, as far as that can be done without the optimizer."""
    said = rate if factor is None else factor
    if said is None or (rate is not None and factor is not None):
        raise TypeError(
            "ScheduleLR takes exactly one of rate= (the schedule is the rate) and "
            "factor= (the schedule multiplies each group's lr)"
        )
    schedules = {name: _by_name(one) for name, one in {"lr": said, **(fields or {})}.items()}
    if fields and "lr" in fields:
        raise TypeError("fields= is for the other fields; lr is said by rate= or factor=")
    for one in schedules.values():
        for schedule in one.values() if isinstance(one, Mapping) else [one]:
            if not isinstance(schedule, Schedule):
                raise TypeError(
                    f"a Schedule was expected, not {schedule!r}; a fixed rate is constant(value), "
                    "and a text is read by ratecraft.parse"
                )
    mode: Literal["rate", "factor"] = "rate" if factor is None else "factor"
    if floor is not None:
        if mode == "rate":
            raise BindingError(
                "floor= goes with factor=, where it is a different factor for each group; a rate "
                "that ends above 0 is written cosine(1, 0.1), or .clip(low=...)"
            )
        floor = (
            {str(name): as_number(value, f"floor of {name}") for name, value in floor.items()}
            if isinstance(floor, Mapping)
            else as_number(floor, "floor=")
        )
    length = None if total is None else as_duration(total, "total=")
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
    if sample not in ("start", "mid"):
        raise BindingError(f"sample={sample!r} is neither 'start' nor 'mid'")
    if sample == "mid" and clock in ("tokens", "samples"):
        raise BindingError(f'sample="mid" is half an update, which is no number of {clock}')
    known = {name: as_number(size, f"{name}=") for name, size in units.items() if size is not None}
    middle: Literal["start", "mid"] = "mid" if sample == "mid" else "start"
    return Plan(mode, schedules, length, known, floor, middle, clock)


def _by_name(said: Any) -> Any:
    """Return what is said by group with the names as texts; unnamed groups go by number."""
    if not isinstance(said, Mapping):
        return said
    return {str(group): schedule for group, schedule in said.items()}
