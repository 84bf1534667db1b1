"""Confidence intervals of the differences between candidates, corrected for their number.

The candidates are compared as in Tukey's range test, paired by seed, but each has a variance of its
own, since the loss is noisier at some learning rates than at others. A few seeds may underestimate
it by far, so it is at least the mean variance of all candidates. With two candidates this is the
paired t-test. `benchmarks/verdicts.py` counts the false verdicts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE: Final = 0.95
MAX_VARIANCE_RATIO: Final = 10.0  # of a candidate's variance to the median one, in the mean
QUADRATURE_POINTS: Final = 64
MAX_ABS_Z: Final = 8.0  # beyond it the normal density is below 1e-14


def differences_from_first(values: Sequence[Sequence[float]]) -> list[tuple[float, float, float]]:
    """Return the mean difference of each candidate from the first, with its 95 % interval.

    All intervals contain the true differences with a probability of 95 %, whichever candidate is
    first, also if it was chosen for its low mean.

    Args:
        values: one row per candidate, with the values of the same seeds in the same order. The
            intervals are NaN if there is only one seed.
    """
    import numpy as np

    table = np.asarray(values, float)
    count, seeds = table.shape
    differences = (table - table[0]).mean(axis=1).tolist()
    if seeds == 1 or count == 1:
        return [(difference, math.nan, math.nan) for difference in differences]
    variances, freedom = _variances(table), (count - 1) * (seeds - 1)
    errors = np.sqrt((variances + variances[0]) / seeds)
    widths = studentized_range_quantile(count, freedom) / math.sqrt(2) * errors
    return [
        (differences[0], math.nan, math.nan),
        *((d, d - w, d + w) for d, w in zip(differences[1:], widths[1:].tolist(), strict=True)),
    ]


def _variances(table: np.ndarray) -> np.ndarray:
    """Return the variance of each candidate without the effects of the seeds."""
    import numpy as np
    from scipy.special import gammaincinv

    count, seeds = table.shape
    deviations = table - table.mean(axis=1, keepdims=True)
    # The median ignores a few candidates that are much noisier than the others.
    residuals = deviations - np.median(deviations, axis=0)
    residuals -= residuals.mean(axis=1, keepdims=True)
    freedom = seeds - 1
    variances = (residuals**2).sum(axis=1) / (freedom * (1 - 1 / count))
    # A candidate that nearly diverges says nothing about the variance of the others.
    median = np.median(variances) / (2 / freedom * gammaincinv(freedom / 2, 0.5))
    mean = np.minimum(variances, MAX_VARIANCE_RATIO * median).mean()
    at_least_mean: np.ndarray = np.maximum(variances, mean)
    return at_least_mean


@functools.lru_cache(maxsize=1024)
def studentized_range_quantile(count: int, freedom: float) -> float:
    """Return the 95 % quantile of the range of ``count`` normal values over their spread.

    It is `scipy.stats.studentized_range.ppf(0.95, count, freedom)`, which takes a hundred times
    longer.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import gammaincinv, ndtr, stdtrit

    if count == 2:
        return math.sqrt(2) * float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE_POINTS)
    z = MAX_ABS_Z * nodes
    density = MAX_ABS_Z * weights * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = ndtr(z)
    spread = np.sqrt(2 / freedom * gammaincinv(freedom / 2, (nodes + 1) / 2))

    def probability(quantile: float) -> float:
        inside = below - ndtr(z - quantile * spread[:, None])
        return float(weights / 2 @ (count * inside ** (count - 1) @ density))

    solution: float = brentq(lambda quantile: probability(quantile) - CONFIDENCE, 0.1, 1e4)
    return solution
