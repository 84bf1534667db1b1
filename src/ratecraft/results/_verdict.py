"""Comparisons in words: the sentence that names the best candidate, and numbers as text."""

import math
from collections.abc import Sequence
from typing import Final

from ._statistics import Summary, finished

MAX_NAMES_IN_SENTENCE: Final = 4  # of candidates; then it says how many more there are
MAX_DECIMALS: Final = 6  # more are written with an exponent
MAX_EXTRA_DECIMALS: Final = 2  # of a mean, to show the smallest standard deviation
MAX_PLAIN: Final = 1e6  # larger numbers are written with an exponent


def verdict(rows: Sequence[Summary]) -> str:
    """Return the verdict on candidates, which are sorted by total_steps and loss."""
    lengths = dict.fromkeys(row.total_steps for row in rows if row.total_steps)
    if len(lengths) > 1:
        return " ".join(
            f"{length:,} steps: {verdict([row for row in rows if row.total_steps == length])}"
            for length in lengths
        )
    ranked = [row for row in rows if row.seeds and finished(row)]
    missing = [row.name for row in rows if row.missing or not row.seeds]
    if not ranked and missing:
        return "No schedule has a finished run for every seed."
    if not ranked:
        return "Every schedule diverged on at least one seed: try a lower lr."
    text = f"{_ranking(ranked, alone=len(rows) == 1)}."
    if stopped := sum(row.stopped > 0 for row in rows):
        text += (
            f" Early stopping ended {stopped} of {len(rows)} candidates, so their "
            "final losses are unknown."
        )
    if missing:
        text += f" Left out because runs are missing: {_listed(missing)}."
    return text


def _ranking(rows: Sequence[Summary], *, alone: bool) -> str:
    """Return how the best of the rows differs from the others; ``alone``: there were no others."""
    best = rows[0]
    if len(rows) == 1:
        reason = "in this comparison" if alone else "that finished"
        return f"{best.name} is the only schedule {reason}"
    second = rows[1]
    gap, low, high = _formatted([second])[0]
    comparison = f"{gap} times as high" if second.is_ratio else f"{gap} higher"
    text = f"{best.name} has the lowest validation loss; that of {second.name} is {comparison}"
    if math.isnan(second.gap_low):
        return f"{text} (one seed, so this may be chance)"
    corrected = f", corrected for {len(rows)} candidates" if len(rows) > 2 else ""
    text += f" (95 % interval {low} to {high}{corrected})"
    equal = [f"{row.name}{_consistency(row)}" for row in rows[1:] if not row.is_worse]
    if not equal:
        return text
    return f"{text}. Not significantly worse with {best.seeds} seeds: {_listed(equal)}"


def _consistency(row: Summary) -> str:
    if row.seeds_worse < row.seeds:
        return ""
    seeds = "both" if row.seeds == 2 else f"all {row.seeds}"
    return f" (worse on {seeds} seeds, but not significantly)"


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of names left out; names may contain commas."""
    omitted = len(names) - MAX_NAMES_IN_SENTENCE
    rest = [f"{omitted} more"] if omitted > 0 else []
    return "; ".join([*names[:MAX_NAMES_IN_SENTENCE], *rest])


def mean_texts(rows: Sequence[Summary], metric: str = "loss") -> list[str]:
    """Return a metric's mean and standard deviation over seeds, all with the same decimals."""
    means = [abs(row.mean[metric]) for row in rows if row.mean[metric]]
    means = sorted(filter(math.isfinite, means))
    spreads = [row.spread[metric] for row in rows if row.spread[metric] > 0]
    decimals = 3
    if means:
        lowest, highest = _exponent(means[0]), _exponent(means[-1])
        decimals = max(2 - lowest, min(3 - lowest, 3), 3 - highest)
        finest = min((-_exponent(spread) for spread in spreads), default=decimals)
        decimals = max(decimals, min(finest, decimals + MAX_EXTRA_DECIMALS))
    is_plain = decimals <= MAX_DECIMALS and (not means or means[-1] < MAX_PLAIN)
    form, spread_form = (f".{max(decimals, 0)}f",) * 2 if is_plain else (".3e", ".1e")
    texts = []
    for row in rows:
        mean, spread = row.mean[metric], row.spread[metric]
        text = "-" if math.isnan(mean) else f"{mean:{form}}"
        texts.append(f"{text} ± {spread:{spread_form}}" if math.isfinite(spread) else text)
    return texts


def gap_texts(rows: Sequence[Summary]) -> list[str]:
    """Return the gaps to the best candidate with their intervals, all with the same decimals."""
    texts = []
    for row, (gap, low, high) in zip(rows, _formatted(rows), strict=True):
        unit = "x" if row.is_ratio else ""
        interval = "" if math.isnan(row.gap_low) else f" ({low} to {high})"
        texts.append("-" if math.isnan(row.gap) else f"{gap}{unit}{interval}")
    return texts


def _formatted(rows: Sequence[Summary]) -> list[tuple[str, str, str]]:
    """Return the gap and the ends of the interval of each row, all with the same decimals."""
    values = [abs(x) for row in rows for x in (row.gap, row.gap_low, row.gap_high)]
    largest = max(filter(math.isfinite, values), default=0.0)
    widths = [row.gap_high - row.gap for row in rows] or [0.0]
    finest = min((width for width in widths if 0 < width < math.inf), default=largest / 100)
    decimals = 1 - _exponent(finest) if finest else 3
    if largest:
        exponent = _exponent(largest)
        decimals = min(max(decimals, 2 - exponent, 2), max(4 - exponent, 3))
    is_plain = decimals <= MAX_DECIMALS and largest < MAX_PLAIN
    form = f".{max(decimals, 0)}f" if is_plain else ".2e"
    return [(f"{r.gap:{form}}", f"{r.gap_low:{form}}", f"{r.gap_high:{form}}") for r in rows]


def _exponent(value: float) -> int:
    return math.floor(math.log10(value))
