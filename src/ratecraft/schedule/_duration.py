"""Lengths of training in steps, epochs, percent, samples and tokens.

A length is an int (steps) or a `Duration`, which has one coefficient per unit. A `Horizon`
holds the size of each unit in a given run, and `Horizon.measure` turns a length into a number.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

from ratecraft.errors import ScheduleError

DURATION_UNITS: Final = ("percent", "epochs", "steps", "samples", "tokens")
MAX_DURATION: Final = 1e18  # steps, samples or tokens; no run is as long, and an ulp is 128 there
CLOCK_NAMES: Final = {"steps": "step", "samples": "sample", "tokens": "token"}


def as_number(value: object, name: str) -> float:
    """Return ``value`` as a finite float; ``-0.0`` becomes ``0.0``.

    Args:
        value: any object.
        name: the argument that it was given as, for the error message.

    Raises:
        TypeError: it is not a real number, or it is a bool.
        ScheduleError: it is infinite, NaN or too large for a float.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:
        raise ScheduleError(f"{name} is too large for a float") from None
    if not math.isfinite(number):
        raise ScheduleError(f"{name} must be finite, not {number}")
    return number + 0.0  # -0.0 + 0.0 is 0.0


def number_text(number: float) -> str:
    """Return the shortest text that reads back as ``number``: integral values as an int."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of training in mixed units, e.g. ``epochs(1) + 100`` or ``percent(30) - 1``.

    Create one with `steps`, `epochs`, `percent`, `samples` or `tokens`. Durations and ints
    (steps) can be added and subtracted. `Schedule.resolve` turns a duration into a number.

    Attributes:
        percent: percent of the scope: the run, the cycle, or the length given to ``.over()``.
        epochs: number of epochs.
        steps: number of optimizer steps.
        samples: number of training samples.
        tokens: number of training tokens.

    >>> from ratecraft import epochs
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
        term = as_duration(other, "the other term of a sum of lengths")
        return Duration(
            *(
                as_number(getattr(self, u) + sign * getattr(term, u), "the sum of two lengths")
                for u in DURATION_UNITS
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
        terms = [(u, c) for u in DURATION_UNITS if (c := getattr(self, u))]
        terms.sort(key=lambda term: term[1] < 0)  # positive terms first, else in unit order
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
        """Return the text used as an argument: whole steps are a plain int."""
        text = repr(self)
        inner = text[6:-1]
        return inner if text.startswith("steps(") and inner.isdigit() else text


Length = int | Duration
"""The type of every argument that takes a length; a plain int counts steps."""


def _single_unit(unit: str, value: object) -> Duration:
    number = as_number(value, f"{unit}()")
    if number < 0:
        raise ScheduleError(f"{unit}({number_text(number)}): a length must be >= 0")
    return Duration(**{unit: number})


def steps(n: float) -> Duration:
    """Return a length of ``n`` optimizer steps; a plain int means the same.

    Args:
        n: number of steps, >= 0; fractions are allowed.

    >>> from ratecraft import steps
    >>> steps(500)
    steps(500)
    """
    return _single_unit("steps", n)


def epochs(n: float) -> Duration:
    """Return a length of ``n`` epochs; ``resolve(steps_per_epoch=...)`` sets the size of one.

    Args:
        n: number of epochs, >= 0; fractions are allowed.

    >>> from ratecraft import epochs
    >>> epochs(0.5)
    epochs(0.5)
    """
    return _single_unit("epochs", n)


def percent(p: float) -> Duration:
    """Return a length of ``p`` percent of the run, or of the enclosing cycle or ``.over()``.

    Args:
        p: percentage, >= 0.

    >>> from ratecraft import percent
    >>> percent(10)
    percent(10)
    """
    return _single_unit("percent", p)


def samples(n: float) -> Duration:
    """Return a length of ``n`` training samples; see ``resolve(samples_per_step=...)``.

    Args:
        n: number of samples, >= 0.

    >>> from ratecraft import samples
    >>> samples(50_000)
    samples(50000)
    """
    return _single_unit("samples", n)


def tokens(n: float) -> Duration:
    """Return a length of ``n`` training tokens; see ``resolve(tokens_per_step=...)``.

    Args:
        n: number of tokens, >= 0.

    >>> from ratecraft import tokens
    >>> tokens(3e9)
    tokens(3000000000)
    """
    return _single_unit("tokens", n)


def as_duration(value: object, name: str) -> Duration:
    """Return ``value``, a `Duration` or an int that counts steps, as a `Duration`.

    Args:
        value: any object.
        name: the argument that it was given as, for the error message.

    Raises:
        TypeError: it is neither a `Duration` nor an int.
        ScheduleError: it is negative.
    """
    if isinstance(value, Duration):
        return value
    if isinstance(value, bool) or value is None:
        raise TypeError(f"{name} must be a length, not {value!r}; write 500 or epochs(2)")
    try:
        count = operator.index(value)  # type: ignore[arg-type]  # the TypeError is the check
    except TypeError:
        hint = "write 500, epochs(2) or percent(10)"
        if isinstance(value, Real):
            hint = f"write percent({number_text(float(value) * 100)}) for a share of the run"
            hint += f", or steps({number_text(float(value))}) for steps"
        raise TypeError(
            f"{name} must be an int (steps), steps(), epochs() or percent(), "
            f"not {value!r} ({type(value).__name__}); {hint}"
        ) from None
    return steps(count)


@dataclass(frozen=True, slots=True)
class Horizon:
    """The size of each unit on the clock of a run; None where it is unknown.

    ``clock`` is "steps", "samples" or "tokens": the unit of t. On the step clock ``epochs`` is
    the number of steps per epoch, and ``tokens`` is 1 / tokens per step.
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
        """Build a horizon from steps per epoch, samples per step and tokens per step."""
        per_step = {"steps": 1.0}
        for unit, size in (
            ("epochs", steps_per_epoch),
            ("samples", samples_per_step),
            ("tokens", tokens_per_step),
        ):
            if size is not None:
                name = _size_argument(unit)
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
        sizes = {u: n * per_step[clock] for u, n in steps.items()} | {clock: 1.0}
        return cls(clock, **sizes)

    def measure(self, length: Duration, scope: float, name: str) -> float:
        """Return ``length`` in units of the clock.

        Args:
            length: the length to measure.
            scope: 100 percent, in units of the clock; may be infinite.
            name: the argument or schedule that has this length, for the error message.

        Raises:
            ScheduleError: the size of a unit is unknown, or the length is negative or too long.
        """
        parts = []
        if length.percent:
            if math.isinf(scope):
                raise ScheduleError(
                    f"{name}: {length} needs total_steps=, since percent is of the run"
                )
            parts.append(length.percent * scope / 100)
        for unit in DURATION_UNITS[1:]:
            if coefficient := getattr(length, unit):
                parts.append(coefficient * self.size(unit, f"{name}: {length}"))
        try:
            size = math.fsum(parts)
        except (OverflowError, ValueError):  # ValueError: infinite parts of both signs
            size = math.inf
        if not 0 <= size <= MAX_DURATION:
            raise ScheduleError(
                f"{name}: {length} measures {number_text(size)} {CLOCK_NAMES[self.clock]}s; "
                "a length must be >= 0 and at most 1e18"
            )
        return size

    def size(self, unit: str, name: str) -> float:
        """Return the size of one ``unit`` on the clock.

        Raises:
            ScheduleError: it is unknown; the message names the missing argument of ``resolve``.
        """
        size: Any = getattr(self, unit)
        if size is not None:
            return float(size)
        if self.clock == "steps" or unit == "epochs":
            needs = _size_needed(unit)
            if self.clock != "steps" and self.steps is None:
                needs += f" and {_size_needed(self.clock)}"
        else:
            needs = _size_needed(self.clock)
        raise ScheduleError(f"{name} needs {needs}")


def _size_argument(unit: str) -> str:
    return "steps_per_epoch" if unit == "epochs" else f"{unit}_per_step"


def _size_needed(unit: str) -> str:
    argument = _size_argument(unit)
    return f"{argument}= ({argument.replace('_', ' ')})"
