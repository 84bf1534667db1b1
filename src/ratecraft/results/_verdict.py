"""Comparisons in words: the sentence that names the best candidate, and numbers as text."""

import math
from collections.abc import Sequence
from typing import Final

from ratecraft._render._axis import number

from ._statistics import Summary, finished

MAX_NAMES_IN_SENTENCE: Final = 4  # of candidates; then it says how many more there are


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
    lead = f"{best.name} has the lowest validation loss, {second.gap:.4g} below {second.name}"
    if math.isnan(second.gap_low):
        return f"{lead} (one seed, so this may be chance)"
    lead += f" (95 % confidence: {second.gap_low:.2g} to {second.gap_high:.2g})"
    equal = [row.name for row in rows[1:] if not row.gap_low > 0]
    if not equal:
        return lead
    return f"{lead}; not significantly worse with {best.seeds} seeds: {_listed(equal)}"


def _listed(names: Sequence[str]) -> str:
    """Return the first names, and the number of names left out."""
    omitted = len(names) - MAX_NAMES_IN_SENTENCE
    rest = [f"{omitted} more"] if omitted > 0 else []
    return ", ".join([*names[:MAX_NAMES_IN_SENTENCE], *rest])


def mean_text(row: Summary, metric: str = "loss") -> str:
    """Return a metric's mean and standard deviation over seeds, with the same decimal places."""
    mean, spread = row.mean[metric], row.spread[metric]
    if math.isnan(mean):
        return "-"
    text, decimals = number(mean), None
    if 1e-3 <= abs(mean) < 1e4:
        decimals = 3 - math.floor(math.log10(abs(mean)))
        text = f"{mean:.{decimals}f}"
    if not math.isfinite(spread):
        return text
    if decimals is None or 0 < spread < 0.5 * 10**-decimals:
        return f"{text} ± {number(spread, 2)}"
    return f"{text} ± {spread:.{decimals}f}"


def gap_text(row: Summary) -> str:
    """Return the gap to the best candidate with its confidence interval."""
    if math.isnan(row.gap):
        return "-"
    if math.isnan(row.gap_low):
        return number(row.gap, 2)
    return f"{number(row.gap, 2)} ({number(row.gap_low, 2)} to {number(row.gap_high, 2)})"
