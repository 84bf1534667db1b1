"""StepOptions long: a length is an int (steps) or a sum of ``steps``, ``epochs``, ``percent``, ...

A `Duration` is a value with one coefficient per unit; a `Horizon` says what each unit
weighs on the clock of a run, and `Horizon.measure` turns the one into a number.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

from ratecraft.errors import ScheduleError

UNITS: Final = ("percent", "epochs", "steps", "samples", "tokens")
LONGEST: Final = 1e18  # steps, samples or tokens; more cannot be told apart, let alone run
CLOCK_NAMES: Final = {"steps": "step", "samples": "sample", "tokens": "token"}


def as_number(value: object, what: str) -> float:
    """Return ``value`` as a finite float, or say why it is none. ``-0.0`` becomes ``0.0``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} must be a number, not {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:
        raise ScheduleError(f"{what} is too large for a float") from None
    if not math.isfinite(number):
        raise ScheduleError(f"{what} must be finite, not {number}")
    return number + 0.0  # -0.0 + 0.0 is 0.0


def number_text(number: float) -> str:
    """Return the shortest text that reads back as ``number``: integral values as an int."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of training in mixed units, e.g. ``epochs(1) + 100`` or ``percent(30) - 1``.

    Built by `steps`, `epochs`, `percent`, `samples` and `tokens`; sums and differences of
    these and of ints (steps) are allowed. What it measures is decided when a schedule is
    resolved.

    Attributes:
        percent: percent of the scope: the run, the cycle, or the span of `over`.
        epochs: number of epochs.
        steps: number of steps.
        samples: number of training samples.
        tokens: number of training tokens.

    >>> epochs(1) + 100
    epochs(1) + 100
    >>> 100 - epochs(1)
    100 - epochs(1)
    """

    percent: float = 0.0
    epochs: float = 0.0
    steps: float = 0.0
    samples: float = 0.0
    tokens: float = 0.0

    def _plus(self, other: object, sign: float) -> Duration:
        added = as_duration(other, "the length that was added")
        return Duration(
            *(
                as_number(getattr(self, u) + sign * getattr(added, u), "the sum of two lengths")
                for u in UNITS
            )
        )

    def __add__(self, other: object) -> Duration:
        return self._plus(other, 1.0)

    __radd__ = __add__

    def __sub__(self, other: object) -> Duration:
        return self._plus(other, -1.0)

    def __rsub__(self, other: object) -> Duration:
        return as_duration(other, "the length")._plus(self, -1.0)

    def __mul__(self, other: object) -> Duration:
        raise TypeError(
            f"a length cannot be multiplied: {self!r} * {other!r}; "
            "write the product inside, e.g. epochs(2 * n)"
        )

    __rmul__ = __mul__

    def __repr__(self) -> str:
        terms = [(u, c) for u in UNITS if (c := getattr(self, u))]
        terms.sort(key=lambda term: term[1] < 0)  # positives first, else the order of UNITS
        text = ""
        for unit, coefficient in terms:
            size = number_text(abs(coefficient))
            whole = unit == "steps" and abs(coefficient).is_integer() and abs(coefficient) < 1e15
            term = size if whole else f"{unit}({size})"
            if not text:
                text = term if coefficient > 0 else f"0 - {unit}({size})"
            else:
                text += f" {'+' if coefficient > 0 else '-'} {term}"
        if len(terms) == 1 and text.isdigit():
            return f"steps({text})"
        return text or "steps(0)"

    def __str__(self) -> str:
        """Return the text used as an argument, where whole steps are a plain int."""
        text = repr(self)
        inner = text[6:-1]
        return inner if text.startswith("steps(") and inner.isdigit() else text


Length = int | Duration
"""What may be written where a length is asked for; a plain int counts steps."""


def _one(unit: str, value: object) -> Duration:
    number = as_number(value, f"{unit}()")
    if number < 0:
        raise ScheduleError(f"{unit}({number_text(number)}): a length must be >= 0")
    return Duration(**{unit: number})


def steps(n: float) -> Duration:
    """Return a length of ``n`` steps (optimizer steps); a plain int means the same.

    >>> steps(500)
    steps(500)
    """
    return _one("steps", n)


def epochs(n: float) -> Duration:
    """Return a length of ``n`` epochs; ``resolve(steps_per_epoch=...)`` says how many steps one has.

    >>> epochs(0.5)
    epochs(0.5)
    """
    return _one("epochs", n)


def percent(p: float) -> Duration:
    """Return a length of ``p`` percent of the scope: the run, the cycle, or the span of `over`.

    >>> percent(10)
    percent(10)
    """
    return _one("percent", p)


def samples(n: float) -> Duration:
    """Return a length of ``n`` training samples; ``resolve(samples_per_step=...)`` gives those per step.

    >>> samples(50_000)
    samples(50000)
    """
    return _one("samples", n)


def tokens(n: float) -> Duration:
    """Return a length of ``n`` training tokens; ``resolve(tokens_per_step=...)`` gives those per step.

    >>> tokens(3e9)
    tokens(3000000000)
    """
    return _one("tokens", n)


def as_duration(value: object, what: str) -> Duration:
    """Return ``value`` as a `Duration`: it is one, or an int that counts steps."""
    if isinstance(value, Duration):
        return value
    if isinstance(value, bool) or value is None:
        raise TypeError(f"{what} must be a length, not {value!r}; write 500 or epochs(2)")
    try:
        count = operator.index(value)  # type: ignore[arg-type]  # the TypeError is the check
    except TypeError:
        hint = "write 500, epochs(2) or percent(10)"
        if isinstance(value, Real):
            hint = f"write percent({number_text(float(value) * 100)}) for a share of the run"
            hint += f", or steps({number_text(float(value))}) for steps"
        raise TypeError(
            f"{what} must be an int (steps), steps(), epochs() or percent(), "
            f"not {value!r} ({type(value).__name__}); {hint}"
        ) from None
    return steps(count)


@dataclass(frozen=True, slots=True)
class Horizon:
    """What one unit of each kind weighs on the clock of a run (None: not known).

    ``clock`` is "steps", "samples" or "tokens": what t counts. On the step clock
    ``epochs`` is the number of steps in an epoch and ``tokens`` is 1 / (tokens per step).
    """

    clock: str = "steps"
    steps: float | None = 1.0
    epochs: float | None = None
    samples: float | None = None
    tokens: float | None = None

    @classmethod
    def of(
        cls,
        clock: str,
        *,
        steps_per_epoch: object,
        samples_per_step: object,
        tokens_per_step: object,
    ) -> Horizon:
        """Build from what a user says: steps per epoch, samples and tokens per step."""
        per_step = {"steps": 1.0}
        for unit, size in (
            ("epochs", steps_per_epoch),
            ("samples", samples_per_step),
            ("tokens", tokens_per_step),
        ):
            if size is not None:
                name = "steps_per_epoch" if unit == "epochs" else f"{unit}_per_step"
                per_step[unit] = as_number(size, f"{name}=")
                if per_step[unit] <= 0:
                    raise ScheduleError(f"{name}= must be > 0, not {size!r}")
        steps = {unit: 1 / size for unit, size in per_step.items()}
        if "epochs" in per_step:
            steps["epochs"] = per_step["epochs"]
        if clock == "steps":
            return cls(clock, **steps)
        if clock not in steps:
            return cls(clock, **{"steps": None, clock: 1.0})
        weight = {u: n * per_step[clock] for u, n in steps.items()} | {clock: 1.0}
        return cls(clock, **weight)

    def measure(self, length: Duration, scope: float, what: str) -> float:
        """Return ``length`` in units of the clock, where 100 percent is ``scope``.

        Raises:
            ScheduleError: the length needs a size that is not known, or is negative.
        """
        parts = []
        if length.percent:
            if math.isinf(scope):
                raise ScheduleError(
                    f"{what}: {length} needs total_steps=, since percent is of the run"
                )
            parts.append(length.percent * scope / 100)
        for unit in UNITS[1:]:
            if coefficient := getattr(length, unit):
                parts.append(coefficient * self.size(unit, f"{what}: {length}"))
        try:
            total_steps = math.fsum(parts)
        except (OverflowError, ValueError):  # ValueError: infinite parts of both signs
            total_steps = math.inf
        if not 0 <= total_steps <= LONGEST:
            raise ScheduleError(
                f"{what}: {length} measures {number_text(total_steps)} {CLOCK_NAMES[self.clock]}s; "
                "a length must be >= 0 and at most 1e18"
            )
        return total_steps

    def size(self, unit: str, what: str) -> float:
        """Return what one ``unit`` weighs, or say which argument of ``resolve`` is missing."""
        size: Any = getattr(self, unit)
        if size is not None:
            return float(size)
        if self.clock == "steps" or unit == "epochs":
            argument = "steps_per_epoch" if unit == "epochs" else f"{unit}_per_step"
            meaning = "steps per epoch" if unit == "epochs" else f"{unit} per step"
            needs = f"{argument}= ({meaning})"
            if self.clock != "steps" and self.steps is None:
                needs += f" and {self.clock}_per_step= ({self.clock} per step)"
        else:
            needs = f"{self.clock}_per_step= ({self.clock} per step)"
        raise ScheduleError(f"{what} needs {needs}")
