"""Axes with short tick labels, and decimation of long lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_DRAWN = 1e300  # larger absolute values are not drawn, since the span of an axis would overflow
_FLAT_REL_TOL = 1e-12  # a smaller relative span is a rounding error


def number(value: float, digits: int = 4) -> str:
    """Return a number as short text, plain or with an exponent: 0.01, 3e-4, 1234, 2.5e7."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    short = _scientific(value, digits - 1)
    if not 1e-300 < abs(value) < 1e6:
        return short
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    plain = f"{value:.{decimals}f}"
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return short if abs(value) < 1 and len(short) < len(plain) else plain


def _scientific(value: float, decimals: int) -> str:
    mantissa, exponent = f"{value:.{decimals}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of numbers that maps to [0, 1], linearly or logarithmically.

    ``low`` maps to 0 and ``high`` to 1; ``whole`` axes have no ticks between integers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def fit(
        cls,
        values: Iterable[float],
        *,
        log: bool = False,
        pad: float = 0.0,
        upright: bool = False,
        whole: bool = False,
    ) -> Axis:
        """Return an axis that contains all drawable values, with ``pad`` of its span at both ends.

        An ``upright`` axis starts at 0 unless that would flatten the line.
        """
        drawn = [v for v in values if abs(v) <= MAX_DRAWN and (v > 0 or not log)]
        low, high = (min(drawn), max(drawn)) if drawn else (1.0, 1.0)
        if log:
            if math.log10(high) - math.log10(low) < _FLAT_REL_TOL:
                low, high = low / math.sqrt(10), high * math.sqrt(10)
            ratio = (high / low) ** pad
            return cls(low / ratio, high * ratio, log=True)
        flat = high - low <= max(_FLAT_REL_TOL * max(abs(low), abs(high)), 1 / MAX_DRAWN)
        if upright and (flat or low < 0.3 * high):
            # The axis ends exactly at 0, so that a line along the bottom reads as 0.
            low, high = min(low, 0.0), max(high, 0.0)
            if high - low <= 1 / MAX_DRAWN:
                high = 1.0
        elif flat:
            half = 1.0 if whole or abs(high) <= 1 / MAX_DRAWN else abs(high) / 2
            low, high = low - half, high + half
        margin = pad * (high - low)
        bottom = low if upright and low == 0 else low - margin
        return cls(bottom, high if upright and high == 0 else high + margin, whole=whole)

    def at(self, value: float) -> float:
        """Return the position of a value: 0 at ``low``, 1 at ``high``; NaN if not drawable."""
        if not abs(value) <= MAX_DRAWN or (self.log and value <= 0):
            return math.nan
        if self.log:
            low = math.log10(self.low)
            return (math.log10(value) - low) / (math.log10(self.high) - low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """Return about ``count`` round values within the axis and their labels."""
        if self.log:
            values = self._log_ticks(count)
            if len(values) > 1:
                return [(v, number(v)) for v in values]
        step = _nice_step((self.high - self.low) / max(count, 1))
        if self.whole:
            step = max(step, 1.0)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        values = [float(i * step) for i in range(first, last + 1)]
        return list(zip(values, _labels(values, step), strict=True))

    def _log_ticks(self, count: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        tens = range(first, last + 1)
        fine = self._within(float(f"{m}e{k}") for k in tens for m in (1, 2, 5))
        if len(fine) <= count:
            return fine
        decades = self._within(float(f"1e{k}") for k in tens)
        if len(decades) < 2:
            return fine
        stride = math.ceil(len(decades) / max(count, 1))
        return self._within(float(f"1e{k}") for k in tens if k % stride == 0)

    def _within(self, values: Iterable[float]) -> list[float]:
        return [v for v in values if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9) and v > 0]


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10, 20) if m * power >= rough * (1 - 1e-9))


def _labels(values: Sequence[float], step: float) -> list[str]:
    """Return distinct labels, all plain or all with an exponent."""
    top, finest = max(map(abs, values), default=0.0), math.floor(math.log10(step) + 1e-9)
    if 1e-2 <= top < 1e6:
        return ["0" if v == 0 else f"{v:.{max(0, -finest)}f}" for v in values]
    # A multiple of the step has no digits finer than the step itself.
    decimals = [math.floor(math.log10(abs(v)) + 1e-9) - finest if v else 0 for v in values]
    return [_scientific(v, d) if v else "0" for v, d in zip(values, decimals, strict=True)]


def decimate(
    xs: Sequence[float], ys: Sequence[float], limit: int = 1000
) -> tuple[list[float], list[float]]:
    """Return at most ``limit`` points of a line, with its extremes and its gaps.

    Each of equal buckets contributes its lowest, its highest and its first non-finite point.
    """
    count = min(len(xs), len(ys))
    if count <= limit:
        return list(xs[:count]), list(ys[:count])
    last = count - 1
    buckets = max(1, (limit - 2) // 3)
    chosen = {0, last}
    for b in range(buckets):
        bucket = range(b * count // buckets, (b + 1) * count // buckets)
        finite = [i for i in bucket if math.isfinite(ys[i])]
        if finite:
            chosen.add(min(finite, key=ys.__getitem__))
            chosen.add(max(finite, key=ys.__getitem__))
        if len(finite) < len(bucket):
            chosen.add(next(i for i in bucket if not math.isfinite(ys[i])))
    indices = sorted(chosen)
    return [xs[i] for i in indices], [ys[i] for i in indices]
