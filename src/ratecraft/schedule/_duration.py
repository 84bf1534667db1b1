"""Lengths of training in steps, epochs, percent, samples and tokens.

A length is an int (steps) or a `Duration`. A `Horizon` has the size of each unit in a given run.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from numbers import Real
from typing import Any, Final

from ratecraft.errors import ScheduleError

from ._value import Value

DURATION_UNITS: Final = ("percent", "epochs", "steps", "samples", "tokens")
MAX_DURATION: Final = 1e18  # steps, samples or tokens; no run is as long, and an ulp is 128 there
CLOCK_NAMES: Final = {"steps": "step", "samples": "sample", "tokens": "token"}
SIZE_ARGUMENTS: Final = {
    "epochs": "steps_per_epoch",
    "samples": "samples_per_step",
    "tokens": "tokens_per_step",
}


def as_number(value: object, name: str) -> float:
    """Return ``value`` as a finite float; ``-0.0`` becomes ``0.0``; ``name`` is for the error."""
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


class Duration(Value):
    """A length of training in mixed units, e.g. ``epochs(1) + 100`` or ``percent(30) - 1``.

    Create one with `steps`, `epochs`, `percent`, `samples` or `tokens`. Durations and ints
    (steps) can be added and subtracted. `Schedule.resolve` turns a duration into a number.

    Attributes:
        percent: percent of the scope: the run, the cycle, or the length given to ``.over()``.
        epochs: number of epochs.
        steps: number of optimizer steps.
        samples: number of training samples.
        tokens: number of training tokens.

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
        sums = (getattr(self, u) + sign * getattr(term, u) for u in DURATION_UNITS)
        return Duration(*(as_number(total, "the sum of two lengths") for total in sums))

    def __add__(self, other: object) -> Duration:
        return self._plus(other, 1.0)

    __radd__ = __add__

    def __sub__(self, other: object) -> Duration:
        return self._plus(other, -1.0)

    def __rsub__(self, other: object) -> Duration:
        return as_duration(other, "the length")._plus(self, -1.0)

    def __mul__(self, other: object) -> Duration:
        fix = "write the product inside, e.g. epochs(2 * n)"
        raise TypeError(f"a length cannot be multiplied: {self!r} * {other!r}; {fix}")

    __rmul__ = __mul__

    def __repr__(self) -> str:
        text = str(self)
        return f"steps({text})" if text.isdigit() else text

    def __str__(self) -> str:
        # The text used as an argument: whole steps are a plain int.
        terms = [(u, c) for u in DURATION_UNITS if (c := getattr(self, u))]
        terms.sort(key=lambda term: term[1] < 0)  # positive terms first, else in unit order
        text = ""
        for unit, coefficient in terms:
            sign, size = "+" if coefficient > 0 else "-", number_text(abs(coefficient))
            is_int = unit == "steps" and size.isdigit() and (text or coefficient > 0)
            text += f" {sign} " + (size if is_int else f"{unit}({size})")
        # The parser evaluates no sum of two numbers, so `0 - 5` is written 0 - steps(5).
        return f"0{text}" if text.startswith(" -") else text[3:] or "0"


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

    Raises:
        ScheduleError: ``n`` is negative or not finite.

    >>> steps(500)
    steps(500)
    """
    return _single_unit("steps", n)


def epochs(n: float) -> Duration:
    """Return a length of ``n`` epochs; ``resolve(steps_per_epoch=...)`` sets the size of one.

    Args:
        n: number of epochs, >= 0; fractions are allowed.

    Raises:
        ScheduleError: ``n`` is negative or not finite.

    >>> epochs(0.5)
    epochs(0.5)
    """
    return _single_unit("epochs", n)


def percent(p: float) -> Duration:
    """Return a length of ``p`` percent of the run, or of the enclosing cycle or ``.over()``.

    Args:
        p: percentage, >= 0; above 100 the length is longer than the run.

    Raises:
        ScheduleError: ``p`` is negative or not finite.

    >>> percent(10)
    percent(10)
    """
    return _single_unit("percent", p)


def samples(n: float) -> Duration:
    """Return a length of ``n`` training samples; see ``resolve(samples_per_step=...)``.

    Args:
        n: number of samples, >= 0.

    Raises:
        ScheduleError: ``n`` is negative or not finite.

    >>> samples(50_000)
    samples(50000)
    """
    return _single_unit("samples", n)


def tokens(n: float) -> Duration:
    """Return a length of ``n`` training tokens; see ``resolve(tokens_per_step=...)``.

    Args:
        n: number of tokens, >= 0.

    Raises:
        ScheduleError: ``n`` is negative or not finite.

    >>> tokens(3e9)
    tokens(3000000000)
    """
    return _single_unit("tokens", n)


def as_duration(value: object, name: str) -> Duration:
    """Return ``value``, a `Duration` or an int (steps), as a `Duration`; ``name`` is for errors."""
    if isinstance(value, Duration):
        return value
    # numpy's bool_, which numpy 1.26 takes for an int
    is_bool = isinstance(value, bool) or type(value).__name__ == "bool_"
    if is_bool or value is None:
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


class Horizon(Value):
    """The size of each unit on the clock of a run, which is the unit of t; None if unknown."""

    clock: str = "steps"
    steps: float | None = 1.0
    epochs: float | None = None
    samples: float | None = None
    tokens: float | None = None

    @classmethod
    def of_run(cls, total_steps: object, sizes: Mapping[str, object]) -> tuple[Horizon, float]:
        """Return the horizon and the length of a run; ``sizes`` are those of the units per step."""
        length = Duration() if total_steps is None else as_duration(total_steps, "total_steps=")
        if length.percent:
            reason = "the run itself cannot be a percent of the run"
            raise ScheduleError(f"total_steps={length}: {reason}")
        units = [unit for unit in DURATION_UNITS if getattr(length, unit)]
        # A run written in tokens or samples alone is on that clock.
        clock = units[0] if units in (["tokens"], ["samples"]) else "steps"
        per_step = {"steps": 1.0}
        for unit, size in sizes.items():
            if size is not None:
                per_step[unit] = as_number(size, f"{SIZE_ARGUMENTS[unit]}=")
                if per_step[unit] <= 0:
                    raise ScheduleError(f"{SIZE_ARGUMENTS[unit]}= must be > 0, not {size!r}")
        if clock in per_step:
            steps = {unit: n if unit == "epochs" else 1 / n for unit, n in per_step.items()}
            on_clock = {unit: n * per_step[clock] for unit, n in steps.items()} | {clock: 1.0}
            horizon = cls(clock, **on_clock)
        else:
            horizon = cls(clock, **{"steps": None, clock: 1.0})
        if total_steps is None:
            return horizon, math.inf
        return horizon, horizon.measure(length, math.inf, "total_steps=")

    def measure(self, length: Duration, scope: float, name: str) -> float:
        """Return ``length`` in units of the clock; ``scope`` is 100 percent and may be infinite."""
        parts = []
        if length.percent:
            if math.isinf(scope):
                needs = "needs total_steps=, since percent is of the run"
                raise ScheduleError(f"{name}: {length} {needs}")
            parts.append(length.percent * scope / 100)
        for unit in DURATION_UNITS[1:]:
            if coefficient := getattr(length, unit):
                parts.append(coefficient * self.size(unit, f"{name}: {length}"))
        try:
            size = math.fsum(parts)
        except (OverflowError, ValueError):  # ValueError: infinite parts of both signs
            size = math.inf
        if not 0 <= size <= MAX_DURATION:
            measured = f"{length} measures {number_text(size)} {CLOCK_NAMES[self.clock]}s"
            raise ScheduleError(f"{name}: {measured}; a length must be >= 0 and at most 1e18")
        return size

    def size(self, unit: str, name: str) -> float:
        """Return the size of one ``unit`` on the clock."""
        size: Any = getattr(self, unit)
        if size is not None:
            return float(size)
        missing = [unit if self.clock == "steps" or unit == "epochs" else self.clock]
        if unit == "epochs" and self.steps is None:
            missing.append(self.clock)
        arguments = [SIZE_ARGUMENTS[u] for u in missing]
        needs = " and ".join(f"{a}= ({a.replace('_', ' ')})" for a in arguments)
        raise ScheduleError(f"{name} needs {needs}")
